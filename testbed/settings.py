"""Runs a function with the settings in events/NAME/settings.json: `make run` starts each function through this.

    settings.py UPSTREAM EXECUTABLE [ARGUMENT...]

What the environment sets already stays. `{upstream}` becomes the origin of a server that answers each request with
events/NAME/upstream.json, or, without that file, UPSTREAM: by default the origin of `make run` itself.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

EVENTS = Path(__file__).resolve().parents[1] / "events"


def serve(body: bytes) -> str:
    """Returns the origin of a server that answers with `body` until this process, or what it becomes, has ended."""

    class Upstream(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    ended, lives = os.pipe()
    if os.fork() == 0:
        os.close(lives)
        Thread(target=server.serve_forever, daemon=True).start()
        os.read(ended, 1)  # nobody writes: it returns when no process holds the other end
        os._exit(0)
    os.set_inheritable(lives, True)
    return f"http://127.0.0.1:{server.server_port}"


def settings(folder: Path, upstream: str) -> dict[str, str]:
    file, answer = folder / "settings.json", folder / "upstream.json"
    try:
        written = json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    if answer.exists() and any("{upstream}" in value for value in written.values()):
        upstream = serve(answer.read_bytes())
    return {name: value.replace("{upstream}", upstream) for name, value in written.items()}


if __name__ == "__main__":
    upstream, executable, *arguments = sys.argv[1:]
    os.execve(executable, [executable, *arguments], settings(EVENTS / Path(executable).name, upstream) | os.environ)

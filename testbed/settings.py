"""Runs a function with the settings in events/NAME/settings.json: `make run` starts each function through this.

    settings.py UPSTREAM EXECUTABLE [ARGUMENT...]
    settings.py --check                             fails if the settings of a function cannot be read

What the environment sets already stays. `{upstream}` becomes the origin of a server that answers each request with
events/NAME/upstream.json, or, without that file, UPSTREAM: by default the origin of `make run` itself.

If emulator.py runs `make run`, the function's AWS is the emulator, whatever AWS_ENDPOINT_URL, the region and the keys in the
environment say, and its callers are those of caller.py.
"""

import json
import os
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType

EVENTS = Path(__file__).resolve().parents[1] / "events"


# What AWS's clients need beside the address that settings give them.
FOR_AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_OPERATION_TIMEOUT_MS": "60000"}


def serve(server: ThreadingHTTPServer) -> str:
    """Returns the address of `server`, which answers until this process, or what it becomes, has ended."""
    ended, lives = os.pipe()
    if os.fork() == 0:
        os.close(lives)
        Thread(target=server.serve_forever, daemon=True).start()
        os.read(ended, 1)  # nobody writes: it returns when no process holds the other end
        os._exit(0)
    os.set_inheritable(lives, True)
    return f"127.0.0.1:{server.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A response is written in parts. The later parts must not wait until the first is acknowledged.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def upstream_with(body: bytes) -> ThreadingHTTPServer:
    """A server that answers with `body`."""

    class Upstream(Handler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.reply(200, body, {"content-type": "application/json"})

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    return ThreadingHTTPServer(("127.0.0.1", 0), Upstream)


def read(file: Path) -> dict[str, str]:
    try:
        written = json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    if not isinstance(written, dict) or not all(isinstance(value, str) for value in written.values()):
        sys.exit(f"{file}: it must be an object of names and texts, as in {{ \"UPSTREAM_URL\": \"https://example.com\" }}")
    return written


def settings(folder: Path, upstream: str) -> dict[str, str]:
    written, answer = read(folder / "settings.json"), folder / "upstream.json"
    if answer.exists() and any("{upstream}" in value for value in written.values()):
        upstream = f"http://{serve(upstream_with(answer.read_bytes()))}"
    for_aws = FOR_AWS if any(name.startswith("AWS_ENDPOINT_URL") for name in written) else {}
    return for_aws | {name: value.replace("{upstream}", upstream) for name, value in written.items()}


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        for file in EVENTS.glob("*/settings.json"):
            read(file)
        sys.exit()
    upstream, executable, *arguments = sys.argv[1:]
    function = Path(executable).name
    local = json.loads(os.environ.pop("LOCAL_ENDPOINTS", "{}")).get(function, {})
    variables = settings(EVENTS / function, upstream) | local.get("variables", {}) | os.environ
    if client := {name: value for name, value in local.get("variables", {}).items() if name.startswith("AWS_") and name != "AWS_OPERATION_TIMEOUT_MS"}:
        variables |= client
        # A session's token belongs to other keys.
        variables.pop("AWS_SESSION_TOKEN", None)
    if protected := local.get("protected"):
        import caller

        variables["AWS_LAMBDA_RUNTIME_API"] = serve(caller.runtime_api(variables["AWS_LAMBDA_RUNTIME_API"], protected))
    os.execve(executable, [executable, *arguments], variables)

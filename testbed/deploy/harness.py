"""Processes, environments and waiting, for all tests here. None of it can reach an AWS account."""

import ipaddress
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
import requests
from emulator import declarations, free_port
from ownership import VERSION
from unchanged import ENDPOINTS, function_at, parsed

ROOT = Path(__file__).resolve().parents[2]
REGION = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]["global"]["parameters"]["region"]

# Whether `make own` has made this a team's.
OWNED = (ROOT / VERSION).exists()
ROUTER = parsed(ROOT / "CargoLambda.toml")["watch"]["router"]
DECLARED = declarations()
# The routes without parameters, and which of them need the token of an API that has any.
PLAIN = [path for path in ROUTER if "{" not in path]
PROTECTED = [path for path in PLAIN if path not in DECLARED.get(ROUTER[path], {}).get("public", [])]

# The endpoints whose tests have passed, if testbed/unchanged.py has said which have not.
TESTED = set(ROUTER.values()) & set(os.environ.get("TESTED_ENDPOINTS", "").split(" "))
UNTESTED = ENDPOINTS - TESTED if TESTED else set()


def is_tested(path: str) -> bool:
    """Whether this run tests what answers this path."""
    return function_at(path.partition("?")[0]) not in UNTESTED


# What takes long and tests a tool, which an edit of an endpoint cannot change.
in_ci = pytest.mark.skipif("CI" not in os.environ, reason="takes long and tests no endpoint: run by CI, and with CI=true")

T = TypeVar("T")


@dataclass
class Upstream:
    """A server that a function calls. Its body has every byte value, so that nothing on the way can treat it as text."""

    url: str
    body: bytes
    content_type: str = "application/octet-stream"
    # The only `Authorization` it accepts; any other gets 401. None: it accepts all.
    accepts: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    # The `Authorization` of each request.
    authorizations: list[str | None] = field(default_factory=list)


@dataclass
class Api:
    """One API under test: `where` is "local", "deployed" or "given"."""

    where: str
    url: str
    # The token that the given API needs, if any. Not in its representation, which pytest prints.
    token: str | None = field(default=None, repr=False)

    def call(self, path: str, method: str = "GET", headers: dict | None = None, **options) -> requests.Response:
        assert is_tested(path), f"{path} is of an endpoint that this run of testbed/unchanged.py is not for"
        headers = self.credentials() | (headers or {})
        return self.answered(self.send(path, method, headers=headers, **options))

    def send(self, path: str, method: str, **options) -> requests.Response:
        """Sends a request without the token."""
        url = self.url.rstrip("/") + path
        return requests.request(method, url, timeout=30, allow_redirects=False, **options)

    def credentials(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def answered(self, answer: T) -> T:
        """Returns `answer`, unless it is that of a gateway which wants a token."""
        if self.where == "given" and answer.status_code == 401 and not self.token:
            pytest.skip("the API needs a token here: put one into the environment variable TOKEN")
        return answer


def answered(url: str) -> requests.Response | None:
    """The answer to a GET request, unless nothing listens there."""
    with suppress(requests.ConnectionError):
        return requests.get(url, timeout=60)


def wait_for(condition: Callable[[], T], what: str, seconds: float) -> T:
    """Returns the first truthy result of `condition`. After `seconds`, raises an error that names `what`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return answer


def loopback_only(url: str) -> str:
    """Returns `url` if it is on this machine, else raises. Every AWS endpoint that a test uses is checked here."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        if host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback:
            return url
    raise ValueError(f"{url} is not a loopback address: the deploy tests run against an emulator only")


def environment(**extra: str) -> dict[str, str]:
    """This environment without settings of AWS, SAM, Lambda or the upstream. This Python's tools are first on PATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SAM_", "LAMBDA_", "UPSTREAM_"))}
    tools = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return kept | {"PATH": tools, "SAM_CLI_TELEMETRY": "0"} | extra


def run(*command: object, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that is asked nothing."""
    return subprocess.run(list(map(str, command)), cwd=folder, env=environment(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True)


def emulator_environment(endpoint: str) -> dict[str, str]:
    """An environment that sends all AWS clients to `endpoint`, with credentials that work nowhere else."""
    return environment(
        AWS_ENDPOINT_URL=loopback_only(endpoint),
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION=REGION,
        AWS_REGION=REGION,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
    )


@contextmanager
def process(command: list[str], env: Mapping[str, str], log: Path, folder: Path = ROOT) -> Iterator[subprocess.Popen]:
    """Runs `command` in its own process group, and stops the whole group afterwards."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield running
    finally:
        stop_group(running)


def stop_group(leader: subprocess.Popen) -> None:
    def gone() -> bool:
        leader.poll()  # reaps it: a zombie would keep the group alive
        try:
            os.killpg(leader.pid, 0)
        except ProcessLookupError:
            return True
        return False

    what = f"the end of process group {leader.pid}"
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(leader.pid, signal.SIGTERM)
        try:
            wait_for(gone, what, 2)
        except TimeoutError:
            os.killpg(leader.pid, signal.SIGKILL)
            wait_for(gone, what, 10)


def wait_for_line(running: subprocess.Popen, log: Path, beginning: str, seconds: float) -> str:
    """Returns the rest of the first line that starts with `beginning`. If the process ends, raises with the log."""

    def look() -> str | None:
        ended = running.poll() is not None  # checked before reading, or its last lines could be missed
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith(beginning) and line.endswith("\n"):
                return line.removeprefix(beginning).strip()
        if ended:
            raise RuntimeError(f"{running.args} ended with {running.returncode}:\n{log.read_text(errors='replace')}")
        return None

    return wait_for(look, f"{beginning!r} in {log}", seconds)

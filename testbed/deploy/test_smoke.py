"""`make smoke` against an API whose gateway wants a token: `make run`, behind a server that asks for it."""

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import requests
from harness import PROTECTED, ROOT, environment, in_ci
from shared_fixtures import Handler, serving
from test_api import cases

TOKEN = "header.payload.signature"
# The contract of each endpoint would take as long again as test_contract.py.
PART = "test_api or test_allow"
to_protected = pytest.mark.skipif(
    not any(case.values[0]["path"].partition("?")[0] in PROTECTED for case in cases()), reason="no case can be sent to a path that needs a token"
)


@pytest.fixture(scope="module")
def gateway(local_api: str) -> Iterator[SimpleNamespace]:
    """`local_api` as API Gateway's JWT authorizer protects it. `public` are paths that it forgets."""
    settings = SimpleNamespace(url="", public=set())

    class Gateway(Handler):
        def answer(self) -> None:
            path = self.path.partition("?")[0]
            needs_token = path in PROTECTED and self.command != "OPTIONS"
            if path in settings.public:
                status, headers, body = 200, {}, b"{}"
            elif needs_token and self.headers.get("authorization") != f"Bearer {TOKEN}":
                status, headers, body = 401, {"www-authenticate": "Bearer"}, b'{"message":"Unauthorized"}'
            else:
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                got = requests.request(self.command, local_api.rstrip("/") + self.path, headers=dict(self.headers), data=sent, timeout=30)
                status, headers, body = got.status_code, dict(got.headers), got.content
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "content-encoding", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_OPTIONS = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    server = serving(Gateway)
    settings.url = f"http://127.0.0.1:{server.server_port}"
    yield settings
    server.shutdown()
    server.server_close()


def smoke(gateway: SimpleNamespace, token: str, only: str) -> tuple[int, str]:
    """Runs the tests that match `only`, and returns the exit code and what is printed."""
    env = environment(TOKEN=token, PYTEST_ADDOPTS=f"-q -rs -k '{only}'")
    command = ["make", "smoke", f"API_URL={gateway.url}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert not token or token not in done.stdout + done.stderr
    return done.returncode, done.stdout


def test_with_the_token_everything_is_tested(gateway: SimpleNamespace) -> None:
    status, output = smoke(gateway, TOKEN, PART)
    assert status == 0, output
    assert "needs a token" not in output


@in_ci
@to_protected
def test_without_the_token_what_is_public_is_tested(gateway: SimpleNamespace) -> None:
    status, output = smoke(gateway, "", PART)
    assert status == 0, output
    assert "the API needs a token here: put one into the environment variable TOKEN" in output
    assert "the API needs no token" not in output


@in_ci
@pytest.mark.parametrize("token", [TOKEN, ""])
def test_a_path_that_forgets_the_token_fails(gateway: SimpleNamespace, token: str) -> None:
    if not token and len(PROTECTED) == 1:
        pytest.skip("without its one token, the API is as one that needs none")
    gateway.public.add(PROTECTED[-1])
    status, output = smoke(gateway, token, "with_tokens")
    gateway.public.clear()
    assert status != 0 and "test_an_api_with_tokens_wants_one_on_every_path" in output, output


@in_ci
@to_protected
def test_a_wrong_token_fails_and_is_not_printed(gateway: SimpleNamespace) -> None:
    status, output = smoke(gateway, "wrong." + TOKEN, "a_case")
    assert status != 0 and "test_a_case_gets_its_answer" in output, output


def test_without_an_address_it_tests_nothing_and_fails() -> None:
    """deploy.yml passes on what `make url` prints, which is nothing if that fails."""
    env = environment(PYTEST_ADDOPTS="--collect-only --quiet")
    done = subprocess.run(["make", "smoke", "API_URL="], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "API_URL" in done.stdout and "test_api.py" not in done.stdout, done.stdout

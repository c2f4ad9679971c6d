"""A caller under `make run`: what caller.py's Runtime API makes of a token, between a function and the Runtime API behind it."""

import http.client
import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from queue import Queue
from threading import Thread
from types import SimpleNamespace

import caller
import jwt
import pytest
from harness import run
from shared_fixtures import Handler, serving

PROTECTED = [["/seats/[^/]+", ["HEAD", "OPTIONS"]]]
STREAMED = b"6\r\nfirst,\r\n7\r\n second\r\n0\r\nLambda-Runtime-Function-Error-Type: Broken\r\n\r\n"


@pytest.fixture
def function(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A function's connection to its Runtime API, the events that it gets next, and what it has posted."""
    events, posted = Queue(), Queue()
    monkeypatch.setattr(caller, "KEY", tmp_path_factory.getbasetemp() / "key" / "key.pem")

    class Behind(Handler):
        def do_GET(self) -> None:
            self.reply(200, json.dumps(events.get()).encode(), {"lambda-runtime-aws-request-id": "an-id"})

        def do_POST(self) -> None:
            length = self.headers.get("content-length")
            posted.put((self.path, self.rfile.read(int(length) if length else len(STREAMED))))
            self.reply(202)

    behind = serving(Behind)
    between: ThreadingHTTPServer = caller.runtime_api(f"127.0.0.1:{behind.server_port}/prefix", PROTECTED)
    Thread(target=between.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", between.server_port, timeout=30)
    yield SimpleNamespace(connection=connection, events=events, posted=posted)
    connection.close()
    for server in (between, behind):
        server.shutdown()
        server.server_close()


def event(token: str | None = None, method: str = "GET", path: str = "/seats/7", authorizer: dict | None = None) -> dict:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return {"rawPath": path, "headers": headers, "requestContext": {"http": {"method": method}, "authorizer": authorizer}}


def next_event(function: SimpleNamespace) -> dict:
    function.connection.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = function.connection.getresponse()
    assert answer.headers["lambda-runtime-aws-request-id"] == "an-id"
    return json.loads(answer.read())


def test_a_token_becomes_claims_as_an_http_api_writes_them(function: SimpleNamespace) -> None:
    token = caller.token("ada", "seats parcels")
    claims = jwt.decode(token, options={"verify_signature": False})
    function.events.put(event(token))
    passed = next_event(function)["requestContext"]["authorizer"]["jwt"]
    assert passed == {"claims": {name: str(claim) for name, claim in claims.items()}, "scopes": None}
    assert (passed["claims"]["sub"], passed["claims"]["scope"]) == ("ada", "seats parcels")
    assert [caller.text(claim) for claim in (["a", "b"], True, 1.5)] == ["[a b]", "true", "1.5"]


def changed(**claims: object) -> str:
    now = jwt.decode(caller.token("ada"), options={"verify_signature": False})
    return jwt.encode(now | claims, caller.key(), "RS256")


REFUSED = {
    "none": lambda: None,
    "not a token": lambda: "none",
    "another signature": lambda: caller.token("ada").rpartition(".")[0] + "." + caller.token("bob").rpartition(".")[2],
    "no signature": lambda: jwt.encode({"sub": "ada"}, "", "none"),
    "expired": lambda: changed(exp=1),
    "another issuer": lambda: changed(iss="https://else.example"),
    "another audience": lambda: changed(aud="else"),
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_other_requests_are_refused_before_they_reach_the_function(function: SimpleNamespace, token) -> None:
    function.events.put(event(token()))
    function.events.put(event(method="OPTIONS"))
    assert next_event(function)["requestContext"]["http"]["method"] == "OPTIONS"
    path, answer = function.posted.get(timeout=30)
    assert path == "/prefix/2018-06-01/runtime/invocation/an-id/response"
    answer = json.loads(answer)
    assert (answer["statusCode"], answer["body"]) == (401, '{"message":"Unauthorized"}')
    assert answer["headers"]["www-authenticate"].startswith("Bearer")


CASE = {"jwt": {"claims": {"sub": "bob"}}}


@pytest.mark.parametrize("sent", [event(path="/seats"), event(method="HEAD"), event(authorizer=CASE), {"detail-type": "Scheduled Event"}, []])
def test_what_needs_no_token_or_has_a_caller_is_passed_on(function: SimpleNamespace, sent: object) -> None:
    function.events.put(sent)
    assert next_event(function) == sent


def test_answers_are_passed_on_also_if_they_are_streamed(function: SimpleNamespace) -> None:
    for sent, headers in ((b"{}", {}), (STREAMED, {"transfer-encoding": "chunked"})):
        function.connection.request("POST", "/2018-06-01/runtime/invocation/an-id/response", sent, headers)
        answer = function.connection.getresponse()
        assert (answer.status, answer.read(), function.posted.get(timeout=30)[1]) == (202, b"", sent)


def test_make_token_prints_a_token_that_is_accepted_and_says_what_it_needs() -> None:
    token = run("make", "--silent", "token", "SUB=ada", "SCOPES=seats parcels").stdout.splitlines()[-1]
    authorizer, refused = caller.authorized(event(token), PROTECTED)
    assert refused is None and authorizer["jwt"]["claims"]["scope"] == "seats parcels"
    done = run("make", "token")
    assert done.returncode != 0 and "make token SUB=ada" in done.stderr

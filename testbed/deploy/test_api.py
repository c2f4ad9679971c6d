"""The HTTP contract, from outside: the cases in events/ are sent to `make run` and to the deployed API.

Set `API_URL=` to check another API instead, for example a real one, and `TOKEN` to the token that it needs, if any. The
checks change nothing. A skipped check says why.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest
from harness import PLAIN, PROTECTED, ROOT, Api

# What `Call` in testbed adds to a request.
GATEWAYS = {"host": "api.example.com", "x-forwarded-for": "192.0.2.10", "x-forwarded-port": "443", "x-forwarded-proto": "https"}


def read(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except ValueError:
        return {}


def cases() -> Iterator:
    """The cases that any client can send to any API: without claims, which an authorizer makes from a token, and not of a
    function with settings, which are others here."""
    for file in sorted((ROOT / "events").glob("*/*.http-api.json")):
        event, answer = read(file), read(file.with_name(file.name.replace(".http-api.", ".answer.")))
        headers = {name: value for name, value in event.get("headers", {}).items() if GATEWAYS.get(name) != value}
        headers.pop("x-amzn-trace-id", None)
        query = str(event.get("rawQueryString"))
        text = query + "".join(map(str, headers.values()))
        is_sent = "host" not in headers and text.isascii() and text.isprintable() and " " not in query
        # A gateway encodes a body itself.
        is_sent = is_sent and event.get("isBase64Encoded") is False
        is_other = (file.parent / "settings.json").exists() or "authorizer" in event.get("requestContext", {})
        if event and is_sent and not is_other and "http-api" in answer.get("triggers", ["http-api"]):
            yield pytest.param(event, headers, answer, id=f"{file.parent.name}/{file.name.split('.')[0]}")


@pytest.mark.parametrize(("event", "headers", "expected"), list(cases()))
def test_a_case_gets_its_answer(api: Api, event: dict, headers: dict, expected: dict) -> None:
    method = event["requestContext"]["http"]["method"]
    if api.where == "deployed" and method == "OPTIONS":
        pytest.skip("the emulator answers OPTIONS itself; API Gateway does so only for an API with CORS")
    path = quote(event["rawPath"]) + ("?" + event["rawQueryString"] if event["rawQueryString"] else "")
    answer = api.call(path, method, headers={"user-agent": None, "accept-encoding": None} | headers, data=event.get("body"))
    answer.encoding = "utf-8"
    assert answer.status_code == expected["status"], answer.text
    UUID(answer.headers["x-request-id"])

    def filled(text: str) -> str:
        return text.replace("{request_id}", answer.headers["x-request-id"])

    # What is in front of a function may add other headers.
    wanted = {name: filled(value) for name, value in expected["headers"].items() if value is not None}
    assert {name: answer.headers.get(name) for name in wanted} == wanted
    if "body_pattern" in expected:
        assert re.fullmatch(expected["body_pattern"], answer.text)
    elif isinstance(expected["body"], str):
        assert answer.text == filled(expected["body"])
    else:
        assert answer.json() == json.loads(filled(json.dumps(expected["body"])))


def test_an_unknown_path_is_not_found(api: Api) -> None:
    assert api.call("/nowhere").status_code == 404


def test_an_api_with_tokens_wants_one_on_every_path(api: Api) -> None:
    """Except for public paths and preflights. Without `TOKEN`, most of the other checks are skipped, but not this one."""
    asked = {
        (path, method, authorization): api.send(path, method, headers={"authorization": authorization} if authorization else {})
        for path in PROTECTED
        for method in ("GET", "HEAD", "POST")
        for authorization in ("", "Bearer none")
    }
    open_to_all = {request for request, answer in asked.items() if answer.status_code != 401}
    if open_to_all == asked.keys() and not api.token:
        pytest.skip("the API needs no token")
    assert not open_to_all, "an API for which TOKEN is set, or which needs a token anywhere, answers without one"
    assert [path for path in PLAIN if api.send(path, "OPTIONS").status_code == 401] == []

"""The HTTP contract, from outside: the cases in events/ are sent to `make run` and to the deployed API.

Set `API_URL=` to check another API instead, for example a real one, and `TOKEN` to the token that it needs, if any. The
checks change nothing. A skipped check says why.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from harness import PLAIN, PROTECTED, ROOT, ROUTER, Api, is_tested
from unchanged import function_at

# What curl sends, and so what a case's request has. `requests` would send others.
HEADERS = {"accept": "*/*", "user-agent": "curl/8.11.0", "accept-encoding": None}


def cases(events: Path = ROOT / "events") -> Iterator:
    """The cases that any client can send to any API: on a route of their function, which may have none, without claims, which an
    authorizer makes from a token, not of a function with settings, which are others here, not with items, which would replace those
    of `make run`, and without one that a gateway refuses before the function does."""
    for file in sorted(events.glob("*/*.json")):
        content = json.loads(file.read_text()) if "." not in file.stem and not file.with_suffix(".answer.json").exists() else {}
        if (file.parent / "settings.json").exists():
            continue
        for name, case in written(file.stem, content):
            request, answer = case["request"], case["answer"]
            path = request["path"].partition("?")[0]
            if {"items", "items_after"} & case.keys() or function_at(path) != file.parent.name or not is_tested(path):
                continue
            text = request["path"] + "".join(value or "" for value in request.get("headers", {}).values())
            is_sent = "host" not in request.get("headers", {}) and text.isascii() and text.isprintable() and " " not in request["path"]
            # A gateway encodes a body itself.
            is_sent = is_sent and not {"body_base64", "claims"} & request.keys() and answer["status"] != 401
            if is_sent and "http-api" in answer.get("triggers", ["http-api"]):
                yield pytest.param(request, answer, id=f"{file.parent.name}/{name}")


def written(name: str, case: dict) -> Iterator[tuple[str, dict]]:
    """The case, and those in it, each with what they share: see testbed/replay/src/case.rs."""
    if "answer" in case:
        yield name, case
    items = {"items": case["items"]} if "items" in case else {}
    for own, inner in case.get("cases", {}).items():
        yield from written(f"{name}-{own}", items | inner | {"request": case.get("request", {}) | inner.get("request", {})})


def test_a_case_is_sent_if_a_route_leads_to_its_function(tmp_path: Path) -> None:
    route = next(filter(is_tested, PLAIN))
    for folder, path in ((ROUTER[route], route), ("no-route", "/no-route"), ("another-route", route)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plain.json").write_text(json.dumps({"request": {"path": path}, "answer": {"status": 200}}))
    assert [case.id for case in cases(tmp_path)] == [f"{ROUTER[route]}/plain"]


@pytest.mark.parametrize(("request_", "expected"), list(cases()))
def test_a_case_gets_its_answer(api: Api, request_: dict, expected: dict) -> None:
    method, body, headers = request_.get("method", "GET"), request_.get("body"), request_.get("headers", {})
    if body is not None and not isinstance(body, str):
        body, headers = json.dumps(body), {"content-type": "application/json"} | headers
    if api.where == "deployed" and method == "OPTIONS":
        pytest.skip("the emulator answers OPTIONS itself; API Gateway does so only for an API with CORS")
    if cookies := request_.get("cookies"):
        headers = headers | {"cookie": "; ".join(cookies)}
    answer = api.call(request_["path"], method, headers=HEADERS | headers, data=body)
    answer.encoding = "utf-8"
    assert answer.status_code == expected["status"], answer.text
    UUID(answer.headers["x-request-id"])

    def filled(text: str) -> str:
        return text.replace("{request_id}", answer.headers["x-request-id"])

    # What is in front of a function may add other headers.
    wanted = {name: filled(value) for name, value in expected.get("headers", {}).items() if value is not None}
    assert {name: answer.headers.get(name) for name in wanted} == wanted
    if "body_pattern" in expected:
        assert re.fullmatch(expected["body_pattern"], answer.text)
    elif "body_base64" in expected:
        assert b64encode(answer.content).decode() == expected["body_base64"]
    elif problem := expected.get("problem"):
        known = {"type": f"urn:problem-type:{problem['type']}", "status": expected["status"], "instance": filled("urn:uuid:{request_id}")}
        assert answer.headers["content-type"] == "application/problem+json" and answer.json().items() >= (problem | known).items()
    elif isinstance(body := expected.get("body", ""), str):
        assert answer.text == filled(body)
    else:
        assert answer.json() == json.loads(filled(json.dumps(body)))


def test_an_unknown_path_is_not_found(api: Api) -> None:
    assert api.call("/nowhere").status_code == 404


def test_an_api_with_tokens_wants_one_on_every_path(api: Api) -> None:
    """Except for public paths and preflights. Without `TOKEN`, most of the other checks are skipped, but not this one."""
    if api.where == "local":
        pytest.skip("`make run` asks for a token where openapi.yaml does; test_run.py tests that")
    asked = {
        (path, method, authorization): api.send(path, method, headers={"authorization": authorization} if authorization else {})
        for path in PROTECTED
        for method in ("GET", "HEAD", "POST")
        for authorization in ("", "Bearer none")
    }
    # A gateway's 401. A function that answers it has been called.
    open_to_all = {request for request, answer in asked.items() if answer.status_code != 401 or "x-request-id" in answer.headers}
    if open_to_all == asked.keys() and not api.token:
        pytest.skip("the API needs no token")
    assert not open_to_all, "an API for which TOKEN is set, or which needs a token anywhere, answers without one"
    assert [path for path in PLAIN if api.send(path, "OPTIONS").status_code == 401] == []

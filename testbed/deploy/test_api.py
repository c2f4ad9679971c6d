"""The HTTP contract, from outside: the same checks run against `make run` and against the deployed API.

Set `API_URL=` to check another API instead, for example a real one, and `TOKEN` to the token that it needs, if any. The
checks change nothing. A skipped check says why.
"""

import re
import time
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import requests
from harness import Api, Upstream

PATHS = ["/", "/hello", "/time", "/fetch"]
NEGOTIATED = ["/", "/hello", "/time"]
METHODS_ALLOWED = {"GET", "HEAD", "OPTIONS"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")


def assert_problem(answer: requests.Response, status: int, name: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["type"] == f"urn:problem-type:{name}"
    assert problem["status"] == status
    assert problem["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    assert_common_headers(answer)


def assert_common_headers(answer: requests.Response) -> None:
    UUID(answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"]


def assert_is_now(rfc3339: str) -> datetime:
    assert TIME.fullmatch(rfc3339), rfc3339
    told = datetime.fromisoformat(rfc3339)
    assert abs(told.timestamp() - time.time()) < 60, f"{rfc3339} is not the time of this machine"
    return told


@pytest.mark.parametrize("path", ["/", "/hello"])
def test_hello_greets_the_world_in_text(api: Api, path: str) -> None:
    answer = api.call(path)
    assert (answer.status_code, answer.text) == (200, "Hello, world!")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["Ada", "Ren\u00e9e & \u6797", "a+b%20c", "n" * 100])
def test_hello_greets_by_name(api: Api, name: str) -> None:
    answer = api.call("/hello", params={"name": name})
    answer.encoding = "utf-8"
    assert (answer.status_code, answer.text) == (200, f"Hello, {name}!")


def test_hello_in_json(api: Api) -> None:
    answer = api.call("/hello", params={"name": "Ada"}, headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()) == (200, {"message": "Hello, Ada!"})
    assert answer.headers["content-type"] == "application/json"


def test_time_in_text(api: Api) -> None:
    answer = api.call("/time")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    told = assert_is_now(answer.text.removeprefix("Current time: "))
    assert answer.text.endswith("Z")
    assert told.utcoffset() == timedelta(0)


def test_time_in_json_and_in_a_zone(api: Api) -> None:
    answer = api.call("/time", params={"tz": "Asia/Kathmandu"}, headers={"accept": "application/json"})
    assert answer.status_code == 200
    assert answer.json().keys() == {"time", "unix_ms", "time_zone"}
    told = assert_is_now(answer.json()["time"])
    assert told.utcoffset() == timedelta(hours=5, minutes=45)
    assert answer.json()["time_zone"] == "Asia/Kathmandu"
    assert answer.json()["unix_ms"] == int(told.timestamp() * 1000)


def test_fetch_passes_the_upstream_through_byte_for_byte(api: Api, upstream: Upstream) -> None:
    answer = api.call("/fetch")
    assert answer.status_code == 200, answer.text
    assert answer.content
    if api.where != "given":  # the given API's upstream is not known here
        assert answer.content == upstream.body
        assert answer.headers["content-type"] == upstream.content_type


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(api: Api, path: str) -> None:
    got, headed = api.call(path), api.call(path, "HEAD")
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    for header in ("content-type", "cache-control", "vary"):
        assert headed.headers.get(header) == got.headers.get(header), header


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_not_allowed(api: Api, path: str, method: str) -> None:
    answer = api.call(path, method)
    assert_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == METHODS_ALLOWED


@pytest.mark.parametrize("path", PATHS)
def test_options_lists_the_methods(api: Api, path: str) -> None:
    if api.where == "deployed":
        pytest.skip("the emulator answers OPTIONS itself; API Gateway does so only for an API with CORS")
    answer = api.call(path, "OPTIONS")
    assert (answer.status_code, answer.content) == (204, b"")
    assert set(answer.headers["allow"].split(", ")) == METHODS_ALLOWED


@pytest.mark.parametrize("path", NEGOTIATED)
def test_an_accept_without_text_or_json_is_not_acceptable(api: Api, path: str) -> None:
    answer = api.call(path, headers={"accept": "image/png"})
    assert_problem(answer, 406, "not-acceptable")
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/", {"name": "n" * 101}),
        ("/hello", {"name": "n" * 101}),
        ("/hello", {"name": "a\nb"}),
        ("/time", {"tz": "Europe/Atlantis"}),
        ("/time", {"tz": "../../etc/passwd"}),
    ],
)
def test_a_bad_parameter_is_refused(api: Api, path: str, query: dict[str, str]) -> None:
    assert_problem(api.call(path, params=query), 400, "invalid-parameter")


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_common_headers(api: Api, path: str) -> None:
    first, second = api.call(path), api.call(path)
    assert_common_headers(first)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert (first.headers.get("vary") == "Accept") == (path in NEGOTIATED)


def test_an_unknown_path_is_not_found(api: Api) -> None:
    assert api.call("/nowhere").status_code == 404


def test_an_api_with_tokens_wants_one_on_every_path(api: Api) -> None:
    """Except for /docs and preflights. Without `TOKEN`, most of the other checks are skipped, but not this one."""
    asked = {
        (path, method, authorization): api.send(path, method, headers={"authorization": authorization} if authorization else {})
        for path in PATHS
        for method in ("GET", "HEAD", "POST")
        for authorization in ("", "Bearer none")
    }
    open_to_all = {request for request, answer in asked.items() if answer.status_code != 401}
    if open_to_all == asked.keys() and not api.token:
        pytest.skip("the API needs no token")
    assert not open_to_all, "an API for which TOKEN is set, or which needs a token anywhere, answers without one"
    assert [path for path in ("/docs", *PATHS) if api.send(path, "OPTIONS").status_code == 401] == []

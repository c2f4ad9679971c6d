"""Seats in the emulator's DynamoDB, with both functions as `make build` packaged them."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aws import Aws
from harness import ROOT, emulator_environment
from shared_fixtures import environment_of

Call = Callable[..., tuple[int, dict]]


@pytest.fixture
def call(aws: Aws, invoke: list[str], tmp_path: Path) -> Iterator[Call]:
    """Sends the request of a case, with these changes. Returns the status, and the body with the ETag in it."""
    aws.client("dynamodb").create_table(
        TableName="seats",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "seat", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "seat", "KeyType": "HASH"}],
    )
    env = emulator_environment(aws.endpoint) | {"SEATS_TABLE": "seats"}
    with ExitStack() as running:
        functions = {
            name: running.enter_context(environment_of([invoke[0], name], tmp_path / name, env))
            for name in ("madeseats", "madeseat")
        }

        def send(case: str, caller: str | None = "ada", body: dict | None = None, **headers: str | None) -> tuple[int, dict]:
            request = json.loads((ROOT / f"events/{case}.json").read_text())["request"]
            request["claims"] = {"sub": caller} if caller else {}
            request["body"] = body or request.get("body")
            request["headers"] = request.get("headers", {}) | {name.replace("_", "-"): value for name, value in headers.items()}
            answer = functions[case.split("/")[0]](json.dumps({"request": request}))
            return answer["statusCode"], json.loads(answer["body"]) | {"etag": answer["headers"].get("etag")}

        yield send
    aws.client("dynamodb").delete_table(TableName="seats")


def test_a_seat_is_reserved_once_and_changed_by_its_passenger(call: Call) -> None:
    assert call("madeseat/plain")[0] == 404
    assert call("madeseats/plain") == (201, {"seat": 7, "meal": "vegan", "etag": None})
    status, problem = call("madeseats/plain", caller="bob")
    assert (status, problem["type"]) == (409, "urn:problem-type:conflict")
    assert call("madeseat/plain") == (200, {"seat": 7, "meal": "vegan", "etag": '"1"'})
    assert call("madeseat/plain", caller="bob")[0] == 404
    assert call("madeseat/put", if_match=None)[0] == 428
    assert call("madeseat/put", if_match='"2"')[0] == call("madeseat/put", if_match="*")[0] == 412
    assert call("madeseat/put", if_match='"1"', caller="bob")[0] == 412
    assert call("madeseat/put", if_match='"1"') == (200, {"seat": 7, "meal": "kosher", "etag": '"2"'})
    assert call("madeseat/put", if_match='"1"')[0] == 412
    assert call("madeseat/plain") == (200, {"seat": 7, "meal": "kosher", "etag": '"2"'})


def test_what_is_refused_reaches_no_table(call: Call) -> None:
    assert [call(case, caller=None)[0] for case in ("madeseats/plain", "madeseat/plain", "madeseat/put")] == [401] * 3
    status, problem = call("madeseats/plain", body={"seat": 301, "meal": "vegan"})
    assert (status, problem["type"], problem["seats"]) == (409, "urn:problem-type:no-such-seat", 300)
    assert call("madeseats/plain", body={"seat": 301})[0] == 422

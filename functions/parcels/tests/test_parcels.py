"""Parcels in the emulator's DynamoDB, with the function as `make build` packaged it. What docs/ shows of it is what it has."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from zipfile import ZipFile

import pytest
import requests
from aws import Aws
from harness import ROOT, emulator_environment
from shared_fixtures import Handler, environment_of, serving

NEW = {"to": "Ada", "grams": 500}

Call = Callable[..., tuple[int, dict | list, dict]]


@pytest.fixture
def table(aws: Aws) -> Iterator[str]:
    name = f"parcels-{random.randrange(10**9)}"
    aws.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    yield name
    aws.client("dynamodb").delete_table(TableName=name)


@pytest.fixture
def call(aws: Aws, invoke: list[str], table: str, tmp_path: Path) -> Iterator[Call]:
    """Sends a request. Returns the status, the JSON in the body, and the headers."""
    env = emulator_environment(aws.endpoint) | {"PARCELS_TABLE": table, "AWS_OPERATION_TIMEOUT_MS": "60000"}
    with environment_of(invoke, tmp_path / "log", env) as answer:

        def send(*arguments: object, **more: object) -> tuple[int, dict | list, dict]:
            return read(answer(event(*arguments, **more)))

        yield send


def event(method: str, path: str, body: dict | None = None, caller: str | None = "ada", **headers: str) -> str:
    path, _, query = path.partition("?")
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return json.dumps(
        {
            "version": "2.0",
            "routeKey": f"ANY {path}",
            "rawPath": path,
            "rawQueryString": query,
            "headers": {"host": "api.example.com", "content-type": "application/json"} | headers,
            "requestContext": {
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "stage": "$default",
                "authorizer": {"jwt": {"claims": {"sub": caller} if caller else {}}},
            },
            "body": json.dumps(body) if body is not None else None,
            "isBase64Encoded": False,
        }
    )


def read(answer: dict) -> tuple[int, dict | list, dict]:
    return answer["statusCode"], json.loads(answer["body"] or "{}"), answer["headers"]


def problem(called: tuple[int, dict, dict]) -> tuple[int, str]:
    status, body, _ = called
    return status, body["type"].removeprefix("urn:problem-type:")


def test_a_parcel_is_created_shown_changed_and_removed(call: Call) -> None:
    status, parcel, headers = call("POST", "/parcels", NEW)
    assert (status, headers["etag"], headers["location"]) == (201, '"1"', f"parcels/{parcel['id']}")
    assert parcel == {"id": parcel["id"], "to": "Ada", "grams": 500, "note": None, "state": "announced"}
    path = f"/parcels/{parcel['id']}"
    status, shown, headers = call("GET", path)
    assert (status, shown, headers["etag"], headers["cache-control"]) == (200, parcel, '"1"', "private, no-cache")
    assert call("GET", path, if_none_match='"1"')[0] == 304
    assert problem(call("PATCH", path, {"state": "sent"})) == (428, "precondition-required")
    assert problem(call("PATCH", path, {"state": "sent"}, if_match='"2"')) == (412, "precondition-failed")
    status, changed, headers = call("PATCH", path, {"state": "sent"}, if_match='"1"')
    assert (status, changed, headers["etag"]) == (200, parcel | {"state": "sent"}, '"2"')
    assert problem(call("PATCH", path, {"state": "sent"}, if_match='"1"')) == (412, "precondition-failed")
    assert problem(call("DELETE", path, if_match='"1"')) == (412, "precondition-failed")
    assert call("DELETE", path, if_match='"2"')[0] == 204
    assert problem(call("GET", path)) == problem(call("DELETE", path, if_match='"2"')) == (404, "not-found")


def test_another_callers_parcel_is_not_found(call: Call) -> None:
    path = f"/parcels/{call('POST', '/parcels', NEW)[1]['id']}"
    for method in ("GET", "PATCH", "DELETE"):
        assert problem(call(method, path, {}, caller="bob", if_match="*")) == (404, "not-found")
        assert problem(call(method, path, {}, caller=None)) == (401, "unauthorized")
    assert call("GET", "/parcels", caller="bob")[1] == []


def test_pages_hold_each_of_the_callers_parcels_once(call: Call) -> None:
    ids = [call("POST", "/parcels", NEW, idempotency_key=f"{number}")[1]["id"] for number in range(5)]
    call("POST", "/parcels", NEW, caller="bob")
    for id in ids[1::2]:
        call("PATCH", f"/parcels/{id}", {"state": "sent"}, if_match='"1"')
    for query, most, expected in [("", 20, ids), ("limit=2", 2, ids), ("limit=5", 5, ids), ("state=announced&limit=2", 2, ids[::2])]:
        path, listed, pages = f"/parcels?{query}", [], []
        while path:
            status, page, headers = call("GET", path)
            assert status == 200
            listed += [parcel["id"] for parcel in page]
            pages.append(len(page))
            link = headers.get("link")
            path = link and "/parcels" + link.removeprefix("<").removesuffix('>; rel="next"')
        assert listed == expected
        assert pages == [most] * (len(expected) // most) + ([len(expected) % most] if len(expected) % most else [])
    # Another caller gets nothing of theirs with a cursor.
    _, _, headers = call("GET", "/parcels?limit=2")
    cursor = headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    assert len(call("GET", f"/parcels{cursor}", caller="bob")[1]) <= 1
    assert call("GET", f"/parcels{cursor}", caller="cleo")[1] == []
    for query in ("limit=0", "limit=101", "cursor=!", "state=lost"):
        assert problem(call("GET", f"/parcels?{query}")) == (400, "invalid-parameter")


def test_a_request_with_a_key_is_done_once(call: Call, aws: Aws, table: str) -> None:
    first = call("POST", "/parcels", NEW, idempotency_key='"k-1"')
    assert first[0] == 201

    def same(one: tuple, other: tuple) -> bool:
        bare = [(status, body, {k: v for k, v in headers.items() if k != "x-request-id"}) for status, body, headers in (one, other)]
        return bare[0] == bare[1]

    assert same(call("POST", "/parcels", NEW, idempotency_key="k-1"), first)
    assert problem(call("POST", "/parcels", NEW | {"grams": 501}, idempotency_key="k-1")) == (422, "idempotency-key-reused")
    assert problem(call("POST", "/parcels?a=1", NEW, idempotency_key="k-1")) == (422, "idempotency-key-reused")
    # Another caller's key is another one.
    assert call("POST", "/parcels", NEW, caller="bob", idempotency_key="k-1")[1]["id"] != first[1]["id"]
    for key in ("", " ", "a b", "é", "k" * 256, '"'):
        assert problem(call("POST", "/parcels", NEW, idempotency_key=key)) == (400, "malformed-request")
    # A problem is not remembered.
    assert problem(call("POST", "/parcels", {}, idempotency_key="k-2")) == (422, "unprocessable-content")
    assert call("POST", "/parcels", NEW, idempotency_key="k-2")[0] == 201
    assert len(call("GET", "/parcels")[1]) == 2

    dynamodb = aws.client("dynamodb")

    def record(**values: dict) -> None:
        """Changes all records."""
        for item in dynamodb.scan(TableName=table)["Items"]:
            if item["sk"]["S"] == "idempotency":
                dynamodb.put_item(TableName=table, Item=item | values)

    # Another process is at work.
    record(locked={"N": str(2**50)})
    status, body, headers = call("POST", "/parcels", NEW, idempotency_key="k-1")
    assert (problem((status, body, headers)), headers["retry-after"]) == ((409, "idempotency-key-in-use"), "1")
    # Its deadline has passed.
    record(locked={"N": "1"})
    again = call("POST", "/parcels", NEW, idempotency_key="k-1")
    assert again[0] == 201 and again[1]["id"] != first[1]["id"]
    # The record has expired.
    record(expires={"N": "1"})
    assert call("POST", "/parcels", NEW, idempotency_key="k-1")[1]["id"] != again[1]["id"]


def test_a_key_is_held_until_the_deadline(call: Call, aws: Aws, table: str, invoke: list[str], tmp_path: Path) -> None:
    with Doomed(aws, table, invoke, tmp_path) as doomed:
        doomed.hold("k-1")
        (record,) = records(aws, table)
        # `invoke` gives each invocation two minutes.
        assert 100 < float(record["locked"]["N"]) / 1000 - time.time() <= 120
        assert 86_300 < float(record["expires"]["N"]) - time.time() <= 86_400
        status, body, headers = call("POST", "/parcels", NEW, idempotency_key="k-1")
        assert (problem((status, body, headers)), headers["retry-after"]) == ((409, "idempotency-key-in-use"), "1")
        doomed.kill(is_done=False)


# In CI, fewer. `PARCELS_ROUNDS=50` is the whole.
@pytest.mark.parametrize("round", range(int(os.environ.get("PARCELS_ROUNDS", "4"))))
def test_a_process_that_dies_leaves_one_parcel_and_one_answer(
    round: int, fleet: list[Callable[[str], dict]], aws: Aws, table: str, invoke: list[str], tmp_path: Path
) -> None:
    """20 processes get a request with the same key, and one of them is killed when it writes: in each second round before
    the table has done that, and otherwise after it."""
    key = f"round-{round}"
    sent = event("POST", "/parcels", NEW, idempotency_key=key)
    is_done = bool(round % 2)
    with ThreadPoolExecutor(len(fleet)) as threads, Doomed(aws, table, invoke, tmp_path) as doomed:
        doomed.hold(key)
        held = [read(answer) for answer in threads.map(lambda process: process(sent), fleet)]
        assert {problem(answer) for answer in held} == {(409, "idempotency-key-in-use")}
        doomed.kill(is_done)
        if not is_done:
            # Its deadline passes.
            (record,) = records(aws, table)
            aws.client("dynamodb").put_item(TableName=table, Item=record | {"locked": {"N": "1"}})

        def send(process: Callable[[str], dict]) -> tuple:
            while (answer := read(process(sent)))[0] == 409:
                assert problem(answer) == (409, "idempotency-key-in-use")
            status, body, headers = answer
            return status, json.dumps(body), headers["etag"], headers["location"]

        ((status, parcel, *_),) = set(threads.map(send, fleet))
    assert status == 201
    items = [item for item in aws.client("dynamodb").scan(TableName=table)["Items"] if item["sk"]["S"] != "idempotency"]
    assert [item["id"]["S"] for item in items] == [json.loads(parcel)["id"]]


@pytest.fixture
def fleet(aws: Aws, invoke: list[str], table: str, tmp_path: Path) -> Iterator[list[Callable[[str], dict]]]:
    with ExitStack() as running:
        env = emulator_environment(aws.endpoint) | {"PARCELS_TABLE": table, "AWS_OPERATION_TIMEOUT_MS": "60000"}
        yield [running.enter_context(environment_of(invoke, tmp_path / f"log-{number}", env)) for number in range(19)]


def records(aws: Aws, table: str) -> list[dict]:
    return [item for item in aws.client("dynamodb").scan(TableName=table)["Items"] if item["sk"]["S"] == "idempotency"]


class Doomed:
    """A process whose transaction is held on its way to the table, until it is killed."""

    def __init__(self, aws: Aws, table: str, invoke: list[str], scratch: Path) -> None:
        self.endpoint, self.table, self.invoke, self.log = aws.endpoint, table, invoke, scratch / "doomed"

    def __enter__(self) -> "Doomed":
        doomed = self
        self.arrived, self.may_go, self.gone = Event(), Event(), Event()

        class Proxy(Handler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_held = "TransactWriteItems" in self.headers["x-amz-target"]
                if is_held:
                    doomed.arrived.set()
                    doomed.may_go.wait()
                if not is_held or doomed.is_done:
                    answer = requests.post(doomed.endpoint, data=body, headers=dict(self.headers), timeout=60)
                if is_held:
                    doomed.gone.set()
                    return
                passed = ("content-type", "x-amzn-requestid", "x-amz-crc32")
                self.reply(answer.status_code, answer.content, {name: answer.headers[name] for name in passed if name in answer.headers})

        self.proxy = serving(Proxy)
        env = emulator_environment(f"http://127.0.0.1:{self.proxy.server_port}")
        env |= {"PARCELS_TABLE": self.table, "AWS_OPERATION_TIMEOUT_MS": "60000"}
        self.process = subprocess.Popen(
            self.invoke, env=env, text=True, stdin=subprocess.PIPE, stderr=self.log.open("w"), start_new_session=True
        )
        return self

    def hold(self, key: str) -> None:
        self.process.stdin.write(event("POST", "/parcels", NEW, idempotency_key=key) + "\n")
        self.process.stdin.flush()
        assert self.arrived.wait(60)

    def kill(self, is_done: bool) -> None:
        self.is_done = is_done
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.may_go.set()
        assert self.gone.wait(60)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill(is_done=False)
        self.process.stdin.close()
        self.proxy.shutdown()
        self.proxy.server_close()


ENDPOINTS, DATA = ((ROOT / f"docs/{page}.md").read_text() for page in ("endpoints", "data"))


def test_the_page_of_endpoints_shows_its_code() -> None:
    code = (ROOT / "functions/parcels/src/main.rs").read_text()
    parts = re.findall(r"```rust\n(.*?)```", ENDPOINTS, re.DOTALL)[0].split("\n\n")
    assert len(parts) == 2 and all(part.strip("\n") in code for part in parts)


def test_the_page_of_endpoints_shows_its_problem() -> None:
    case = json.loads((ROOT / "events/parcels/item.json").read_text())["cases"]["patch"]["cases"]["faults"]
    shown = json.loads(re.findall(r"```json\n(.*?)```", ENDPOINTS, re.DOTALL)[0])
    assert shown["errors"] == case["answer"]["problem"]["errors"] and shown["status"] == case["answer"]["status"]


def test_the_page_about_tables_shows_its_declarations() -> None:
    """Its Rust code is compiled and run with the documentation of the crate data."""
    sources = "".join((ROOT / file).read_text() for file in ("template.yaml", "functions/parcels/Cargo.toml"))
    # A team has more tables.
    sources = re.sub(r"- \[(\w+, )*Parcels\b.*\]", "- [Parcels]", sources)
    shown = re.findall(r"```(?:yaml|toml)\n(.*?)```", DATA, re.DOTALL)
    assert len(shown) == 2 and [block for block in shown if block not in sources] == []


@pytest.mark.skipif(not shutil.which("valgrind"), reason="there is no valgrind")
def test_a_key_costs_about_as_much_as_another_post(aws: Aws, invoke: list[str], table: str, tmp_path: Path) -> None:
    """In instructions. Most of them are for the second request to the table. `pytest -s` prints both."""
    with ZipFile(ROOT / "target/lambda/parcels/bootstrap.zip") as packaged:
        executable = Path(packaged.extract("bootstrap", tmp_path))
    executable.chmod(0o755)
    (measured := tmp_path / "measured").write_text(
        f'#!/bin/sh\nexec valgrind --quiet --tool=callgrind --callgrind-out-file={tmp_path}/profile "{executable}"\n'
    )
    measured.chmod(0o755)
    env = emulator_environment(aws.endpoint) | {"PARCELS_TABLE": table, "AWS_OPERATION_TIMEOUT_MS": "60000"}

    def instructions(posts: int, **key: str) -> int:
        with environment_of([invoke[0], str(measured)], tmp_path / "log", env) as answer:
            for number in range(posts):
                headers = {name: f"{value}-{posts}-{number}" for name, value in key.items()}
                assert read(answer(event("POST", "/parcels", NEW, **headers)))[0] == 201
        return int(re.search(r"^summary: (\d+)", (tmp_path / "profile").read_text(), re.MULTILINE)[1])

    plain, keyed = ((instructions(6, **key) - instructions(1, **key)) // 5 for key in ({}, {"idempotency_key": "key"}))
    print(f"a POST takes {plain} instructions, and its key {keyed - plain}")
    assert keyed - plain < 1.5 * plain

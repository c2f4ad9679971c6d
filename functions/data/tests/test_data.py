"""The crate data against the emulator's DynamoDB: what it asks of the table, and what it makes of the answers."""

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from aws import Aws
from harness import ROOT, emulator_environment
from shared_fixtures import Handler, environment_of, serving


class Table:
    """A table behind a proxy, which counts the requests to it."""

    def __init__(self, aws: Aws) -> None:
        self.name = f"notes-{random.randrange(10**9)}"
        self.client = aws.client("dynamodb")
        # The operations, and those of which the next answer is lost, or another one: the error's code.
        self.asked: list[str] = []
        self.lose: set[str] = set()
        self.refuse: dict[str, str] = {}
        # What the function's log has at its end.
        self.logged: list[str] = []
        table = self

        class Proxy(Handler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                operation = self.headers["x-amz-target"].split(".")[1]
                table.asked.append(operation)
                if code := table.refuse.get(operation):
                    self.answer(400, json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "PLANTED"}).encode(), {})
                    return
                answer = requests.post(aws.endpoint, data=body, headers=dict(self.headers), timeout=60)
                if operation in table.lose:
                    table.lose.remove(operation)
                    self.close_connection = True
                    return
                self.answer(answer.status_code, answer.content, answer.headers)

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                passed = {name: headers[name] for name in ("x-amzn-requestid", "x-amz-crc32") if name in headers}
                self.reply(status, body, {**passed, "content-type": "application/x-amz-json-1.0"})

        self.proxy = serving(Proxy)

    def items(self, sk: str) -> list[dict]:
        return [item for item in self.client.scan(TableName=self.name)["Items"] if item["sk"]["S"].startswith(sk)]

    def asks(self, act: Callable[[], object]) -> tuple[object, list[str]]:
        """What it returns, and which requests it made."""
        self.asked.clear()
        return act(), list(self.asked)


@pytest.fixture
def table(aws: Aws) -> Iterator[Table]:
    table = Table(aws)
    table.client.create_table(
        TableName=table.name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    yield table
    table.client.delete_table(TableName=table.name)
    table.proxy.shutdown()
    table.proxy.server_close()


Call = Callable[..., tuple[int, object]]


@pytest.fixture
def call(invoke: list[str], table: Table, tmp_path: Path) -> Iterator[Call]:
    """Sends a request. Returns the status, and the problem's name or the JSON in the body."""
    subprocess.run(["cargo", "build", "--quiet", "--example", "keys"], cwd=ROOT, check=True)
    env = emulator_environment(f"http://127.0.0.1:{table.proxy.server_port}")
    env |= {"NOTES_TABLE": table.name, "AWS_OPERATION_TIMEOUT_MS": "60000"}
    with environment_of([invoke[0], str(ROOT / "target/debug/examples/keys")], tmp_path / "log", env) as answer:

        def send(path: str, key: str | None = None, method: str = "POST", caller: str | None = "ada", body: str = "") -> tuple[int, object]:
            context = {"http": {"method": method}, "authorizer": {"jwt": {"claims": {"sub": caller} if caller else {}}}}
            headers = {"host": "api.example.com"} | ({"idempotency-key": key} if key else {})
            path, _, query = path.partition("?")
            answered = answer(json.dumps({"rawPath": path, "rawQueryString": query, "headers": headers, "requestContext": context, "body": body}))
            read = json.loads(answered["body"] or "null")
            name = read["type"].removeprefix("urn:problem-type:") if isinstance(read, dict) else read
            return answered["statusCode"], name

        yield send
    log = (tmp_path / "log").read_text()
    assert "PLANTED" not in log and [text for text in table.logged if text not in log] == []


def test_a_key_costs_two_requests_and_a_repetition_one(call: Call, table: Table) -> None:
    first, asked = table.asks(lambda: call("/committed/10", "k"))
    assert first[0] == 201 and asked == ["PutItem", "TransactWriteItems"]
    assert table.asks(lambda: call("/committed/10", "k")) == (first, ["PutItem"])
    assert len(table.items("note")) == len(table.items("count")) == 1
    first, asked = table.asks(lambda: call("/uncommitted/once", "k"))
    # One of them is the endpoint's own.
    assert first[0] == 200 and asked == ["PutItem", "PutItem", "UpdateItem"]
    assert table.asks(lambda: call("/uncommitted/once", "k")) == (first, ["PutItem"])
    assert table.asks(lambda: call("/uncommitted/twice"))[1] == ["PutItem"]


@pytest.mark.parametrize(("what", "status"), [("fails", 500), ("panics", 500), ("unavailable", 503)])
def test_a_failure_is_not_remembered(call: Call, table: Table, what: str, status: int) -> None:
    for notes in (1, 2):
        assert call(f"/uncommitted/{what}", "k")[0] == status
        assert len(table.items("note")) == notes
    # A panic frees the key after the response. The next event comes when that is done.
    assert call("/nothing", method="GET")[0] == 404
    assert table.items("idempotency") == []


def test_an_answer_has_a_bound(call: Call, table: Table) -> None:
    assert call("/committed/2000", "k") == (500, "internal")
    assert table.items("") == []
    # The endpoint wrote before its answer was known.
    assert call("/uncommitted/large", "k")[0] == 200
    assert call("/uncommitted/large", "k") == (409, "idempotency-answer-lost")
    assert len(table.items("note")) == 1


def test_a_key_may_be_required_and_needs_a_caller(call: Call, table: Table) -> None:
    assert call("/committed/10") == (400, "malformed-request")
    assert call("/committed/10", "k", caller=None) == (401, "unauthorized")
    assert table.items("") == []


def test_pages_can_begin_with_the_newest(call: Call) -> None:
    for note in "123":
        assert call(f"/notes/{note}") == (200, None)
    assert call("/notes?limit=2", method="GET") == (200, ["3", "2"])
    assert call("/notes?limit=2&cursor=Mg", method="GET") == (200, ["1"])


def test_all_writes_are_done_or_none(call: Call, table: Table) -> None:
    assert call("/both") == (200, None)
    assert call("/both") == (409, "conflict")
    assert len(table.items("note")) == len(table.items("count")) == 1


def test_a_write_that_was_sent_twice_knows_its_own_work(call: Call, table: Table) -> None:
    table.lose = {"PutItem", "TransactWriteItems"}
    status, asked = table.asks(lambda: call("/committed/10", "k")[0])
    assert (status, asked) == (201, ["PutItem"] * 2 + ["TransactWriteItems"] * 2)
    for version in ("1", "2"):
        table.lose = {"PutItem"}
        assert table.asks(lambda: call("/notes/7")) == ((200, None), ["GetItem", "PutItem", "PutItem"])
        (note,) = table.items("note#7")
        assert note["version"]["N"] == version
    table.lose = {"DeleteItem"}
    assert table.asks(lambda: call("/notes/7", method="DELETE")) == ((200, None), ["GetItem", "DeleteItem", "DeleteItem"])
    assert table.items("note#7") == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ThrottlingException", (503, "upstream-unavailable")),
        ("TransactionConflictException", (503, "upstream-unavailable")),
        ("AccessDeniedException", (500, "misconfigured")),
        ("ResourceNotFoundException", (500, "misconfigured")),
        ("ConditionalCheckFailedException", (412, "precondition-failed")),
    ],
)
def test_a_failure_of_dynamodb_is_the_problem_that_fits(call: Call, table: Table, code: str, expected: tuple) -> None:
    assert call("/notes/7") == (200, None)
    table.refuse = {"PutItem": code}
    table.logged = [f"NOTES_TABLE names the table {table.name}, which is not there"] * (code == "ResourceNotFoundException")
    assert call("/notes/7") == expected

"""`fetch` with SHARED_STATE_TABLE: packaged environments, each under its own Runtime API, and the emulator's DynamoDB.

Except in tests of an unusable table, all time limits are a minute: a fleet keeps two processors and the emulator busy.
"""

import json
import random
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Event

import pytest
import requests
from aws import Aws
from harness import Upstream, emulator_environment, free_port, wait_for
from shared_fixtures import Handler, emulator, environment_of, serving

EVENT = json.dumps({"request": {"path": "/fetch"}})
FLEET = 200
PATIENCE = dict.fromkeys(
    ("SHARED_STATE_TIMEOUT_MS", "UPSTREAM_TIMEOUT_MS", "UPSTREAM_ATTEMPT_TIMEOUT_MS"), "60000"
)


@dataclass
class Gate:
    """A proxy in front of the emulator's DynamoDB, which can fail in several ways."""

    endpoint: str
    # "open", or how it fails.
    state: str = "open"
    # How slow it is, in seconds.
    delay: float = 0.3
    # The first two requests for this operation wait for each other.
    together: str = ""
    # The first request for this operation waits for `let_through`.
    held: str = ""
    let_through: Event = field(default_factory=Event)
    # The operations of all requests.
    asked: list[str] = field(default_factory=list)
    url: str = ""


@dataclass
class Answer:
    status: int
    cache_status: str
    body: str


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with emulator(tmp_path_factory.mktemp("tables"), AUTH="true") as aws:
        yield aws


@pytest.fixture
def down(aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream]) -> Upstream:
    """An upstream that fails now, after one environment has shared its good response."""
    upstream = start_upstream("down")
    (first,), _ = fleet(invoke, settings(aws.endpoint, upstream, table), 1)
    assert (first.status, first.cache_status) == (200, "fetch; fwd=miss; fwd-status=200")
    # With a long retry-after, no probe is due before a slow machine has finished.
    upstream.status, upstream.headers = 503, {"retry-after": "300"}
    upstream.authorizations.clear()
    return upstream


@pytest.fixture
def gate(aws: Aws) -> Iterator[Gate]:
    gate = Gate(aws.endpoint)
    end = Event()
    pair = Barrier(2, timeout=30)

    class GateHandler(Handler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            operation = self.headers["x-amz-target"].rpartition(".")[2]
            gate.asked.append(operation)
            if operation == gate.together and gate.asked.count(operation) <= 2:
                pair.wait()
            if operation == gate.held and gate.asked.count(operation) == 1:
                gate.let_through.wait(30)
            if gate.state == "silent":
                end.wait(10)
            if gate.state == "slow":
                end.wait(gate.delay)
            if gate.state == "throttling":
                error = "com.amazonaws.dynamodb.v20120810#ThrottlingException"
                self.answer(400, json.dumps({"__type": error, "message": "Rate exceeded"}).encode())
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            passed = requests.post(gate.endpoint, data=body, headers=headers, timeout=10)
            self.answer(passed.status_code, b"no JSON" if gate.state == "malformed" else passed.content)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            # If the gate was silent, the client is gone.
            with suppress(BrokenPipeError):
                self.wfile.write(body)

    server = serving(GateHandler)
    gate.url = f"http://127.0.0.1:{server.server_port}"
    yield gate
    end.set()
    server.shutdown()
    server.server_close()


def settings(endpoint: str, upstream: Upstream, table: str, **more: str) -> dict[str, str]:
    shared = {"UPSTREAM_URL": upstream.url, "SHARED_STATE_TABLE": table}
    return emulator_environment(endpoint) | PATIENCE | shared | more


def answer(answer: dict) -> Answer:
    return Answer(answer["statusCode"], answer["headers"].get("cache-status", ""), answer["body"])


def fleet(invoke: list[str], env: dict[str, str], environments: int = FLEET) -> tuple[list[Answer], list[dict]]:
    """Sends one request to each of `environments` new environments. Returns their answers and log lines."""
    done = subprocess.run(
        [*invoke, str(environments), str(environments)], input=EVENT + "\n", env=env, capture_output=True, text=True, check=True
    )
    answers, lines = (list(map(json.loads, output.splitlines())) for output in (done.stdout, done.stderr))
    return list(map(answer, answers)), lines


@contextmanager
def fetching(invoke: list[str], log: Path, env: dict[str, str]) -> Iterator[Callable[..., Answer]]:
    """Starts `fetch`. Call the result to get an answer."""
    with environment_of(invoke, log, env) as answer_to:
        yield lambda event=EVENT: answer(answer_to(event))


def invocations(lines: list[dict]) -> list[dict]:
    return [line for line in lines if line["message"] == "invocation"]


def items(aws: Aws, table: str) -> dict[str, dict]:
    found = aws.client("dynamodb").scan(TableName=table)["Items"]
    return {item["part"]["S"]: item for item in found}


def test_a_new_fleet_answers_with_the_shared_response_while_the_upstream_is_down(
    aws: Aws, table: str, invoke: list[str], down: Upstream
) -> None:
    answers, _ = fleet(invoke, settings(aws.endpoint, down, table))
    assert {answer.status for answer in answers} == {200}
    assert {b64decode(answer.body) for answer in answers} == {down.body}
    assert all(answer.cache_status.startswith("shared; hit; ttl=") for answer in answers)
    assert len(down.authorizations) == 1


def test_if_two_request_the_lease_at_once_only_one_calls(
    table: str, gate: Gate, invoke: list[str], down: Upstream
) -> None:
    gate.together = "UpdateItem"
    answers, _ = fleet(invoke, settings(gate.url, down, table), 2)
    assert [answer.status for answer in answers] == [200, 200]
    assert len(down.authorizations) == 1


def test_a_lease_is_refused_if_another_environment_found_the_upstream_failing_meanwhile(
    aws: Aws, table: str, gate: Gate, invoke: list[str], down: Upstream
) -> None:
    gate.held = "UpdateItem"
    with ThreadPoolExecutor() as pool:
        late = pool.submit(fleet, invoke, settings(gate.url, down, table), 1)
        wait_for(lambda: gate.held in gate.asked, "the late request for the lease", 30)
        fleet(invoke, settings(aws.endpoint, down, table), 1)
        gate.let_through.set()
        (answer,), _ = late.result()
    assert (answer.status, "circuit-breaker-open" in answer.cache_status) == (200, True)
    assert len(down.authorizations) == 1


def test_a_new_fleet_calls_the_upstream_at_most_once_each_and_not_while_the_shared_response_is_fresh(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    upstream = start_upstream("well")
    upstream.headers = {"cache-control": "max-age=3600"}
    env = settings(aws.endpoint, upstream, table)
    for most in (1.1 * FLEET, 5):
        upstream.authorizations.clear()
        answers, lines = fleet(invoke, env)
        assert {answer.status for answer in answers} == {200} and len({answer.body for answer in answers}) == 1
        assert len(upstream.authorizations) <= most
    assert {line["shared_state"] for line in invocations(lines)} >= {"hit"}
    assert sum(answer.cache_status.startswith("shared; hit; ttl=3") for answer in answers) >= FLEET - 5


def test_one_environment_at_a_time_finds_out_that_the_upstream_is_back(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    upstream = start_upstream("back")
    env = settings(aws.endpoint, upstream, table)
    with ExitStack() as stack:
        fetches = [stack.enter_context(fetching(invoke, tmp_path / f"{n}", env)) for n in range(5)]
        assert {fetch().status for fetch in fetches} == {200}
        upstream.status = 503

        def all_stand_in() -> bool:
            return all("circuit-breaker-open" in fetch().cache_status for fetch in fetches)

        wait_for(all_stand_in, "the breaker's verdict in all environments", 30)
        upstream.authorizations.clear()
        upstream.headers = {"cache-control": "max-age=3600"}
        upstream.status = 200
        began = time.monotonic()
        wait_for(lambda: any("fwd-status=200" in fetch().cache_status for fetch in fetches), "a probe", 30)
        found = time.monotonic() - began
        assert len(upstream.authorizations) == 1
        wait_for(lambda: all("hit; ttl=3" in fetch().cache_status for fetch in fetches), "the others", 30)
        print(f"found after {found:.1f} s, used by all after {time.monotonic() - began:.1f} s")
        assert len(upstream.authorizations) == 1, "the others have it from the table"
    assert "open_until" not in items(aws, table)["upstream"]


def test_a_probe_that_makes_no_call_says_nothing(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    upstream = start_upstream("no probe")
    arn = aws.client("secretsmanager").create_secret(Name="probe", SecretString="token")["ARN"]
    env = settings(aws.endpoint, upstream, table, UPSTREAM_SECRET_ID=arn)
    fleet(invoke, env, 1)
    # The upstream was found failing, and a probe is due. The secret cannot be had, as Secrets Manager is not there.
    open_until = {"N": str(int(time.time() * 1000) - 1000)}
    item = items(aws, table)["upstream"] | {"open_until": open_until}
    aws.client("dynamodb").put_item(TableName=table, Item=item)
    upstream.authorizations.clear()
    absent = {"AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{free_port()}"}
    (answer,), lines = fleet(invoke, env | absent, 1)
    assert "detail=stale-if-error" in answer.cache_status
    assert (upstream.authorizations, invocations(lines)[0]["breaker_state"]) == ([], "open")
    found = items(aws, table)["upstream"]
    assert found["open_until"] == open_until and "leased_until" not in found
    # Another environment makes the probe at once.
    (answer,), _ = fleet(invoke, env, 1)
    assert "fwd-status=200" in answer.cache_status
    assert "open_until" not in items(aws, table)["upstream"]


@pytest.mark.parametrize("how", ["unreachable", "silent", "slow", "throttling", "malformed", "absent", "denied"])
def test_an_unusable_table_changes_no_answer(
    aws: Aws, table: str, gate: Gate, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path, how: str
) -> None:
    upstream = start_upstream(how)
    env = settings(gate.url, upstream, table)
    gate.state = how
    if how in ("silent", "slow"):
        # The default, which these exceed on any machine. On a busy one, the others could too, before their error comes.
        env["SHARED_STATE_TIMEOUT_MS"] = ""
    if how == "unreachable":
        env["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{free_port()}"
    if how == "absent":
        env["SHARED_STATE_TABLE"] = "absent"
    if how == "denied":
        iam = aws.client("iam")
        iam.create_user(UserName="stranger")
        key = iam.create_access_key(UserName="stranger")["AccessKey"]
        # A signature covers the host, so signed requests cannot go through the gate.
        env["AWS_ENDPOINT_URL"] = aws.endpoint
        env |= {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    log = tmp_path / "log"
    with fetching(invoke, log, env) as fetch:
        assert [fetch().cache_status for _ in range(3)] == [
            "fetch; fwd=miss; fwd-status=200",
            "fetch; fwd=stale; fwd-status=200",
            "fetch; fwd=stale; fwd-status=200",
        ]
        upstream.status = 503
        assert "detail=stale-if-error" in fetch().cache_status
    lines = list(map(json.loads, log.read_text().splitlines()))
    assert invocations(lines)[0]["shared_state"] == "unavailable"
    [warning] = [line for line in lines if line["level"] == "WARN"]
    cause = {
        "unreachable": "Connection refused",
        "silent": "took too long",
        "slow": "took too long",
        "throttling": "ThrottlingException",
        "malformed": "could not be read (status 200)",
        "absent": "ResourceNotFoundException",
        "denied": "AccessDenied",
    }[how]
    assert cause in warning["error"] and warning["request_id"]
    # The SDK tries twice, and then the table is left alone for a while.
    assert gate.asked.count("BatchGetItem") <= 2 and set(gate.asked) <= {"BatchGetItem"}


def test_a_slow_table_is_waited_for_as_long_as_the_setting_says(
    aws: Aws, table: str, gate: Gate, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    gate.state, gate.delay = "slow", 1.5
    _, lines = fleet(invoke, settings(gate.url, start_upstream("patient"), table), 1)
    assert (gate.asked[0], invocations(lines)[0]["shared_state"]) == ("BatchGetItem", "miss")


def test_the_table_takes_at_most_half_of_the_requests_time(
    aws: Aws, table: str, gate: Gate, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    gate.state = "silent"
    env = settings(gate.url, start_upstream("in time"), table, UPSTREAM_TIMEOUT_MS="4000")
    with fetching(invoke, tmp_path / "log", env) as fetch:
        assert fetch().cache_status == "fetch; fwd=miss; fwd-status=200"


def test_a_response_that_is_read_too_late_still_stands_in(
    aws: Aws, table: str, gate: Gate, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    upstream = start_upstream("late")
    env = settings(gate.url, upstream, table)
    assert fleet(invoke, env, 1)[0][0].status == 200
    gate.state = "slow"
    env["SHARED_STATE_TIMEOUT_MS"] = ""
    upstream.status, upstream.headers = 503, {"retry-after": "1"}
    answers, _ = fleet(invoke, env, 1)
    assert (answers[0].status, "shared; hit" in answers[0].cache_status) == (200, True)


@pytest.mark.parametrize(
    "corrupt",
    [
        {"body": None},
        {"body": {"S": "text"}},
        {"encoding": {"S": "br"}},
        {"encoding": {"S": "gzip"}},
        {"headers": {"M": {"not a name": {"B": b"x"}}}},
        {"status": {"N": "1"}},
        {"status": {"N": "503"}},
        {"received": {"S": "today"}},
        {"received": {"N": "99999999999999"}},
        {"requested": {"N": "-1"}},
    ],
    ids=str,
)
def test_a_corrupt_response_is_ignored_and_replaced(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream], corrupt: dict
) -> None:
    upstream = start_upstream("corrupt")
    env = settings(aws.endpoint, upstream, table)
    fleet(invoke, env, 1)
    item = items(aws, table)["response"]
    broken = {name: value for name, value in {**item, **corrupt}.items() if value is not None}
    aws.client("dynamodb").put_item(TableName=table, Item=broken)
    answers, lines = fleet(invoke, env, 1)
    assert (answers[0].status, answers[0].cache_status) == (200, "fetch; fwd=miss; fwd-status=200")
    assert [line["level"] for line in lines if "SHARED_STATE_TABLE" in line["message"]] == ["WARN"]
    mended = items(aws, table)["response"]
    assert mended.keys() == item.keys() and mended["body"] == item["body"] and mended != broken


def test_an_impossible_verdict_is_ignored(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    env = settings(aws.endpoint, start_upstream("verdict"), table)
    fleet(invoke, env, 1)
    never = {"N": "99999999999999"}
    item = items(aws, table)["upstream"] | {"open_until": never, "leased_until": never, "closed": never}
    aws.client("dynamodb").put_item(TableName=table, Item=item)
    answers, _ = fleet(invoke, env, 1)
    assert answers[0].cache_status == "fetch; fwd=miss; fwd-status=200"
    assert never not in items(aws, table)["upstream"].values()


def test_a_fresh_response_needs_no_table_and_an_unshareable_one_is_not_written(
    aws: Aws, table: str, gate: Gate, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    upstream = start_upstream("fresh")
    upstream.headers = {"cache-control": "max-age=3600"}
    env = settings(gate.url, upstream, table)
    with fetching(invoke, tmp_path / "log", env) as fetch:
        assert fetch().status == 200
        # The table is written after this answer, and before the next.
        assert fetch().cache_status.startswith("fetch; hit")
        asked = list(gate.asked)
        assert asked == ["BatchGetItem", "UpdateItem", "PutItem", "UpdateItem"]
        assert {fetch().cache_status.partition("; ttl")[0] for _ in range(50)} == {"fetch; hit"}
        assert gate.asked == asked
    for unshareable in ("no-store", "private, max-age=60"):
        upstream = start_upstream("unshareable")
        upstream.headers = {"cache-control": unshareable}
        before = items(aws, table).keys()
        fleet(invoke, settings(gate.url, upstream, table), 1)
        after = aws.client("dynamodb").scan(TableName=table)["Items"]
        assert [item["part"]["S"] for item in after].count("response") == 1, unshareable


def test_no_secret_is_written(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    arn = aws.client("secretsmanager").create_secret(Name="shared", SecretString="planted-token")["ARN"]
    upstream = start_upstream("secrets")
    upstream.url += "?key=planted-query"
    upstream.headers = {"cache-control": "max-age=60", "set-cookie": "planted=1", "x-internal": "planted"}
    headers = {"authorization": "planted-caller", "cookie": "planted-cookie"}
    with fetching(invoke, tmp_path / "log", settings(aws.endpoint, upstream, table, UPSTREAM_SECRET_ID=arn)) as fetch:
        assert fetch(json.dumps({"request": {"path": "/fetch?q=planted", "headers": headers}})).status == 200
    assert upstream.authorizations == ["Bearer planted-token"]
    found = items(aws, table)
    assert found["response"]["headers"]["M"].keys() == {"cache-control", "content-type", "date"}
    assert "planted" not in str(found) + (tmp_path / "log").read_text()


def test_the_key_depends_on_the_settings_that_decide_the_response(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    upstream = start_upstream("keys")
    upstream.headers = {"cache-control": "max-age=60"}
    arn = aws.client("secretsmanager").create_secret(Name="keys", SecretString="token")["ARN"]
    same = settings(aws.endpoint, upstream, table)
    for calls, env in [
        (1, same),
        (1, same),
        (2, same | {"UPSTREAM_URL": upstream.url + "?another"}),
        (3, same | {"UPSTREAM_SECRET_ID": arn}),
    ]:
        assert fleet(invoke, env, 1)[0][0].status == 200
        assert len(upstream.authorizations) == calls


@pytest.mark.parametrize(("bytes_", "is_random", "is_shared"), [(900, True, True), (1_500_000, False, True), (500_000, True, False)])
def test_a_large_body_is_compressed_and_not_shared_if_still_too_large(
    aws: Aws,
    table: str,
    invoke: list[str],
    start_upstream: Callable[[str], Upstream],
    bytes_: int,
    is_random: bool,
    is_shared: bool,
) -> None:
    upstream = start_upstream("large")
    upstream.body = random.Random(0).randbytes(bytes_) if is_random else b"a line of JSON or HTML " * (bytes_ // 23)
    upstream.headers = {"cache-control": "max-age=60"}
    env = settings(aws.endpoint, upstream, table)
    (first,), lines = fleet(invoke, env, 1)
    assert invocations(lines)[0].get("not_shared") == (None if is_shared else "too-large")
    assert ("response" in items(aws, table)) == is_shared
    (second,), _ = fleet(invoke, env, 1)
    assert second.body == first.body
    assert len(upstream.authorizations) == (1 if is_shared else 2)


def test_a_response_that_may_no_longer_be_stored_is_removed(
    aws: Aws, table: str, invoke: list[str], start_upstream: Callable[[str], Upstream]
) -> None:
    upstream = start_upstream("removed")
    env = settings(aws.endpoint, upstream, table)
    fleet(invoke, env, 1)
    assert "response" in items(aws, table)
    # As if ten seconds had passed.
    item = items(aws, table)["response"]
    item |= {name: {"N": str(int(item[name]["N"]) - 10_000)} for name in ("requested", "received")}
    aws.client("dynamodb").put_item(TableName=table, Item=item)
    upstream.headers = {"cache-control": "no-store"}
    assert fleet(invoke, env, 1)[0][0].status == 200
    assert "response" not in items(aws, table)

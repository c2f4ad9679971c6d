"""The parts of `make deploy`, `url`, `logs` and `rollback` that the SAM CLI does not do, and `make doctor`."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import requests
from aws import Aws
from harness import REGION, ROOT, Upstream, emulator_environment, environment, process, wait_for
from shared_fixtures import Handler, serving

sys.path.append(str(ROOT / "testbed"))
from stack import LATE_MS, followed, line  # noqa: E402

STACK = "stacked"


def stack(aws: Aws, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "testbed/stack.py", command, "dev", "--stack-name", STACK, *more],
        cwd=ROOT,
        env=emulator_environment(aws.endpoint),
        capture_output=True,
        text=True,
    )


def said(aws: Aws, command: str) -> str:
    done = stack(aws, command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deployment_is_announced_logged_and_rolled_back(
    aws: Aws, built: Path, start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    old, new = start_upstream("before"), start_upstream("after")
    assert said(aws, "preflight") == f"account 000000000000, region {REGION}, stage dev: creates the stack {STACK}\n"
    aws.deploy(STACK, "Stage=dev", f"UpstreamUrl={old.url}")
    try:
        assert "updates the stack" in said(aws, "preflight")
        aws.deploy(STACK, "Stage=dev", f"UpstreamUrl={new.url}")
        url = aws.reachable(said(aws, "url").strip())
        assert requests.get(f"{url}fetch", timeout=30).content == new.body

        log = tmp_path / "logs"
        follow = [sys.executable, "testbed/stack.py", "logs", "dev", "--stack-name", STACK]
        with process(follow, emulator_environment(aws.endpoint), log):
            # In the emulator, functions log text.
            wait_for(lambda: re.search(r"^fetch  INFO invocation .*status=200", log.read_text(), re.M), "the line", 30)
            logs, group = aws.client("logs"), f"/aws/lambda/{STACK}-fetch"
            logs.create_log_stream(logGroupName=group, logStreamName="equal")
            event = {"timestamp": int(time.time() * 1000), "message": "an equal line"}
            logs.put_log_events(logGroupName=group, logStreamName="equal", logEvents=[event, event])
            wait_for(lambda: log.read_text().count("fetch  an equal line\n") == 2, "both lines", 30)

        assert said(aws, "rollback").splitlines() == [f"{STACK}-fetch: version 1 answers again, instead of 2"]
        # The emulator has deleted that version. On AWS it stays: SAM tells CloudFormation to retain it.
        alias = aws.client("lambda").get_alias(FunctionName=f"{STACK}-fetch", Name="live")
        assert alias["FunctionVersion"] == "1"
    finally:
        aws.delete(STACK)


@pytest.fixture
def cloudwatch() -> Iterator[SimpleNamespace]:
    """A server that answers FilterLogEvents as CloudWatch Logs does, two events a page, and keeps what it was asked."""
    logs = SimpleNamespace(events=[], asked=[], sent=0)

    class CloudWatch(Handler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            logs.asked.append(asked)
            found = [event for event in logs.events if event["timestamp"] >= asked["startTime"]]
            start = int(asked.get("nextToken", 0))
            page = {"events": found[start : start + 2]} | ({"nextToken": str(start + 2)} if found[start + 2 :] else {})
            logs.sent += len(page["events"])
            body = json.dumps(page).encode()
            self.send_response(200)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = serving(CloudWatch)
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    url = f"http://127.0.0.1:{server.server_port}"
    logs.client = boto3.client("logs", endpoint_url=url, region_name=REGION, **credentials)
    yield logs
    server.shutdown()
    server.server_close()


def test_each_event_is_shown_once_and_read_a_few_times(cloudwatch: SimpleNamespace) -> None:
    def event(id: str, timestamp: int, message: str) -> dict:
        return {"eventId": id, "timestamp": timestamp, "message": message, "logStreamName": "stream"}

    polls = followed(cloudwatch.client, ["group"], 1_000)
    assert next(polls) == []
    # Equal messages of different events are shown each; one event of several pages and polls is shown once.
    cloudwatch.events += [event("0", 900, "too early"), *(event(str(id), 2_000, "equal") for id in range(1, 6))]
    assert next(polls) == [("group", "equal")] * 5
    assert next(polls) == []
    # An event of another stream becomes visible late.
    cloudwatch.events += [event("7", 2_000 + LATE_MS, "second"), event("6", 1_999, "first")]
    assert next(polls) == [("group", "first"), ("group", "second")]
    cloudwatch.events.append(event("8", 2_000, "late"))
    assert next(polls) == [("group", "late")]
    # What is older is not read again.
    cloudwatch.events += [event(str(9 + id), 100_000 + id, "many") for id in range(50)]
    assert len(next(polls)) == 50
    cloudwatch.events.append(event("99", 200_000, "new"))
    assert next(polls) == [("group", "new")]
    before = cloudwatch.sent
    assert next(polls) == [] and cloudwatch.sent - before == 1
    assert cloudwatch.asked[-1]["startTime"] == 200_000 - LATE_MS


def test_a_line_of_json_is_made_readable() -> None:
    event = {"timestamp": "2026-11-24T09:30:00.123Z", "level": "ERROR", "message": "invocation", "status": 502}
    event |= {"method": "GET", "route": "ANY /fetch", "_aws": {}, "problem": "upstream-error", "attempts": 3}
    assert line("fetch", json.dumps(event)) == (
        "09:30:00.123 ERROR fetch        status=502 method=GET route=ANY /fetch problem=upstream-error attempts=3"
    )
    assert line("fetch", "RequestId: 1 Error\n") == "fetch  RequestId: 1 Error"
    assert line("fetch", '{"type": "platform.report"}') == 'fetch  {"type": "platform.report"}'


def test_without_credentials_a_deployment_stops_before_anything_is_built(tmp_path: Path) -> None:
    env = environment(HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true")
    done = subprocess.run(["make", "deploy"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "There are no AWS credentials" in done.stderr and "aws sso login" in done.stderr
    assert "sam" not in done.stdout


def test_an_unknown_stage_is_reported(aws: Aws) -> None:
    done = subprocess.run(
        [sys.executable, "testbed/stack.py", "url", "staging"],
        cwd=ROOT,
        env=emulator_environment(aws.endpoint),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "samconfig.toml has no table for it" in done.stderr


@pytest.mark.parametrize("is_bare", [False, True])
def test_doctor_lists_what_is_missing_and_how_to_get_it(tmp_path: Path, is_bare: bool) -> None:
    env = environment()
    if is_bare:
        (tmp_path / "python3").symlink_to(sys.executable)
        env["PATH"] = str(tmp_path)
    done = subprocess.run([sys.executable, "testbed/doctor.py"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == is_bare
    assert ("LACKS  Rust" in done.stdout) == is_bare and ("https://rustup.rs" in done.stdout) == is_bare
    assert os.environ["PATH"] not in done.stdout

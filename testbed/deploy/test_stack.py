"""The parts of `make deploy`, `url`, `logs` and `rollback` that the SAM CLI does not do, and `make doctor`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from aws import Aws
from harness import PROTECTED, REGION, ROUTER, emulator_environment, process, run, wait_for
from stack import LATE_MS, followed, line

STACK = "stacked"


def stack(aws: Aws, command: str, stage: str = "dev") -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "testbed/stack.py", command, stage, STACK, **emulator_environment(aws.endpoint))


def said(aws: Aws, command: str) -> str:
    done = stack(aws, command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deployment_is_announced_logged_and_rolled_back(aws: Aws, built: Path, tmp_path: Path) -> None:
    path = PROTECTED[0]
    function = ROUTER[path]
    assert said(aws, "preflight") == f"account 000000000000, region {REGION}, stage dev: creates the stack {STACK}\n"
    aws.deploy(STACK, "Stage=dev")
    try:
        assert "updates the stack" in said(aws, "preflight")
        aws.deploy(STACK, "Stage=dev", "LogLevel=DEBUG")
        url = aws.reachable(said(aws, "url").strip())
        assert requests.get(url.rstrip("/") + path, timeout=30).headers["x-request-id"]

        log = tmp_path / "logs"
        follow = [sys.executable, "testbed/stack.py", "logs", "dev", STACK]
        with process(follow, emulator_environment(aws.endpoint), log):
            # In the emulator, functions log text.
            shown = rf"^{function}  INFO invocation .*status="
            wait_for(lambda: re.search(shown, log.read_text(), re.M), "the line", 30)

        functions = aws.client("lambda").list_functions()["Functions"]
        names = {one["FunctionName"] for one in functions if one["FunctionName"].startswith(f"{STACK}-")}
        rolled_back = {f"{name}: version 1 answers again, instead of 2" for name in names}
        assert set(said(aws, "rollback").splitlines()) == rolled_back
        # The emulator has deleted that version. On AWS it stays: SAM tells CloudFormation to retain it.
        alias = aws.client("lambda").get_alias(FunctionName=f"{STACK}-{function}", Name="live")
        assert alias["FunctionVersion"] == "1"
    finally:
        aws.delete(STACK)


def test_each_event_is_shown_once_and_read_a_few_times(aws: Aws) -> None:
    logs, asked, read = aws.client("logs"), [], []
    logs.meta.events.register("before-parameter-build.logs.FilterLogEvents", lambda params, **_: asked.append(params["startTime"]))
    logs.meta.events.register("after-call.logs.FilterLogEvents", lambda parsed, **_: read.append(len(parsed["events"])))
    logs.create_log_group(logGroupName="group")
    for stream in ("one", "other"):
        logs.create_log_stream(logGroupName="group", logStreamName=stream)

    def log(stream: str, *events: tuple[int, str]) -> None:
        sent = [{"timestamp": timestamp, "message": message} for timestamp, message in events]
        logs.put_log_events(logGroupName="group", logStreamName=stream, logEvents=sent)

    polls = followed(logs, ["group"], 1_000)
    assert next(polls) == []
    # Equal messages of different events are shown each; one event of several polls is shown once.
    log("one", (900, "too early"), *[(2_000, "equal")] * 5)
    assert next(polls) == [("group", "equal")] * 5
    assert next(polls) == []
    # An event of another stream becomes visible late.
    log("one", (2_000 + LATE_MS, "second"))
    log("other", (1_999, "first"))
    assert next(polls) == [("group", "first"), ("group", "second")]
    log("other", (2_000, "late"))
    assert next(polls) == [("group", "late")]
    # What is older is not read again.
    log("one", *[(100_000 + number, "many") for number in range(50)])
    assert len(next(polls)) == 50
    log("one", (200_000, "new"))
    assert next(polls) == [("group", "new")]
    assert next(polls) == [] and (asked[-1], read[-1]) == (200_000 - LATE_MS, 1)


def test_a_line_of_json_is_made_readable() -> None:
    event = {"timestamp": "2026-11-24T09:30:00.123Z", "level": "ERROR", "message": "invocation", "status": 502}
    event |= {"method": "GET", "route": "ANY /fetch", "_aws": {}, "problem": "upstream-error", "attempts": 3}
    assert line("fetch", json.dumps(event)) == (
        "09:30:00.123 ERROR fetch        status=502 method=GET route=ANY /fetch problem=upstream-error attempts=3"
    )
    assert line("fetch", "RequestId: 1 Error\n") == "fetch  RequestId: 1 Error"
    assert line("fetch", '{"type": "platform.report"}') == 'fetch  {"type": "platform.report"}'


def test_without_credentials_a_deployment_stops_before_anything_is_built(tmp_path: Path) -> None:
    done = run("make", "deploy", HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true")
    assert done.returncode != 0 and "There are no AWS credentials" in done.stderr and "aws sso login" in done.stderr
    assert "sam" not in done.stdout


def test_an_unknown_stage_is_reported(aws: Aws) -> None:
    done = stack(aws, "url", "staging")
    assert done.returncode == 1 and "samconfig.toml has no table for it" in done.stderr


@pytest.mark.parametrize("is_bare", [False, True])
def test_doctor_lists_what_is_missing_and_how_to_get_it(tmp_path: Path, is_bare: bool) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    done = run(sys.executable, "testbed/doctor.py", **{"PATH": str(tmp_path)} if is_bare else {})
    assert done.returncode == is_bare
    assert ("LACKS  Rust" in done.stdout) == is_bare and ("https://rustup.rs" in done.stdout) == is_bare
    assert os.environ["PATH"] not in done.stdout

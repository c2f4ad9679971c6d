"""docs/streams.md's commands print what it shows, under `cargo lambda watch`, and behind a function URL in the emulator."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from aws import Aws
from harness import ROOT, environment, free_port, process, wait_for
from test_axum import answers
from test_readme import commands, pattern

PAGE = (ROOT / "docs" / "streams.md").read_text()
EXPORT = ROOT / "target/debug/examples/export"
MODE = {"INVOKE_MODE": "RESPONSE_STREAM"}


@pytest.fixture(scope="module", params=["watched", "deployed"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    subprocess.run(["cargo", "build", "--quiet", "--example", EXPORT.name], cwd=ROOT, env=environment(), check=True)
    if request.param == "deployed":
        yield deployed(request.getfixturevalue("aws"))
        return
    logs, port = tmp_path_factory.mktemp("streams"), free_port()
    env = environment(AWS_LAMBDA_RUNTIME_API=f"http://127.0.0.1:{port}/.rt", AWS_LAMBDA_FUNCTION_NAME="_", **MODE)
    with ExitStack() as running:
        watch = ["cargo", "lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1", "--disable-cors"]
        running.enter_context(process([*watch, "--invoke-port", str(port)], environment(), logs / "watch.log"))
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/lambda-url/none"), "cargo lambda watch", 60)
        running.enter_context(process([str(EXPORT)], env, logs / "export.log"))
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/export?rows=0"), "the example", 60)
        yield f"localhost:{port}"


def deployed(aws: Aws) -> str:
    aws.create_function("export", EXPORT, Environment={"Variables": MODE})
    created = aws.client("lambda").create_function_url_config(FunctionName="export", AuthType="NONE", InvokeMode="RESPONSE_STREAM")
    ident = re.match(r"https?://([^.]+)\.", created["FunctionUrl"])[1]
    return f"{aws.endpoint.removeprefix('http://')}/_aws/lambda-url/{ident}"


@pytest.mark.parametrize(("command", "shown"), commands(PAGE), ids=[command for command, _ in commands(PAGE)])
def test_a_command_prints_the_output_that_is_shown(url: str, command: str, shown: str) -> None:
    curl, *words = [word.replace("localhost:9000", url) for word in shlex.split(command)]
    done = subprocess.run([curl, "--silent", "--show-error", *words], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(pattern(shown.strip()), done.stdout.strip().replace("\r", "")), done.stdout


def test_more_than_lambda_takes_otherwise_comes_as_a_stream(url: str) -> None:
    answer = requests.get(f"http://{url}/export?rows=500000", timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/csv"
    assert len(answer.content) > 8_000_000 and answer.text.endswith("\r\n499999,249999000001\r\n")


def test_events_come_as_they_are_sent(url: str) -> None:
    """The first one is there while the function has not sent the last one."""
    if "_aws" in url:
        pytest.skip("the emulator collects a stream")
    with requests.get(f"http://{url}/progress", stream=True, timeout=60) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        pieces = [piece.decode() for piece in answer.iter_content(None)]
    assert pieces == [f"id: {number}\nevent: done\ndata: {number} of 3\n\n" for number in (1, 2, 3)]


def test_the_commands_and_the_example_are_tested() -> None:
    assert len(commands(PAGE)) == 3
    examples = ("functions/handler/examples/export.rs", "functions/upstream/examples/reports.rs")
    for example, shown in zip(examples, re.findall(r"```rust\n(.*?)```", PAGE, re.DOTALL), strict=True):
        assert all(part.strip("\n") in (ROOT / example).read_text() for part in shown.split("\n\n"))

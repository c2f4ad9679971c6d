"""The commands that docs/axum.md and docs/streams.md show print what is shown there, with their examples: without Lambda, under
`cargo lambda watch`, and deployed into the emulator."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from aws import Aws
from harness import ROOT, ROUTER, answered, environment, free_port, process, wait_for
from test_readme import check, commands

EXAMPLES = {page: (ROOT / f"docs/{page}.md").read_text() for page in ("axum", "streams")}
STREAMS = {"INVOKE_MODE": "RESPONSE_STREAM"}


@pytest.fixture(scope="module", params=["alone", "watched", "deployed"])
def router(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(request, tmp_path_factory.mktemp("router"), "router", "/letters", {}) as url:
        yield url


@pytest.fixture(scope="module", params=["watched", "deployed"])
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(request, tmp_path_factory.mktemp("export"), "export", "/export?rows=0", STREAMS) as url:
        yield url


@contextmanager
def running(request: pytest.FixtureRequest, logs: Path, name: str, path: str, settings: dict[str, str]) -> Iterator[str]:
    """The example with this `name`, which answers at `path`."""
    executable = ROOT / "target/debug/examples" / name
    subprocess.run(["cargo", "build", "--quiet", "--example", name], cwd=ROOT, env=environment(), check=True)
    if request.param == "deployed":
        yield deployed(request.getfixturevalue("aws"), executable, settings)
        return
    port = free_port()
    env = environment(PORT=str(port), **settings)
    with ExitStack() as processes:
        if request.param == "watched":
            if path.partition("?")[0] in ROUTER:
                pytest.skip("an endpoint here has this path")
            env |= {"AWS_LAMBDA_RUNTIME_API": f"http://127.0.0.1:{port}/.rt", "AWS_LAMBDA_FUNCTION_NAME": "_"}
            watch = ["cargo", "lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1", "--disable-cors"]
            processes.enter_context(process([*watch, "--invoke-port", str(port)], environment(), logs / "watch.log"))
            wait_for(lambda: answered(f"http://127.0.0.1:{port}/lambda-url/none") is not None, "cargo lambda watch", 60)
        processes.enter_context(process([str(executable)], env, logs / "example.log"))
        wait_for(lambda: answered(f"http://127.0.0.1:{port}{path}") is not None, "the example", 60)
        yield f"localhost:{port}"


def deployed(aws: Aws, executable: Path, settings: dict[str, str]) -> str:
    """Behind a function URL if it streams, and otherwise behind an HTTP API."""
    name, host = executable.name, aws.endpoint.removeprefix("http://")
    arn = aws.create_function(name, executable, Environment={"Variables": settings})
    if settings:
        created = aws.client("lambda").create_function_url_config(FunctionName=name, AuthType="NONE", InvokeMode="RESPONSE_STREAM")
        return f"{host}/_aws/lambda-url/{re.match(r'https?://([^.]+)[.]', created['FunctionUrl'])[1]}"
    gateway = aws.client("apigatewayv2")
    api = gateway.create_api(Name=name, ProtocolType="HTTP")["ApiId"]
    integration = gateway.create_integration(
        ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=arn, PayloadFormatVersion="2.0"
    )["IntegrationId"]
    gateway.create_route(ApiId=api, RouteKey="$default", Target=f"integrations/{integration}")
    gateway.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)
    return f"{host}/_aws/execute-api/{api}/$default"


@pytest.mark.parametrize(("command", "shown"), commands(EXAMPLES["axum"]), ids=[command for command, _ in commands(EXAMPLES["axum"])])
def test_a_routers_command_prints_the_output_that_is_shown(router: str, command: str, shown: str) -> None:
    check(router, command, shown)


@pytest.mark.parametrize(("command", "shown"), commands(EXAMPLES["streams"]), ids=[command for command, _ in commands(EXAMPLES["streams"])])
def test_a_streams_command_prints_the_output_that_is_shown(export: str, command: str, shown: str) -> None:
    check(export, command, shown)


def test_more_than_lambda_takes_otherwise_comes_as_a_stream(export: str) -> None:
    answer = requests.get(f"http://{export}/export?rows=500000", timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/csv"
    assert len(answer.content) > 8_000_000 and answer.text.endswith("\r\n499999,249999000001\r\n")


def test_events_come_as_they_are_sent(export: str) -> None:
    """The first one is there while the function has not sent the last one."""
    if "_aws" in export:
        pytest.skip("the emulator collects a stream")
    with requests.get(f"http://{export}/progress", stream=True, timeout=60) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        pieces = [piece.decode() for piece in answer.iter_content(None)]
    assert pieces == [f"id: {number}\nevent: done\ndata: {number} of 3\n\n" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("page", "shows", "examples"), [("axum", 4, ["handler/examples/router"]), ("streams", 3, ["handler/examples/export", "upstream/examples/reports"])]
)
def test_the_commands_and_the_examples_of_a_page_are_tested(page: str, shows: int, examples: list[str]) -> None:
    """functions/handler/tests/router.rs and stream.rs of handler and upstream run the examples, too."""
    assert len(commands(EXAMPLES[page])) == shows
    for example, shown in zip(examples, re.findall(r"```rust\n(.*?)```", EXAMPLES[page], re.DOTALL)):
        assert all(part.strip("\n") in (ROOT / f"functions/{example}.rs").read_text() for part in shown.split("\n\n"))

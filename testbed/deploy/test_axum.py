"""docs/axum.md's commands print what it shows: without Lambda, under `cargo lambda watch`, and deployed into the emulator."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from aws import Aws
from harness import ROOT, environment, free_port, process, wait_for
from test_readme import commands, pattern

PAGE = (ROOT / "docs" / "axum.md").read_text()
ROUTER = ROOT / "target/debug/examples/router"


@pytest.fixture(scope="module", params=["alone", "watched", "deployed"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    subprocess.run(["cargo", "build", "--quiet", "--example", ROUTER.name], cwd=ROOT, env=environment(), check=True)
    if request.param == "deployed":
        yield deployed(request.getfixturevalue("aws"))
        return
    logs, port = tmp_path_factory.mktemp("axum"), free_port()
    env = environment(PORT=str(port))
    with ExitStack() as running:
        if request.param == "watched":
            address = f"http://127.0.0.1:{port}/.rt"
            env |= {"AWS_LAMBDA_RUNTIME_API": address, "AWS_LAMBDA_FUNCTION_NAME": "_"}
            watch = ["cargo", "lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1", "--disable-cors"]
            watch += ["--invoke-port", str(port)]
            running.enter_context(process(watch, environment(), logs / "watch.log"))
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/lambda-url/none"), "cargo lambda watch", 60)
        running.enter_context(process([str(ROUTER)], env, logs / "router.log"))
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/letters"), "the router", 60)
        yield f"localhost:{port}"


def answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=60).status_code)
    except requests.ConnectionError:
        return False


def deployed(aws: Aws) -> str:
    arn = aws.create_function("router", ROUTER)
    gateway = aws.client("apigatewayv2")
    api = gateway.create_api(Name="router", ProtocolType="HTTP")["ApiId"]
    integration = gateway.create_integration(
        ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=arn, PayloadFormatVersion="2.0"
    )["IntegrationId"]
    gateway.create_route(ApiId=api, RouteKey="$default", Target=f"integrations/{integration}")
    gateway.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)
    return f"{aws.endpoint.removeprefix('http://')}/_aws/execute-api/{api}/$default"


@pytest.mark.parametrize(("command", "shown"), commands(PAGE), ids=[command for command, _ in commands(PAGE)])
def test_a_command_prints_the_output_that_is_shown(url: str, command: str, shown: str) -> None:
    curl, *words = [word.replace("localhost:9000", url) for word in shlex.split(command)]
    done = subprocess.run([curl, "--silent", "--show-error", *words], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(pattern(shown.strip()), done.stdout.strip()), done.stdout


def test_there_are_commands() -> None:
    assert len(commands(PAGE)) == 4


def test_the_example_is_compiled() -> None:
    """testbed/tests/router.rs runs it."""
    example = (ROOT / "functions/handler/examples/router.rs").read_text()
    shown = re.findall(r"```rust\n(.*?)```", PAGE, re.DOTALL)[0]
    assert all(part.strip("\n") in example for part in shown.split("\n\n"))

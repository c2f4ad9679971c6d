"""The commands that README and docs/ show print what is shown there: against `make run`, and those of docs/axum.md and docs/streams.md
with their examples: without Lambda, under `cargo lambda watch`, and deployed into the emulator."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

import new
import pytest
import requests
from aws import Aws
from harness import OWNED, ROOT, ROUTER, environment, free_port, process, wait_for

README = (ROOT / "README.md").read_text()
REQUESTS = (ROOT / "docs/requests.md").read_text()
ENDPOINTS = "".join((ROOT / f"docs/{page}.md").read_text() for page in ("endpoints", "callers"))


def commands(page: str) -> list[tuple[str, str]]:
    """The commands that `page` shows, each with its output."""
    console = "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)


COMMANDS = commands(README + REQUESTS)

# Values in README that differ in each run, and the pattern that they must match.
VARYING = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", r"[0-9a-f-]{36}"),
    (r"\+0[12]:00", r"\+0[12]:00"),
    ("…", ".*"),
]


def pattern(shown: str) -> str:
    parts = re.split("(" + "|".join(varying for varying, _ in VARYING) + ")", shown)
    for index in range(1, len(parts), 2):
        parts[index] = next(matching for varying, matching in VARYING if re.fullmatch(varying, parts[index]))
    parts[::2] = map(re.escape, parts[::2])
    return "".join(parts)


@pytest.fixture(scope="module")
def fetching_time(make_run) -> str:
    """`make run` with the default settings, except for the port."""
    with make_run() as url:
        yield url


def test_there_are_commands() -> None:
    assert len(COMMANDS) == len(re.findall(r"^\$ ", README + REQUESTS, re.MULTILINE)) >= 3


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_the_output_that_is_shown(fetching_time: str, command: str, shown: str) -> None:
    path = urlsplit(shlex.split(command)[-1]).path
    if command not in README and not any(re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(route)), path) for route in ROUTER):
        pytest.skip(f"no endpoint here has {path}")
    url = urlsplit(fetching_time)
    words = [word.replace("localhost:9000", url.netloc) for word in shlex.split(command)]
    if words[0] == "curl":
        words[1:1] = ["--silent", "--show-error"]
    elif words[:3] == ["cargo", "lambda", "invoke"]:
        words += ["--invoke-port", str(url.port)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(pattern(shown.strip()), done.stdout.strip()), done.stdout


def test_the_services_have_what_the_page_of_endpoints_shows() -> None:
    services = "".join(
        re.sub(r"^\+", "", file.read_text(), flags=re.MULTILINE) for file in (ROOT / "testbed/services").rglob("*") if file.is_file()
    )
    services += "".join(new.pretty(content) for _, content in new.Endpoint("notes", "", "", "", "", "", table="notes").events())
    shown = re.findall(r"```(?:yaml|rust|toml|json)\n(.*?)```", ENDPOINTS.partition("## A table\n")[2], re.DOTALL)
    assert len(shown) >= 8
    assert [block for block in shown if block not in services] == []


def test_the_code_on_the_page_about_upstreams_is_code_that_runs() -> None:
    files = ("functions/upstream/examples/quotes.rs", "functions/upstream/tests/quotes.rs", "functions/upstream/src/response.rs")
    sources = [re.sub(r"(?m)^ +/// ?", "", (ROOT / file).read_text()) for file in files]
    sources.append(new.Endpoint("quotes", "", "", "", "", "prices,rates").test())
    shown = re.findall(r"```rust\n(.*?)```", (ROOT / "docs" / "upstream.md").read_text(), re.DOTALL)
    assert len(shown) == 6 and [code for code in shown if not any(code in source for source in sources)] == []


def test_an_upstreams_settings_are_the_same_on_all_pages() -> None:
    """The page's table, and that in the crate's documentation, where the upstream is called PRICES."""

    def table(text: str, name: str) -> dict[str, str]:
        return dict(re.findall(rf"\| `{name}_(\w+)` \| (.*?) \|", text))

    own = (ROOT / "functions" / "upstream" / "src" / "lib.rs").read_text()
    assert table((ROOT / "docs/upstream.md").read_text(), "NAME") == table(own, "PRICES") and len(table(own, "PRICES")) >= 9


PAGES = [*(ROOT / "docs").glob("*.md"), *(ROOT / ".github").glob("*.md"), ROOT / "AGENTS.md", ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_make_are_there(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"(?:^    |^\$ |`)make ([a-z]+)", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert {target for target in named if not re.search(rf"^{target}( \w+)*:", makefile, re.MULTILINE)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files, and headings of pages."""
    lost = []
    for link in re.findall(r"\]\(([^)\s:]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        headings = re.findall(r"(?m)^#+ (.*)", file.read_text()) if file.suffix == ".md" and file.exists() else []
        slugs = [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]
        if not file.exists() or heading and heading not in slugs:
            lost.append(link)
    assert lost == []


GUIDE = ("endpoints", "upstream", "data", "callers", "testing", "gates", "deploying", "failures", "updating")


@pytest.mark.parametrize("name", GUIDE)
def test_a_page_by_task_begins_with_commands_that_a_test_runs(name: str) -> None:
    text = (ROOT / f"docs/{name}.md").read_text()
    first = re.match(r"# .*\n\n(?:((?:    \S.*\n)+)|```sh\n((?:.*\n)+?)```\n)", text)
    assert first, text[:200]
    lines = (first[1] or first[2]).splitlines()
    for file in re.findall(r"(?<=pytest )testbed\S+", "\n".join(lines)):
        assert (ROOT / file).exists(), file
    if not OWNED:  # the tests of make's targets stay here
        parts = re.search(r"-j ([a-z ]+) ", (ROOT / "Makefile").read_text())[1].split()
        tests = "".join(file.read_text() for file in (ROOT / "testbed/deploy").glob("*.py"))
        targets = set(re.findall(r"\bmake ([a-z]+)", "\n".join(line.partition("  #")[0] for line in lines)))
        assert {target for target in targets - {"test", *parts} if f'"{target}"' not in tests} == set()


@pytest.mark.skipif(OWNED, reason="a team's template.yaml may have other queries")
def test_the_page_about_failures_has_the_saved_queries() -> None:
    saved = re.findall(r"QueryString: \|\n((?: {8}.*\n)+)", (ROOT / "template.yaml").read_text())
    shown = re.findall(r"```\n(.*?) *```", (ROOT / "docs/failures.md").read_text(), re.DOTALL)
    assert len(saved) >= 5 and [dedent(query) for query in shown] == [dedent(query) for query in saved]


def test_gates_and_targets_that_pages_name_are_there() -> None:
    """The page about red gates names tests as they are called."""
    named = re.findall(r"`(\w+_\w+)`", (ROOT / "docs/gates.md").read_text())
    searched = ["git", "grep", "--untracked", "-hoE", r"(fn|def) \w+", "--", "testbed", "functions"]
    tests = subprocess.run(searched, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert len(named) >= 7 and [name for name in named if name not in tests and name != "answers_its_events"] == []


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
            env |= {"AWS_LAMBDA_RUNTIME_API": f"http://127.0.0.1:{port}/.rt", "AWS_LAMBDA_FUNCTION_NAME": "_"}
            watch = ["cargo", "lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1", "--disable-cors"]
            processes.enter_context(process([*watch, "--invoke-port", str(port)], environment(), logs / "watch.log"))
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/lambda-url/none"), "cargo lambda watch", 60)
        processes.enter_context(process([str(executable)], env, logs / "example.log"))
        wait_for(lambda: answers(f"http://127.0.0.1:{port}{path}"), "the example", 60)
        yield f"localhost:{port}"


def answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=60).status_code)
    except requests.ConnectionError:
        return False


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


def check(url: str, command: str, shown: str) -> None:
    curl, *words = [word.replace("localhost:9000", url) for word in shlex.split(command)]
    done = subprocess.run([curl, "--silent", "--show-error", *words], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(pattern(shown.strip()), done.stdout.strip().replace("\r", "")), done.stdout


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

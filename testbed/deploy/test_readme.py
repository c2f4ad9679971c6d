"""The commands that README and docs/requests.md show print what is shown there, against `make run`. What the pages say is in the
repository."""

import re
import shlex
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

import new
import pytest
from harness import OWNED, ROOT, UNTESTED, run
from unchanged import function_at

README = (ROOT / "README.md").read_text()
REQUESTS = (ROOT / "docs/requests.md").read_text()
ENDPOINTS = "".join((ROOT / f"docs/{page}.md").read_text() for page in ("endpoints", "callers"))


def commands(page: str) -> list[tuple[str, str]]:
    """The commands that `page` shows, each with its output."""
    console = "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)


COMMANDS = commands(README + REQUESTS)

# Shown values that differ in each run, and the pattern that they must match.
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


def check(authority: str, command: str, shown: str) -> None:
    """Runs the command, with this host and port, and compares what it prints."""
    words = [word.replace("localhost:9000", authority) for word in shlex.split(command)]
    if words[0] == "curl":
        words[1:1] = ["--silent", "--show-error"]
    elif words[:3] == ["cargo", "lambda", "invoke"]:
        words += ["--invoke-port", authority.rpartition(":")[2]]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(pattern(shown.strip()), done.stdout.strip().replace("\r", "")), done.stdout


def function_of(command: str) -> str | None:
    words = shlex.split(command)
    return words[3] if words[0] == "cargo" else function_at(urlsplit(f"//{words[-1]}").path)


def test_there_are_commands() -> None:
    assert len(COMMANDS) == len(re.findall(r"^\$ ", README + REQUESTS, re.MULTILINE)) >= 3


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS if function_of(command) not in UNTESTED])
def test_a_command_prints_the_output_that_is_shown(local_api: str, command: str) -> None:
    if command not in README and function_of(command) is None:
        pytest.skip("no endpoint here has this path")
    check(urlsplit(local_api).netloc, command, dict(COMMANDS)[command])


def test_the_services_have_what_the_page_of_endpoints_shows() -> None:
    services = "".join(
        re.sub(r"^\+", "", file.read_text(), flags=re.MULTILINE) for file in (ROOT / "testbed/services").rglob("*") if file.is_file()
    )
    services += "".join(new.pretty(content) for _, content in new.Endpoint("notes", table="notes").events())
    shown = re.findall(r"```(?:yaml|rust|toml|json)\n(.*?)```", ENDPOINTS.partition("## A table\n")[2], re.DOTALL)
    assert len(shown) >= 8
    assert [block for block in shown if block not in services] == []


def test_the_code_on_the_page_about_upstreams_is_code_that_runs() -> None:
    files = ("functions/upstream/examples/quotes.rs", "functions/upstream/tests/quotes.rs", "functions/upstream/src/response.rs")
    sources = [re.sub(r"(?m)^ +/// ?", "", (ROOT / file).read_text()) for file in files]
    sources.append(new.Endpoint("quotes", upstreams="prices,rates").test())
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
    tests = run(*searched).stdout
    assert len(named) >= 7 and [name for name in named if name not in tests and name != "answers_its_events"] == []

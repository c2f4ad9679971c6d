"""README's commands print what README shows, against `make run`."""

import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness import ROOT, environment

README = (ROOT / "README.md").read_text()
CONSOLE = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", CONSOLE, re.MULTILINE)

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
    assert len(COMMANDS) == CONSOLE.count("$ ") >= 8


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_the_output_that_is_shown(fetching_time: str, command: str, shown: str) -> None:
    url = urlsplit(fetching_time)
    words = [word.replace("localhost:9000", url.netloc) for word in shlex.split(command)]
    if words[0] == "curl":
        words[1:1] = ["--silent", "--show-error"]
    elif words[:3] == ["cargo", "lambda", "invoke"]:
        words += ["--invoke-port", str(url.port)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(pattern(shown.strip()), done.stdout.strip()), done.stdout


def test_the_example_is_compiled() -> None:
    """testbed/tests/endpoint.rs runs it."""
    example = (ROOT / "functions" / "handler" / "examples" / "orders.rs").read_text()
    (shown,) = re.findall(r"```rust\n(.*?)```", README, re.DOTALL)
    parts = shown.split("\n\n")
    assert len(parts) == 2 and all(part.strip("\n") in example for part in parts)


def test_the_other_commands_are_targets_of_make() -> None:
    """Other tests run these targets: test_new.py runs `new`, test_stack.py `logs`, the tests themselves `build`, `run`
    and `test`. `deploy` and `destroy` are tested through the SAM CLI. `cargo test` tests the measuring code of `make
    bench`, and the properties that `make soak` and `make fuzz` check."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = set(re.findall(r"^  make (\w+)", listed, re.MULTILINE))
    named = set(re.findall(r"^    make (\w+)", README, re.MULTILINE))
    assert named == {"run", "test", "build", "new", "bench", "soak", "fuzz", "deploy", "logs", "destroy"} and named <= targets


# Each command that the pages name, and what runs it, or why nothing does.
RUN_BY = {
    r"make (run|test|build)( .*)?": "the tests themselves",
    r"make(| new.*| events| check| audit)": "test_new.py, test_template.py's lint, or `make test`",
    r"make (url|logs|rollback|deploy|destroy).*": "test_stack.py and test_deploy.py run the code behind these",
    r"make smoke.*": "test_smoke.py",
    r"make (bench|soak|fuzz|budget|screenshot).*": "the nightly workflow, and anyone who changes a cost: too slow here",
    r"make (advisories|release|notes).*": "the nightly and release workflows: they need the network, or minutes",
    r"make doctor": "test_stack.py",
    r"make clean": "nothing: it deletes what the tests use",
    r"cargo test.*|cargo lambda (watch|build --release|invoke.*)|\.venv/bin/pytest .*": "`make test`",
    r"cargo lambda new --http": "testbed/bench/bare is its output",
    r"rustup .*|aws .*|git switch .*|gh .*": "nothing: they are for somebody's own account or machine",
    r"curl .*": "the commands above",
}


PAGES = [*(ROOT / "docs").glob("*.md"), *(ROOT / ".github").glob("*.md"), ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_has_an_entry_in_run_by(page: Path) -> None:
    text = page.read_text()
    commands = re.findall(r"^\$ (.*?)(?: +#.*)?$", text, re.MULTILINE)
    commands += re.findall(r"^    (make .*?)(?: +#.*)?$", text, re.MULTILINE)
    commands += re.findall(r"`((?:make|cargo|aws|rustup|git|gh|\.venv/bin/pytest) [^`]*)`", text)
    unknown = [command for command in commands if not any(re.fullmatch(known, command.replace("\n", " ")) for known in RUN_BY)]
    assert unknown == []
    targets = {command.split()[1] for command in commands if re.match(r"make [a-z]", command)}
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}( \w+)*:", makefile, re.MULTILINE)] == []

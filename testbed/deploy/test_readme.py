"""README's commands do what it shows, against what `make run` starts."""

import re
import shlex
import subprocess
from urllib.parse import urlsplit

import pytest
from harness import ROOT, environment

README = (ROOT / "README.md").read_text()
CONSOLE = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", CONSOLE, re.MULTILINE)

# What stands in README for something that is different each time.
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
    """`make run` with nothing chosen but the port."""
    with make_run() as url:
        yield url


def test_there_are_commands() -> None:
    assert len(COMMANDS) == CONSOLE.count("$ ") >= 8


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_is_shown(fetching_time: str, command: str, shown: str) -> None:
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
    """And run, by testbed/tests/endpoint.rs."""
    example = (ROOT / "functions" / "handler" / "examples" / "orders.rs").read_text()
    (shown,) = re.findall(r"```rust\n(.*?)```", README, re.DOTALL)
    parts = shown.split("\n\n")
    assert len(parts) == 2 and all(part.strip("\n") in example for part in parts)


def test_the_other_commands_are_targets_of_make() -> None:
    """Which other tests run: new in test_new.py, build, run and test by themselves, deploy and destroy through the SAM CLI, logs in test_stack.py; what `make
    bench` measures with is one of `cargo test`'s, as are the properties that `make soak` and `make fuzz` hold to."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = set(re.findall(r"^  make (\w+)", listed, re.MULTILINE))
    named = set(re.findall(r"^    make (\w+)", README, re.MULTILINE))
    assert named == {"run", "test", "build", "new", "bench", "soak", "fuzz", "deploy", "logs", "destroy"} and named <= targets

"""`make own` makes a copy of this repository a team's, in which an endpoint of theirs passes the tests."""

import os
import sys
from pathlib import Path

import own
import ownership
import pytest
from harness import in_ci
from test_new import changes, copied, copy, git, make_services, passes, run, undo  # noqa: F401

# Those that need no compiled function.
TESTS = [f"testbed/deploy/test_{name}.py" for name in ("contract", "repository", "template")]
WITHOUT_API = "not local and not deployed"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (("NAME=Shipping",), "a name has lower-case letters"),
        (("NAME=" + "s" * 25,), "at most 24 characters"),
        (("NAME=shipping", "KEEP=nothing"), f"the examples are {', '.join(own.examples())}"),
    ],
)
def test_what_cannot_be_owned_is_refused(copy: Path, wanted: tuple[str, ...], why: str) -> None:  # noqa: F811
    done = run(copy, "make", "own", *wanted)
    assert done.returncode != 0 and why in done.stderr and changes(copy) == set(), done.stdout + done.stderr


def test_a_tree_with_changes_is_refused(copy: Path) -> None:  # noqa: F811
    (copy / "README.md").write_text("mine")
    done = run(copy, "make", "own", "NAME=shipping")
    assert done.returncode != 0 and "README.md" in done.stderr and changes(copy) == {" M README.md"}, done.stderr


@in_ci
def test_any_example_can_be_kept(copy: Path) -> None:  # noqa: F811
    for example in own.examples():
        told = passes(copy, "make", "own", "NAME=shipping", f"KEEP={example}")
        assert f"{example};" in told and "example" not in (copy / "functions" / example / "Cargo.toml").read_text()
        undo(copy)


@in_ci
def test_a_teams_repository_passes_its_tests(copy: Path) -> None:  # noqa: F811
    before = git(copy, "rev-parse", "HEAD")
    told = passes(copy, "make", "own", "NAME=shipping")
    assert len(told.strip().splitlines()) <= 10 and changes(copy) == set()
    assert git(copy, "rev-parse", "HEAD~1") == before
    assert "is a team's own already" in run(copy, "make", "own", "NAME=shipping").stderr
    # Nothing of the examples is left, nor the names that this repository has for itself.
    for example in own.examples():
        left = run(copy, "git", "grep", "-E", rf"(functions|events)/{example}\b|\b{example}(Function|Role|Logs)\b").stdout
        assert left == "", left
    theirs = [file for file in git(copy, "ls-files").splitlines() if ownership.owned(copy, file) == "theirs"]
    assert [name for name in ("rust-lambda", "HttpFunctions") if any(name in (copy / file).read_text() for file in theirs)] == []

    passes(copy, "make", "new", "NAME=parcels", "METHODS=GET,POST")
    passes(copy, "make", "check")
    git(copy, "add", "--all")
    # What a team owns is little.
    theirs = [file for file in git(copy, "ls-files").splitlines() if ownership.owned(copy, file) == "theirs"]
    lines = sum(len((copy / file).read_text().splitlines()) for file in theirs if file != "Cargo.lock")
    assert len(theirs) <= 40 and lines <= 1500, (len(theirs), lines)
    # `make new` changed only what is theirs.
    changed = git(copy, "diff", "--cached", "--name-only").splitlines()
    assert [file for file in changed if ownership.owned(copy, file) != "theirs"] == []
    git(copy, "commit", "--quiet", "--message=Add parcels")

    replayed = passes(copy, "cargo", "test", "--bin=parcels")
    assert "answers_its_events ... ok" in replayed
    passes(copy, "cargo", "test", "--test=packaging", "links")
    pytest = (sys.executable, "-m", "pytest", "-q", "-rA")
    passes(copy, *pytest, *TESTS, "-k", WITHOUT_API)
    passes(copy, *pytest, "testbed/deploy/test_readme.py", "-k", "not prints and not watched and not deployed")
    served = passes(copy, *pytest, "testbed/deploy/test_contract.py", "-k", "local")
    assert "test_answers_are_as_described[POST /parcels][local]" in served


nightly = pytest.mark.skipif("SERVICES" not in os.environ, reason="runs the whole of `make test` in a copy: run by `make services`")


@nightly
def test_make_test_passes_with_the_services(copy: Path) -> None:  # noqa: F811
    make_services(copy)
    assert [change for change in changes(copy) if "testbed/" in change or "Makefile" in change] == []
    passes(copy, "make", "test")


@nightly
def test_make_test_passes_in_a_teams_repository(copy: Path) -> None:  # noqa: F811
    passes(copy, "make", "own", "NAME=shop")
    passes(copy, "make", "new", "NAME=bookings", "TABLE=bookings")
    passes(copy, "make", "test")

"""Every file has one owner, which testbed/ownership names: a team, or this repository."""

import subprocess

import pytest
from harness import OWNED, ROOT
from ownership import matches, owner, patterns

TEXT = (ROOT / "testbed/ownership").read_text()
FILES = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
# The hooks of a team are files that need not be there.
HOOKS = {".github/CODEOWNERS", "audit.toml", "own.mk", "tests/"}


def test_every_file_has_one_owner() -> None:
    # What nobody knows is a team's.
    assert OWNED or [file for file in FILES if not owner(TEXT, file)] == []
    found = patterns(TEXT)
    assert len(found) == len(dict(found)) == len([line for line in TEXT.splitlines() if line and not line.startswith("#")])


def test_every_pattern_is_for_something() -> None:
    unused = {pattern for pattern, _ in patterns(TEXT) if not any(matches(pattern, file) for file in FILES)}
    assert OWNED or unused <= HOOKS


@pytest.mark.skipif(OWNED, reason="a team may have crates of its own")
def test_crates_are_ours_and_endpoints_are_theirs() -> None:
    crates = [folder.name for folder in (ROOT / "functions").iterdir() if not (ROOT / "events" / folder.name).exists()]
    assert [name for name in crates if owner(TEXT, f"functions/{name}/src/lib.rs") != "ours"] == []
    assert owner(TEXT, "functions/orders/src/main.rs") == owner(TEXT, "events/orders/plain.answer.json") == "theirs"

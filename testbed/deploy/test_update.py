"""`make update` brings what is new to a team's repository, without a conflict in what is the team's."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT
from test_new import changes, copy, edit, passes, run  # noqa: F401
from test_own import committer, git  # noqa: F401

# The first commit that can be updated, in a clone with its history.
FIRST = subprocess.run(
    ["git", "log", "--diff-filter=A", "--format=%H", "--", "testbed/update.py"], cwd=ROOT, text=True, capture_output=True, check=True
).stdout.split()


@pytest.fixture
def newer(copy: Path, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    """A clone of the copy, where the next version is written. Afterwards, the copy is as it was."""
    branch = git(copy, "rev-parse", "--abbrev-ref", "HEAD").strip()
    subprocess.run(["git", "clone", "--quiet", copy, tmp_path / "newer"], check=True)
    yield tmp_path / "newer"
    git(copy, "reset", "--quiet", "--hard")
    git(copy, "clean", "--quiet", "--force", "-d")
    git(copy, "checkout", "--quiet", branch)


def commit(repository: Path) -> None:
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message=edited"], cwd=repository, check=True)


def make_a_teams(copy: Path) -> None:  # noqa: F811
    """What a team does: endpoints of its own, and edits of what is its own."""
    passes(copy, "make", "own", "NAME=shipping")
    passes(copy, "make", "new", "NAME=parcels", "METHODS=GET,POST")
    passes(copy, "make", "new", "NAME=rates", "UPSTREAMS=prices")
    passes(copy, "make", "new", "NAME=labels", "ROUTE=/labels/{name+}")
    passes(copy, "make", "rename", "NAME=labels", "TO=stickers")
    edit(copy, "template.yaml", (r"      CodeUri: functions/parcels\n", r"\g<0>      MemorySize: 256\n"))
    edit(copy, "samconfig.toml", ("us-east-1", "eu-north-1"))
    for file, text in {
        "README.md": "# Ours\n", "own.mk": "PORT = 9100\n", "audit.toml": "# No exceptions.\n",
        "functions/parcels/src/main.rs": "//! Ours.\n" + (copy / "functions/parcels/src/main.rs").read_text(),
    }.items():
        (copy / file).write_text(text)
    commit(copy)


def test_what_is_ours_is_replaced_and_what_is_theirs_stays(copy: Path, newer: Path) -> None:  # noqa: F811
    git(copy, "checkout", "--quiet", "-B", "team")
    make_a_teams(copy)
    theirs = {file: (copy / file).read_text() for file in ("README.md", "template.yaml", "openapi.yaml", "functions/parcels/src/main.rs")}
    update = ("make", "update", f"UPDATE_FROM={newer}")
    assert "nothing new" in passes(copy, *update)

    # The next version.
    edit(newer, "docs/axum.md", (r"\A# .*", "# Routers"))
    edit(newer, "README.md", (r"\A# .*", "# Ours is not theirs"))
    edit(newer, "Cargo.toml", (r"\n\[workspace.lints.rust\]", "\n# New.\\g<0>"), (r'\Z', '"/new" = "time"\n'))
    edit(newer, "CHANGELOG.md", (r"### Added\n", "\\g<0>\n- Something for teams.\n"))
    (newer / ".editorconfig").unlink()
    (newer / "docs/new.md").write_text("# New\n")
    (newer / "testbed/migrations/0001-tag-stacks.py").write_text(
        '"""Tags stacks with the team."""\n\n\ndef migrate(root):\n    file = root / "samconfig.toml"\n'
        '    file.write_text(file.read_text().replace("stage=dev\\"", "stage=dev\\", \\"team=us\\""))\n'
    )
    commit(newer)
    # What only the team changed of ours is kept, and told.
    edit(copy, "docs/observability.md", (r"\A# .*", "# Edited by the team"))
    commit(copy)
    before = git(copy, "rev-parse", "HEAD")
    told = passes(copy, *update)
    assert "Something for teams." in told and "0001-tag-stacks: Tags stacks with the team." in told
    assert "kept       docs/observability.md" in told
    assert git(copy, "rev-parse", "HEAD~1") == before and changes(copy) == set()
    assert {file: (copy / file).read_text() for file in theirs} == theirs
    assert (copy / "docs/axum.md").read_text().startswith("# Routers\n") and (copy / "docs/new.md").exists()
    assert not (copy / ".editorconfig").exists() and not (copy / "testbed/services/test_services.py").exists()
    assert '"team=us"' in (copy / "samconfig.toml").read_text()
    routes = (copy / "Cargo.toml").read_text()
    assert "# New." in routes and '"/parcels" = "parcels"' in routes and '"/new"' not in routes
    assert json.loads((copy / "testbed/version.json").read_text())["commit"] == git(newer, "rev-parse", "HEAD").strip()
    assert "nothing new" in passes(copy, *update)

    # What both changed is a conflict, which is found before anything is written.
    for repository, text in ((newer, "theirs"), (copy, "ours")):
        edit(repository, "docs/axum.md", (r"\A# .*", f"# {text}"))
        commit(repository)
    done = run(copy, *update)
    assert done.returncode != 0 and re.search(r"^  docs/axum.md$", done.stderr, re.MULTILINE), done.stdout + done.stderr
    assert changes(copy) == set()


@pytest.mark.skipif(not FIRST, reason="this clone has no history")
def test_the_first_repository_that_can_be_updated_gets_the_newest(copy: Path, newer: Path) -> None:  # noqa: F811
    git(copy, "fetch", "--quiet", str(ROOT), "HEAD")
    git(copy, "checkout", "--quiet", "-B", "old-team", FIRST[-1])
    make_a_teams(copy)
    passes(copy, "make", "update", f"UPDATE_FROM={newer}")
    assert changes(copy) == set()
    replayed = passes(copy, "cargo", "test", "--bin=parcels", "--bin=rates", "--bin=stickers")
    assert replayed.count("answers_its_events ... ok") == 3

"""`make update` brings what is new to a team's repository, without a conflict in what is the team's."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, in_ci
from ownership import owned
from test_new import changes, commit, copied, copy, edit, git, passes, run  # noqa: F401
from test_own import WITHOUT_API

SHALLOW = git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true"
# The first commit that can be updated. In a shallow clone, it would be the first that is there.
FIRST = git(ROOT, "log", "--diff-filter=A", "--format=%H", "--", "testbed/update.py").split()[-1:]
# What a team writes into files of its own.
ALARM = """  ParcelsBusy:
    Type: AWS::CloudWatch::Alarm
    Properties: { Namespace: AWS/Lambda, MetricName: Invocations, Dimensions: [{ Name: FunctionName, Value: !Ref parcelsFunction }] }

"""
WEIGHED = """
/// In grams.
#[expect(dead_code, reason = "soon")]
const HEAVIEST: fn() -> u32 = measures::weight;
"""
WRITTEN = {
    "README.md": "# Ours\n",
    "audit.toml": '[[licenses.exceptions]]\ncrate = "made-crate"\nallow = ["MPL-2.0"]\n',
    "infra/notes.md": "# Notes\n",
    "own.mk": "PORT = 9100\n",
    "tests/test_rules.py": 'from harness import ROOT\n\n\ndef test_notes_are_there():\n    assert (ROOT / "infra/notes.md").exists()\n',
    "functions/measures/Cargo.toml": """[package]
name = "measures"
edition.workspace = true
publish = false

[dependencies]
fastrand = "2"

[lints]
workspace = true
""",
    "functions/measures/src/lib.rs": "//! What parcels and rates share.\n\n/// The weight of a parcel, in grams.\n#[must_use]\npub fn weight() -> u32 {\n    fastrand::u32(1..1000)\n}\n",
}


@pytest.fixture
def newer(copy: Path, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    """A clone of the copy, where the next version is written. Afterwards, the copy is on its own branch again."""
    branch = git(copy, "rev-parse", "--abbrev-ref", "HEAD").strip()
    subprocess.run(["git", "clone", "--quiet", copy, tmp_path / "newer"], check=True)
    yield tmp_path / "newer"
    git(copy, "checkout", "--quiet", "--force", branch)


def make_a_teams(copy: Path) -> None:  # noqa: F811
    """What a team does: endpoints of its own, and edits of what is its own."""
    passes(copy, "make", "own", "NAME=shipping")
    passes(copy, "make", "new", "NAME=parcels", "METHODS=GET,POST")
    passes(copy, "make", "new", "NAME=rates", "UPSTREAMS=prices")
    passes(copy, "make", "new", "NAME=labels", "ROUTE=/labels/{name+}")
    passes(copy, "make", "rename", "NAME=labels", "TO=stickers")
    edit(copy, "template.yaml", (r"      CodeUri: functions/parcels\n", r"\g<0>      MemorySize: 256\n"),
         (r"(?=  # The resources that every function has\.\n)", ALARM))
    edit(copy, "samconfig.toml", ("us-east-1", "eu-north-1"))
    edit(copy, "functions/parcels/Cargo.toml", (r"\[dependencies\]\n", '\\g<0>measures = { path = "../measures" }\n'))
    edit(copy, "functions/parcels/src/main.rs", (r"\A//! ", "//! Ours, of a weight. "), (r"\n#\[cfg\(test", rf"{WEIGHED}\g<0>"))
    edit(copy, ".cargo/config.toml", (r"\Z", "\n[profile.dev.package.measures]\nopt-level = 1\n"))
    for file, text in WRITTEN.items():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_text(text)
    shutil.copy(next((ROOT / "functions").glob("*/budget.json")), copy / "functions/parcels")
    passes(copy, "cargo", "update", "--workspace", "--offline", "--quiet")
    commit(copy)


def teams(copy: Path) -> dict[str, str]:  # noqa: F811
    """The files of the team."""
    listed = git(copy, "ls-files").splitlines()
    return {file: (copy / file).read_text() for file in listed if owned(copy, file) in ("theirs", None) and file != "Cargo.lock"}


@in_ci
def test_what_is_ours_is_replaced_and_what_is_theirs_stays(copy: Path, newer: Path) -> None:  # noqa: F811
    git(copy, "checkout", "--quiet", "-B", "team")
    make_a_teams(copy)
    theirs = teams(copy)
    update = ("make", "update", f"UPDATE_FROM={newer}")
    assert "nothing new" in passes(copy, *update)

    # The next version.
    edit(newer, "docs/axum.md", (r"\A# .*", "# Routers"))
    edit(newer, "README.md", (r"\A# .*", "# Ours is not theirs"))
    edit(newer, "Cargo.toml", (r"\n\[workspace.lints.rust\]", "\n# New.\\g<0>"))
    edit(newer, "CargoLambda.toml", (r"\Z", '"/new" = "time"\n'))
    # The newer code updates.
    edit(newer, "testbed/update.py", ("What is new, from its changelog", "What the newer version says"))
    edit(newer, "CHANGELOG.md", (r"### Added\n", "\\g<0>\n- Something for teams.\n"))
    (newer / ".editorconfig").unlink()
    (newer / "docs/new.md").write_text("# New\n")
    (newer / "testbed/migrations/9999-tag-stacks.py").write_text(
        '"""Tags stacks with the team."""\n\n\ndef migrate(root):\n    file = root / "samconfig.toml"\n'
        '    file.write_text(file.read_text().replace("stage=dev\\"", "stage=dev\\", \\"team=us\\""))\n'
    )
    commit(newer)
    # What only the team changed of ours is kept, and told.
    edit(copy, "docs/observability.md", (r"\A# .*", "# Edited by the team"))
    commit(copy)
    before = git(copy, "rev-parse", "HEAD")
    told = passes(copy, *update)
    assert "What the newer version says" in told and "Something for teams." in told and "9999-tag-stacks: Tags stacks with the team." in told
    assert "kept       docs/observability.md" in told
    assert git(copy, "rev-parse", "HEAD~1") == before and changes(copy) == set()
    assert teams(copy).items() ^ theirs.items() == {("samconfig.toml", text["samconfig.toml"]) for text in (teams(copy), theirs)}
    assert (copy / "docs/axum.md").read_text().startswith("# Routers\n") and (copy / "docs/new.md").exists()
    assert not (copy / ".editorconfig").exists() and not (copy / "testbed/deploy/test_own.py").exists()
    assert '"team=us"' in (copy / "samconfig.toml").read_text()
    assert (copy / "Cargo.toml").read_text() == (newer / "Cargo.toml").read_text()
    assert '"/new"' not in (copy / "CargoLambda.toml").read_text()
    assert json.loads((copy / "testbed/version.json").read_text())["commit"] == git(newer, "rev-parse", "HEAD").strip()
    assert "nothing new" in passes(copy, *update)

    # What both changed is a conflict, which is found before anything is written.
    for repository, text in ((newer, "theirs"), (copy, "ours")):
        edit(repository, "docs/axum.md", (r"\A# .*", f"# {text}"))
        commit(repository)
    done = run(copy, *update)
    assert done.returncode != 0 and re.search(r"^  docs/axum.md$", done.stderr, re.MULTILINE), done.stdout + done.stderr
    assert changes(copy) == set()


@in_ci
@pytest.mark.skipif(SHALLOW or not FIRST, reason="this clone has no history: `git fetch --unshallow`")
def test_the_first_repository_that_can_be_updated_gets_the_newest(copy: Path, newer: Path) -> None:  # noqa: F811
    git(copy, "fetch", "--quiet", str(ROOT), "HEAD")
    git(copy, "checkout", "--quiet", "-B", "old-team", FIRST[0])
    make_a_teams(copy)
    before = teams(copy)
    passes(copy, "make", "update", f"UPDATE_FROM={newer}")
    assert changes(copy) == set()
    # Nothing of theirs has changed but for what a migration wrote. A crate that has come since was nobody's before.
    after = teams(copy)
    assert [file for file in before if not (copy / file).exists()] == []
    assert {file for file, text in after.items() if before.get(file) != text} == {"CargoLambda.toml", "openapi.yaml", "template.yaml"}
    assert re.findall(r"^\+(?!\+\+).*", git(copy, "diff", "HEAD~1", "openapi.yaml"), re.MULTILINE) == []
    assert re.findall('"(.*)" = ', after["CargoLambda.toml"]) == ["/docs", "/docs/{file}", "/parcels", "/rates", "/stickers/{*name}"]
    assert (copy / "Cargo.toml").read_text() == (newer / "Cargo.toml").read_text()

    passes(copy, "make", "audit", "--old-file=.venv/deploy")
    gates = [f"testbed/deploy/test_{name}.py" for name in ("contract", "repository", "template")]
    slow = "not (cfn_lint or policy_scan)"
    passes(copy, sys.executable, "-m", "pytest", "-q", *gates, "tests", "-k", f"{WITHOUT_API} and {slow}")
    replayed = passes(copy, "cargo", "test", "--bin=parcels", "--bin=rates", "--bin=stickers")
    assert replayed.count("answers_its_events ... ok") == 3
    # What it has now writes and removes endpoints.
    passes(copy, "make", "new", "NAME=letters", "METHODS=GET,POST")
    passes(copy, "make", "remove", "NAME=letters")
    assert changes(copy) == set()


def migrate(name: str, root: Path) -> None:
    runpy.run_path(str(ROOT / f"testbed/migrations/{name}.py"))["migrate"](root)


# As it was, and as the update.py that came with it leaves it: with the newer part of ours, and no line between the parts.
@pytest.mark.parametrize("between", ["\n", ""])
@pytest.mark.parametrize("below", ["", "\n[workspace.metadata.theirs]\nkey = 1\n"])
def test_routes_move_to_a_file_of_the_teams(tmp_path: Path, between: str, below: str) -> None:
    ours = "[profile.bench]\nopt-level = 3\n"
    head = "# The routes of `make run`, the same as template.yaml's.\n[workspace.metadata.lambda.watch.router]\n"
    (tmp_path / "Cargo.toml").write_text(ours + between + head + '"/orders/{id}" = "orders"\n' + below)
    for _ in range(2):
        migrate("0001-move-routes", tmp_path)
        assert (tmp_path / "Cargo.toml").read_text() == ours + below
        assert (tmp_path / "CargoLambda.toml").read_text().endswith('\n[watch.router]\n"/orders/{id}" = "orders"\n')


def test_empty_groups_of_the_contract_are_dropped(tmp_path: Path) -> None:
    head, schemas = "paths:\n  /orders:\n\ncomponents:\n", "  schemas:\n    Order:\n      type: object\n"
    (tmp_path / "openapi.yaml").write_text(f"{head}  parameters:\n\n{schemas}\n  headers:\n")
    for _ in range(2):
        migrate("0002-drop-empty-groups", tmp_path)
        assert (tmp_path / "openapi.yaml").read_text().rstrip("\n") == (head + schemas).rstrip("\n")


def test_pages_may_use_all_headers_of_the_api(tmp_path: Path) -> None:
    lists = "AllowMethods: [GET, HEAD]\n{0}AllowHeaders: [accept, authorization]\n{0}ExposeHeaders: [x-request-id]\n"
    api, function_url = (" " * indent + lists.format(" " * indent) for indent in (10, 12))
    (tmp_path / "template.yaml").write_text(api + function_url)
    for _ in range(2):
        migrate("0003-allow-pages-all-headers", tmp_path)
        assert (tmp_path / "template.yaml").read_text() == re.sub(": .*", ': ["*"]', api).replace('Headers: ["*"]', 'Headers: [authorization, "*"]', 1) + function_url

"""What is neither code nor template: the Makefile, testbed/ownership, and .github, without running it.

The Makefile uses only what macOS has: GNU make 3.81, a POSIX shell, and BSD tools. The oldest make that can be installed here is
4.3, so this looks for features that GNU make's NEWS lists as newer than 3.81. On Debian, all other tests run the recipes in dash,
which has little more than POSIX.
"""

import copy
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from groups import features, grouped
from harness import OWNED, ROOT, run
from ownership import matches, owner, patterns

MAKEFILE = (ROOT / "Makefile").read_text()

LATER = {
    "a function of make 4": r"\$[({](file|guile|intcmp|let) ",
    "an assignment of make 4": r"^[\w.]+ *(:::?=|!=|\+:=)",
    "a directive of make 3.82": r"^(undefine|private|load|define \S+ *[:?+]?=)",
    "a special target of make 3.82 or 4": r"^\.(ONESHELL|RECIPEPREFIX|EXTRA_PREREQS|NOTINTERMEDIATE|WAIT)\b",
    "a variable of make 3.82 or 4": r"\.SHELLFLAGS|\.SHELLSTATUS|MAKE_TERM",
    "grouped targets of make 4.3": r"^[^\t#].* &:",
    "an option of make 4": r"make.* (-O|--output-sync|--trace|--shuffle|--eval)",
    "a shell that is not POSIX": r"\[\[|<\(|\$'|\bsource |&>|\{\w+\.\.\w+\}",
    "an option of GNU's tools": r"\b(sed -[ir]|grep -P|readlink -f|xargs -r|stat -c|date -d|sort -V|cp -t|find .* -printf)",
    "a tool that macOS lacks": r"\b(sha256sum|timeout|realpath|nproc|tac|setsid)\b",
}


def found(text: str) -> list[str]:
    code = re.sub(r"^\s*@?#.*", "", text, flags=re.MULTILINE)
    return [what for what, pattern in LATER.items() if re.search(pattern, code, re.MULTILINE)]


def test_it_uses_nothing_that_macos_lacks() -> None:
    assert found(MAKEFILE) == []


BAD = ["X := $(file < list)", "X != date", "define x =", ".ONESHELL:", ".SHELLFLAGS = -e", "one two &: three"]
BAD += ["\t$(MAKE) make --output-sync", "\t[[ -e list ]]", "\tsed -i s/a/b/ list", "\tsha256sum list"]


@pytest.mark.parametrize("line", BAD)
def test_features_that_macos_lacks_are_found(line: str) -> None:
    assert len(found(MAKEFILE + line + "\n")) == 1


def test_its_recipes_are_posix_shell() -> None:
    make = ["make", "--dry-run", "--always-make", "run", "build", "deploy"]
    recipes = run(*make).stdout
    assert "cargo lambda watch" in recipes and "sam deploy" in recipes
    for shell in (["sh", "-n"], ["bash", "--posix", "-n"]):
        subprocess.run(shell, input=recipes, check=True, text=True)


# `make build` builds together what shares dependencies, and no function gets a feature that only another one asks for.
TARGET = "x86_64-unknown-linux-gnu"


@cache
def groups() -> list[list[str]]:
    functions = [path.name for path in (ROOT / "events").iterdir()]
    lines = run(sys.executable, "testbed/groups.py", TARGET, *functions).stdout.splitlines()
    return [[argument.removeprefix("--package=") for argument in line.split()] for line in lines]


def test_each_function_is_built_once_and_with_its_own_features() -> None:
    all_groups = groups()
    packages = [package for group in all_groups for package in group]
    assert len(packages) == len(set(packages)) == len(list((ROOT / "events").iterdir()))
    for group in all_groups:
        together = features(group, TARGET)
        for package in group:
            alone = features([package], TARGET)
            assert alone == {crate: together[crate] for crate in alone}


@pytest.mark.skipif(OWNED, reason="a team's tests may need more of a crate")
def test_make_run_compiles_nothing_that_the_tests_have_compiled() -> None:
    """testbed/Cargo.toml asks for the features that only tests need."""
    functions = [package for group in groups() for package in group]
    run, test = (features(["*"], TARGET, kinds) for kinds in ("normal", "normal,dev"))
    linked = features(functions, TARGET)
    assert {crate: run[crate] for crate in linked} == {crate: test[crate] for crate in linked}


def test_functions_with_different_features_of_a_crate_are_built_apart() -> None:
    plain, small, large = {"a": "", "b": "std"}, {"a": "", "c": ""}, {"a": "", "b": "full", "c": "", "d": ""}
    assert grouped({"plain": plain, "small": small, "large": large}) == [["large", "small"], ["plain"]]


def test_a_folder_of_events_without_a_function_is_an_error_that_says_so() -> None:
    done = run(sys.executable, "testbed/groups.py", TARGET, "helo")
    assert done.returncode != 0 and "events/ has a folder for helo" in done.stderr


# Every file has one owner, which testbed/ownership names: a team, or this repository.
TEXT = (ROOT / "testbed/ownership").read_text()
FILES = run("git", "ls-files").stdout.splitlines()
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


# The workflows: their schemas, their security, and that the targets they name exist.
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
TOLD = "".join(page.read_text() for page in [*(ROOT / "docs").glob("*.md"), *(ROOT / ".github").glob("*.md"), ROOT / "README.md"])

Change = Callable[[dict], object]


def jobs(workflows: dict) -> Iterator[tuple[str, dict]]:
    for name, workflow in workflows.items():
        for job in workflow["jobs"].values():
            yield name, job


def scripts(workflows: dict) -> Iterator[tuple[str, str, dict]]:
    """Yields each line of shell with its workflow and job."""
    for name, job in jobs(workflows):
        for step in job.get("steps", []):
            for line in step.get("run", "").splitlines():
                yield name, line, job


def targets_are_there_and_told(workflows: dict) -> list[str]:
    wrong = []
    for name, line, job in scripts(workflows):
        named = re.findall(r"\bmake (?:--[a-z-]+ )*\"?([a-z]+|\$TARGET)", line)
        if "$TARGET" in named:
            named = job["strategy"]["matrix"]["target"]
        wrong += [f"{name}: there is no target {target}" for target in named if target not in TARGETS]
        wrong += [f"{name}: no page mentions `make {target}`" for target in named if f"make {target}" not in TOLD]
    return wrong


def jobs_are_bounded(workflows: dict) -> list[str]:
    unbounded = [name for name, job in jobs(workflows) if "timeout-minutes" not in job and "uses" not in job]
    wrong = [f"{name}: a job without timeout-minutes" for name in unbounded]
    wrong += [f"{name}: a job without permissions" for name, job in jobs(workflows) if "permissions" not in job]
    return wrong + [f"{name}: permissions for all jobs" for name, workflow in workflows.items() if workflow["permissions"]]


def only_what_was_tested_goes_out(workflows: dict) -> list[str]:
    """What may write, or act in an account, needs the tests of the same commit, all of them, and no matter what."""
    wrong = []
    for name, workflow in workflows.items():
        for job_name, job in workflow["jobs"].items():
            if not {"id-token", "contents"} & {scope for scope, access in job["permissions"].items() if access == "write"}:
                continue
            needed, reached = [job_name], set()
            while needed:
                reached.add(of := needed.pop())
                needs = workflow["jobs"][of].get("needs", [])
                needed += [needs] if isinstance(needs, str) else needs
            if not any(workflow["jobs"][of].get("uses") == "$/.github/workflows/ci.yml" for of in reached):
                wrong.append(f"{name}: {job_name} does not wait for the tests")
            wrong += [f"{name}: {of} has a condition" for of in reached if "if" in workflow["jobs"][of]]
    return wrong


PROOFS: dict[Callable[[dict], list[str]], Change] = {
    targets_are_there_and_told: lambda w: w["ci.yml"]["jobs"]["test"]["steps"].append({"run": "make tset"}),
    jobs_are_bounded: lambda w: w["nightly.yml"]["jobs"]["run"].pop("timeout-minutes"),
    only_what_was_tested_goes_out: lambda w: w["deploy.yml"]["jobs"]["deploy"].pop("needs"),
}


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_workflows_hold(proof: Callable[[dict], list[str]]) -> None:
    assert proof(WORKFLOWS) == []
    changed = copy.deepcopy(WORKFLOWS)
    PROOFS[proof](changed)
    assert proof(changed) != []


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    def audited(folder: str) -> subprocess.CompletedProcess[str]:
        return run("zizmor", "--offline", "--no-progress", "--strict-collection", folder)

    done = audited(".github")
    assert done.returncode == 0, done.stdout + done.stderr
    bad = re.sub(r"checkout@\w+", "checkout@v6", (ROOT / ".github/workflows/ci.yml").read_text())
    (tmp_path / "ci.yml").write_text(bad.replace("run: ", "run: echo ${{ github.head_ref }}; ", 1))
    found = audited(str(tmp_path / "ci.yml")).stdout
    assert "unpinned-uses" in found and "template-injection" in found


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [("github-workflows", "workflows/*.yml"), ("dependabot", "dependabot.yml"), ("github-issue-forms", "ISSUE_TEMPLATE/*.yml")],
)
def test_files_match_their_schema(tmp_path: Path, schema: str, pattern: str) -> None:
    files = sorted((ROOT / ".github").glob(pattern))
    check = ["check-jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = run(*check, *files)
    assert files and done.returncode == 0, done.stdout
    (tmp_path / "other.yml").write_text(files[0].read_text() + "\nunheard-of: true\n")
    assert run(*check, str(tmp_path / "other.yml")).returncode != 0


def test_each_action_says_its_version() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: ([^$].*)", path.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used

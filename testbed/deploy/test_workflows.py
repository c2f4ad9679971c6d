"""Checks .github without running it: its schemas, its security, and that the targets it names exist."""

import copy
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from harness import ROOT, environment

WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
MAKEFILE = (ROOT / "Makefile").read_text()
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


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)


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
    done = run(*check, *map(str, files))
    assert files and done.returncode == 0, done.stdout
    (tmp_path / "other.yml").write_text(files[0].read_text() + "\nunheard-of: true\n")
    assert run(*check, str(tmp_path / "other.yml")).returncode != 0


def test_each_action_says_its_version() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: ([^$].*)", path.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used

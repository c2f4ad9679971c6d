"""`make build` builds together what shares dependencies, and no function gets a feature that only another one asks for."""

import subprocess
import sys

from harness import ROOT

sys.path.append(str(ROOT / "testbed"))
from groups import features, grouped  # noqa: E402

TARGET = "x86_64-unknown-linux-gnu"


def groups() -> list[list[str]]:
    functions = [path.name for path in (ROOT / "events").iterdir()]
    command = [sys.executable, "testbed/groups.py", TARGET, *functions]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
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


def test_functions_with_different_features_of_a_crate_are_built_apart() -> None:
    plain, small, large = {"a": "", "b": "std"}, {"a": "", "c": ""}, {"a": "", "b": "full", "c": "", "d": ""}
    assert grouped({"plain": plain, "small": small, "large": large}) == [["large", "small"], ["plain"]]


def test_a_folder_of_events_without_a_function_is_an_error_that_says_so() -> None:
    command = [sys.executable, "testbed/groups.py", TARGET, "helo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "events/ has a folder for helo" in done.stderr

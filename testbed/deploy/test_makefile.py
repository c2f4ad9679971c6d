"""The Makefile uses only what macOS has: GNU make 3.81, a POSIX shell, and BSD tools.

The oldest make that can be installed here is 4.3, so this looks for features that GNU make's NEWS lists as newer than
3.81. On Debian, all other tests run the recipes in dash, which has little more than POSIX.
"""

import re
import subprocess
import sys

import pytest
from harness import ROOT, environment

sys.path.append(str(ROOT / "testbed"))
from groups import features, grouped  # noqa: E402

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
    recipes = subprocess.run(make, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True).stdout
    assert "cargo lambda watch" in recipes and "sam deploy" in recipes
    for shell in (["sh", "-n"], ["bash", "--posix", "-n"]):
        subprocess.run(shell, input=recipes, check=True, text=True)


# `make build` builds together what shares dependencies, and no function gets a feature that only another one asks for.
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

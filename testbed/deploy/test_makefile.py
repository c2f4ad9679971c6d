"""The Makefile uses only what macOS has: GNU make 3.81, a POSIX shell, and BSD tools.

The oldest make that can be installed here is 4.3, so this looks for features that GNU make's NEWS lists as newer than
3.81. On Debian, all other tests run the recipes in dash, which has little more than POSIX.
"""

import re
import subprocess

import pytest
from harness import ROOT, environment

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

"""`make test`: runs a command, unless it has passed with the same inputs before.

    unchanged.py FUNCTIONS COMMAND [ARGUMENT...]

FUNCTIONS are the endpoints that the command tests, with spaces between them; `*` is all. `each` is for tests that take the
endpoints one by one: TESTED_ENDPOINTS in the environment names those whose inputs have changed, and the command tests these,
and what belongs to no single endpoint.

`unchanged.py cargo` is for Cargo, as a runner of test executables: those in functions/NAME use no endpoint but NAME, unless
[package.metadata] in NAME's Cargo.toml lists them: `each-endpoint`, as above, `uses-endpoints`, all together, or `uses-cases`,
only what all have in events/. One that uses another endpoint fails.

The inputs are the contents and names of all files of this repository, tracked or not, but of the other endpoints' folders
in functions/ and events/ only their Cargo.toml; FUNCTIONS' zips; the command itself, if it is in target/; the compiler's
version; variables and tools that tests look for. What has passed is noted in target/passed. In CI, everything runs.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENDPOINTS = {folder.name for folder in (ROOT / "events").iterdir()}
TOOLS = ["chromium", "valgrind"]
# Beginnings of the names of variables that change what tests do.
VARIABLES = ("ARCHITECTURE", "CHROMIUM", "PROPTEST_", "RUST")


@cache
def listed() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    return sorted({*subprocess.check_output(command, cwd=ROOT, text=True).split("\0")} - {""})


def inputs(code: set[str], cases: set[str] | None = None) -> list[Path]:
    """Those of tests that use the code of these endpoints, and these endpoints' cases: by default, of the same."""
    used = {"functions": code, "events": code if cases is None else cases}

    def is_input(file: str) -> bool:
        folder, _, rest = file.partition("/")
        name, _, within = rest.partition("/")
        return name in used.get(folder, ENDPOINTS) or name not in ENDPOINTS or within == "Cargo.toml"

    return [ROOT / file for file in [*filter(is_input, listed()), *(f"target/lambda/{name}/bootstrap.zip" for name in sorted(code))]]


@cache
def content(file: Path) -> str:
    return f"\n{file} {os.access(file, os.X_OK)} {hashlib.sha256(file.read_bytes()).hexdigest()}" if file.is_file() else ""


@cache
def machine() -> list[object]:
    return [
        sorted((name, value) for name, value in os.environ.items() if name.startswith(VARIABLES)),
        [shutil.which(tool) for tool in TOOLS],
        subprocess.check_output(["rustc", "--verbose", "--version"], text=True),
    ]


def key(files: Iterable[Path], command: list[str]) -> str:
    return hashlib.sha256("".join([repr((command, sorted(ENDPOINTS), machine())), *map(content, files)]).encode()).hexdigest()


@cache
def parsed(file: Path) -> dict:
    try:
        return tomllib.loads(file.read_text()) if file.exists() else {}
    except tomllib.TOMLDecodeError as error:
        sys.exit(f"{file.relative_to(ROOT)}: {error}")


def function_at(path: str, routes: dict[str, str] | None = None) -> str | None:
    """The endpoint that answers this path, which may have parameters in braces: by these routes, or those of CargoLambda.toml."""
    routes = parsed(ROOT / "CargoLambda.toml").get("watch", {}).get("router", {}) if routes is None else routes
    for route in sorted(routes, key=lambda route: "{" in route):
        pattern = re.sub(r"\\{(\\\*)?.*?\\}", lambda name: ".+" if name[1] else "[^/]+", re.escape(route))
        if re.fullmatch(pattern, path):
            return routes[route]
    return None


def resources(name: str) -> set[str]:
    """The tables and the like that this endpoint may use."""
    package = parsed(ROOT / "functions" / name / "Cargo.toml").get("package", {})
    permissions = package.get("metadata", {}).get("endpoint", {}).get("permissions", {})
    return {resource.partition("/")[0] for resource in permissions}


def called(name: str) -> set[str | None]:
    """The endpoints that this one calls under `make run`, which is the upstream of its settings unless there is an upstream.json."""
    folder = ROOT / "events" / name
    written = (folder / "settings.json").read_text() if (folder / "settings.json").exists() else ""
    return set() if (folder / "upstream.json").exists() else set(map(function_at, re.findall(r'"\{upstream\}([^"?]*)', written)))


def together(name: str) -> set[str]:
    """The endpoints that can change what this one answers while all of them run: those with the same tables, and those that it calls."""
    found = {name}
    while more := {other for other in ENDPOINTS - found for one in found if other in called(one) or resources(one) & resources(other)}:
        found |= more
    return found


def main(functions: str, *command: str) -> int:
    executable = Path(command[0]).absolute()
    own = [executable] if executable.is_relative_to(ROOT / "target") else []
    if functions == "cargo" and not own:  # rustdoc's, which is made anew for each run
        return subprocess.run(command).returncode
    lists: set[str] = set()
    if cargo := functions == "cargo":
        package = Path(os.environ["CARGO_MANIFEST_DIR"])
        metadata = parsed(package / "Cargo.toml")["package"].get("metadata", {})
        lists = {how for how in ("each-endpoint", "uses-cases", "uses-endpoints") if executable.name.rpartition("-")[0] in metadata.get(how, [])}
        functions = "*" if "uses-endpoints" in lists else "each" if "each-endpoint" in lists else package.name

    def note(code: set[str], cases: set[str] | None = None) -> Path:
        return ROOT / "target" / "passed" / key([*inputs(code, cases), *own], [functions, *command])

    if functions == "each":
        notes = {name: note({name} if cargo else together(name)) for name in sorted(ENDPOINTS)}
        # What belongs to several endpoints.
        notes |= {} if cargo else {"": note(ENDPOINTS)}
    else:
        tested = ENDPOINTS if functions == "*" else ENDPOINTS & set(functions.split())
        notes = {" ".join(sorted(tested)): note(tested, ENDPOINTS if "uses-cases" in lists else None)}
    changed = [names for names, passed in notes.items() if "CI" in os.environ or not passed.exists()]
    what = " ".join([executable.name, *command[1:]])
    if not changed:
        print(f"passed before, with the same inputs: {what}", flush=True)
        return 0
    names = " ".join(filter(None, changed))
    if cargo or functions == "each":  # testbed/replay/src/case.rs and testbed/deploy/harness.py read this
        os.environ["TESTED_ENDPOINTS"] = names
    if "uses-cases" in lists:
        os.environ["TESTED_CASES"] = " ".join(sorted(ENDPOINTS))
    if len(changed) < len(notes):
        print(f"only {names or 'what several endpoints do'}, as the rest passed before: {what}", flush=True)
    status = subprocess.run(command).returncode
    if status == 0:
        for passed in notes.values():
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.write_text(what)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

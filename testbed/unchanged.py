"""`make test`: runs a command, unless it has passed with the same inputs before.

    unchanged.py FUNCTIONS COMMAND [ARGUMENT...]

FUNCTIONS are the endpoints that the command tests, with spaces between them; `*` is all. `unchanged.py cargo` is for
Cargo, as a runner of test executables: those in functions/NAME use no endpoint but NAME, unless NAME's Cargo.toml lists
them, as testbed/Cargo.toml does, in `uses-endpoints`. One that uses another endpoint fails.

The inputs are the contents and names of all files of this repository, tracked or not, but of the other endpoints' folders
in functions/ and events/ only their Cargo.toml; FUNCTIONS' zips; the command itself, if it is in target/; the compiler's
version; variables and tools that tests look for. What has passed is noted in target/passed. In CI, everything runs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENDPOINTS = {folder.name for folder in (ROOT / "events").iterdir()}
TOOLS = ["chromium", "valgrind"]
# Beginnings of the names of variables that change what tests do.
VARIABLES = ("ARCHITECTURE", "CHROMIUM", "PROPTEST_", "RUST")


def inputs(tested: set[str]) -> Iterator[Path]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for file in sorted(set(subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"))):
        folder, _, rest = file.partition("/")
        name, _, within = rest.partition("/")
        others = folder in ("events", "functions") and name in ENDPOINTS - tested
        if file and (not others or within == "Cargo.toml"):
            yield ROOT / file
    for name in sorted(tested):
        yield ROOT / "target" / "lambda" / name / "bootstrap.zip"


def key(files: Iterable[Path], command: list[str]) -> str:
    machine = [
        sorted((name, value) for name, value in os.environ.items() if name.startswith(VARIABLES)),
        [shutil.which(tool) for tool in TOOLS],
        subprocess.check_output(["rustc", "--verbose", "--version"], text=True),
    ]
    digest = hashlib.sha256(repr((command, sorted(ENDPOINTS), machine)).encode())
    for file in files:
        if file.is_file():
            digest.update(f"\n{file} {os.access(file, os.X_OK)} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def main(functions: str, *command: str) -> int:
    executable = Path(command[0]).absolute()
    own = [executable] if executable.is_relative_to(ROOT / "target") else []
    if functions == "cargo" and not own:  # rustdoc's, which is made anew for each run
        return subprocess.run(command).returncode
    if cargo := functions == "cargo":
        package = Path(os.environ["CARGO_MANIFEST_DIR"])
        metadata = tomllib.loads((package / "Cargo.toml").read_text())["package"].get("metadata", {})
        uses_all = executable.name.rpartition("-")[0] in metadata.get("uses-endpoints", [])
        functions = "*" if uses_all else package.name
    tested = ENDPOINTS if functions == "*" else ENDPOINTS & set(functions.split())
    now = key([*inputs(tested), *own], [functions, *command])
    passed = ROOT / "target" / "passed" / now
    what = " ".join([executable.name, *command[1:]])
    if passed.exists() and "CI" not in os.environ:
        print(f"passed before, with the same inputs: {what}", flush=True)
        return 0
    if cargo:  # testbed/replay/src/case.rs reads this
        os.environ["TESTED_ENDPOINTS"] = " ".join(sorted(tested))
    status = subprocess.run(command).returncode
    if status == 0:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.write_text(what)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

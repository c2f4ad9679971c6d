"""What each further endpoint adds to a build and to the tests' compilation: `make growth`. It makes them in target/growth."""

import resource
import shutil
import subprocess
import time
from pathlib import Path

COPY = Path("target/growth")
STEPS = (0, 1, 4, 5)


def measured(*command: str) -> str:
    """Runs `command` in the copy. The processor time does not depend on what else runs on the machine."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=COPY, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{used:.0f} ({time.monotonic() - started:.0f})"


def main() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ".", COPY], check=True)
    (COPY / ".venv").symlink_to(Path(".venv").resolve())
    print("\nEndpoints: processor seconds (seconds by the clock)\n")
    print("| endpoints | `make build` | tests, compiled | `make build` after an edit of one | tests, compiled |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    total = len(list(COPY.glob("events/*")))
    for added in STEPS:
        for number in range(total, total + added):
            subprocess.run(["make", "new", f"NAME=endpoint-{number}"], cwd=COPY, check=True, capture_output=True)
        total += added
        cells = [measured("make", "build"), measured("cargo", "test", "--no-run")]
        edited = sorted(COPY.glob("functions/*/src/main.rs"))[-1]
        edited.write_text(edited.read_text() + f"\n// {total}\n")
        cells += [measured("make", "build"), measured("cargo", "test", "--no-run")]
        print(f"| {total} | {' | '.join(cells)} |", flush=True)
    shutil.rmtree(COPY)


main()

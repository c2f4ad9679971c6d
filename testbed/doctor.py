"""`make doctor`: lists the tools that this machine has and lacks, and how to install them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def said(*command: str) -> str:
    """Returns what a command prints, or "" if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""


def version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def rust() -> str:
    needed = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    found = said("cargo", "--version")
    return found if version(found) >= version(needed) else ""


def python() -> str:
    has_venv = said(sys.executable, "-c", "import ensurepip, venv; print('venv')")
    return f"Python {sys.version.split()[0]}" if sys.version_info >= (3, 11) and has_venv else ""


def static_libc() -> str:
    compiles = "echo 'int main(void) { return 0; }' | cc -static -x c -o /dev/null - && echo libc.a"
    return said("sh", "-c", compiles) if sys.platform.startswith("linux") else ""


def nightly() -> str:
    return next((line for line in said("rustup", "toolchain", "list").splitlines() if line.startswith("nightly")), "")


def credentials() -> str:
    names = [name for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN") if os.environ.get(name)]
    return ", ".join(names) or ("~/.aws" if (Path.home() / ".aws").is_dir() else "")


# Whether all needs it, the tool, how to find it, what needs it, and what to do if it is missing.
TOOLS: list[tuple[bool, str, Callable[[], str], str, str]] = [
    (True, "Rust", rust, "everything", "install it as https://rustup.rs says, or `rustup update`"),
    (True, "Python 3.11 with venv", python, "everything", "install python3 and its venv module (Debian: python3-venv)"),
    (True, "git", lambda: said("git", "--version"), "make test", "install git"),
    (False, "a static C library", static_libc, "functions that start sooner", "Debian: libc6-dev; Fedora: glibc-static; without it they link dynamically"),
    (False, "valgrind", lambda: said("valgrind", "--version"), "the counts of make test", "Debian: valgrind; without it, make test skips them and says so"),
    (False, "chromium", lambda: said(os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium", "--version"), "the test of /docs, make screenshot", "Debian: chromium, or CHROMIUM=…; without it, make test skips it and says so"),
    (False, "a nightly compiler", nightly, "make fuzz", "rustup toolchain install nightly"),
    (False, "AWS credentials", credentials, "make deploy, logs, destroy", "`aws sso login`, or AWS_PROFILE=…"),
]


def main() -> int:
    lacking = 0
    for needed, name, find, purpose, remedy in TOOLS:
        found = find().splitlines()[:1]
        mark = "has  " if found else "LACKS" if needed else "lacks"
        print(f"{mark}  {name:24} {found[0] if found else remedy}  (for {purpose})")
        lacking += needed and not found
    print("\n`make` installs cargo-lambda, zig, the SAM CLI and the emulator into .venv when it needs them.")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())

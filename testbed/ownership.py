"""Reads testbed/ownership."""

import re
from pathlib import Path

# What `make update` continues from: written by `make own` and by each update.
VERSION = "testbed/version.json"


def patterns(text: str) -> list[tuple[str, str]]:
    """Each pattern, with its owner."""
    return [(pattern, owner) for owner, pattern in re.findall(r"(?m)^(theirs|ours|original) +(\S+)$", text)]


def matches(pattern: str, file: str) -> bool:
    regex = re.escape(pattern).replace(r"\*", "[^/]+")
    return re.fullmatch(regex + ".*" if pattern.endswith("/") else regex, file) is not None


def owner(text: str, file: str) -> str | None:
    """Who owns `file`. None: nobody says."""
    found = sorted((len(pattern), owner) for pattern, owner in patterns(text) if matches(pattern, file))
    return found[-1][1] if found else None


def owned(root: Path, file: str) -> str | None:
    return owner((root / "testbed/ownership").read_text(), file)

"""The functions' settings for tests, as `make run` gives them to all functions: events/*/settings.json, one NAME=VALUE a line.

    settings.py UPSTREAM

What the environment sets already stays.
"""

import json
import os
import sys
from pathlib import Path

EVENTS = Path(__file__).resolve().parents[1] / "events"


def settings(events: Path, upstream: str) -> dict[str, str]:
    found: dict[str, tuple[str, Path]] = {}
    for file in sorted(events.glob("*/settings.json")):
        for name, value in json.loads(file.read_text()).items():
            value = value.replace("{upstream}", upstream.rstrip("/"))
            there, other = found.setdefault(name, (value, file))
            if there != value:
                sys.exit(f"{name} differs between {other} and {file}; `make run` has one environment: rename it in one of them.")
    return {name: value for name, (value, _) in found.items()}


if __name__ == "__main__":
    for name, value in settings(EVENTS, sys.argv[1]).items():
        if name not in os.environ:
            print(f"{name}={value}")

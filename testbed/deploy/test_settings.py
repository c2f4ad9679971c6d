"""`make run` starts each function with its own settings, and with the upstream that they name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from harness import ROOT, environment, wait_for


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Starts the function `orders`, which prints its settings and waits for the end of its input."""
    (tmp_path / "testbed").mkdir()
    shutil.copy(ROOT / "testbed/settings.py", tmp_path / "testbed")
    (tmp_path / "events/orders").mkdir(parents=True)
    (tmp_path / "events/orders/settings.json").write_text('{ "PRICES_URL": "{upstream}/prices", "CURRENCY": "EUR" }')
    (tmp_path / "orders").write_text("#!/bin/sh\necho $PRICES_URL $CURRENCY $1 $AWS_REGION $AWS_SESSION_TOKEN $AWS_OPERATION_TIMEOUT_MS\nread line\n")
    (tmp_path / "orders").chmod(0o755)
    return [sys.executable, str(tmp_path / "testbed/settings.py"), "http://api", str(tmp_path / "orders"), "argument"]


@pytest.mark.parametrize(("own", "told"), [({}, "EUR"), ({"CURRENCY": "SEK"}, "SEK")])
def test_a_function_has_its_settings_unless_the_environment_has_them(command: list[str], own: dict, told: str) -> None:
    done = subprocess.run(command, env=environment(**own), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stdout == f"http://api/prices {told} argument\n", done.stderr


def test_its_aws_is_the_local_one_whatever_the_environment_says(command: list[str]) -> None:
    local = {"orders": {"variables": {"PRICES_URL": "local", "CURRENCY": "local", "AWS_REGION": "here", "AWS_OPERATION_TIMEOUT_MS": "60000"}}, "other": {}}
    env = environment(LOCAL_ENDPOINTS=json.dumps(local), CURRENCY="SEK", AWS_REGION="there", AWS_OPERATION_TIMEOUT_MS="1", AWS_SESSION_TOKEN="real")
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stdout == "local SEK argument here 1\n", done.stderr


@pytest.mark.parametrize("written", ["{", "[]", '{ "LIMIT": 3 }'])
def test_invalid_settings_are_reported_by_the_function_and_before_make_run(command: list[str], tmp_path: Path, written: str) -> None:
    check = [*command[:2], "--check"]
    assert subprocess.run(check, env=environment()).returncode == 0
    (tmp_path / "events/orders/settings.json").write_text(written)
    for started in (command, check):
        done = subprocess.run(started, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode != 0 and done.stderr.startswith(f"{tmp_path}/events/orders/settings.json: "), done.stderr


def test_its_upstream_answers_as_long_as_it_runs(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "events/orders/upstream.json").write_text('{ "price": 3 }')
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        url = running.stdout.readline().split()[0]
        assert requests.get(url, timeout=30).json() == requests.post(url, data="a" * 99_999, timeout=30).json() == {"price": 3}
        head = requests.head(url, timeout=30)
        assert (head.headers["content-type"], head.content) == ("application/json", b"")

    def gone() -> bool:
        try:
            requests.get(url, timeout=30)
        except requests.ConnectionError:
            return True
        return False

    wait_for(gone, "the end of the upstream", 30)

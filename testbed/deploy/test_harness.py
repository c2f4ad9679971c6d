"""The harness keeps its promises: it uses loopback only, with no credentials of the caller, and leaves nothing running."""

import os
from pathlib import Path

import harness
import pytest


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4566", "http://[::1]:1", "http://localhost", "http://a.b.localhost:1/c"]
)
def test_loopback_is_accepted(url: str) -> None:
    assert harness.emulator_environment(url)["AWS_ENDPOINT_URL"] == url


REMOTE = ["", "https://lambda.us-east-1.amazonaws.com", "http://10.0.0.1", "http://localhost.a.example", "http://127.0.0.1@a.example"]


@pytest.mark.parametrize("url", REMOTE)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        harness.emulator_environment(url)


def test_credentials_of_the_caller_do_not_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    env = harness.emulator_environment("http://127.0.0.1:1")
    assert {key: env[key] for key in env if "real" in env[key] or "production" in env[key]} == {}
    assert env["AWS_CONFIG_FILE"] == env["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_a_process_is_stopped_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with harness.process(["sh", "-c", "sleep 60 & echo child: $!; wait"], harness.environment(), log) as running:
        child = int(harness.wait_for_line(running, log, "child: ", 10))
        os.kill(child, 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)

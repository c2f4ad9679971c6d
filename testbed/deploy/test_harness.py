"""The harness keeps its promises: it uses loopback only, with no credentials of the caller, and leaves nothing running.

ministack_shim.py is made for one version of ministack. Its tests fail when ministack no longer needs it. That the shim does its work
shows in test_deploy.py (routes, parameters, alarms) and test_stack.py (ids).
"""

import os
from importlib.metadata import version
from pathlib import Path

import harness
import ministack_shim
import pytest
from ministack.services import apigateway, cloudwatch_logs, lambda_svc
from ministack.services.cloudformation import changesets, provisioners


@pytest.mark.parametrize("url", ["http://127.0.0.1:4566", "http://[::1]:1", "http://localhost", "http://a.b.localhost:1/c"])
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


def handlers() -> dict:
    return {kind: dict(functions) for kind, functions in provisioners._RESOURCE_HANDLERS.items()}


def test_the_shim_is_made_for_the_version_that_is_installed() -> None:
    assert version("ministack") == ministack_shim.MADE_FOR


def test_ministack_alone_still_makes_no_routes() -> None:
    body = {"info": {"title": "name"}, "paths": {"/a": {ministack_shim.ANY_METHOD: {}}}}
    api_id, _ = handlers()["AWS::ApiGatewayV2::Api"]["create"]("Api", {"Body": body}, "stack")
    assert apigateway._routes[api_id] == {}, "ministack imports the Body itself now: drop this part of the shim"


def test_ministack_alone_still_refuses_the_types_that_are_names_only() -> None:
    assert not set(ministack_shim.NAMES_ONLY) & handlers().keys(), "drop these from the shim"


def test_ministack_alone_still_refuses_an_alarm_on_an_expression() -> None:
    alarm = {"Metrics": [{"Id": "rate", "Expression": "100 * errors / requests"}], "AlarmName": "rate"}
    with pytest.raises(ValueError, match="MetricName"):
        handlers()["AWS::CloudWatch::Alarm"]["create"]("Rate", alarm, "stack")


def test_ministack_alone_still_transforms_without_parameters() -> None:
    template = {
        "Transform": "AWS::Serverless-2016-10-31",
        "Parameters": {"Origin": {"Type": "String", "Default": "default"}},
        "Resources": {
            "Api": {
                "Type": "AWS::Serverless::HttpApi",
                "Properties": {
                    "DefinitionBody": {"openapi": "3.0.1", "paths": {}},
                    "CorsConfiguration": {"AllowOrigins": [{"Ref": "Origin"}]},
                },
            }
        },
    }
    applied = changesets._apply_transforms(template, [{"Key": "Origin", "Value": "given"}])
    cors = applied["Resources"]["Api"]["Properties"]["Body"]["x-amazon-apigateway-cors"]
    assert cors["allowOrigins"] == ["default"], "drop this part of the shim"


def test_ministack_alone_still_gives_log_events_no_ids() -> None:
    lambda_svc._emit_lambda_logs({"config": {"FunctionName": "alone"}}, "id", "a line", False, 1)
    (stream,) = cloudwatch_logs._log_groups["/aws/lambda/alone"]["streams"].values()
    assert {event.get("eventId") for event in stream["events"]} == {None}, "drop this part of the shim"

"""ministack_shim.py is made for one version of ministack. These tests fail when ministack no longer needs it. That the shim
does its work shows in test_deploy.py (routes, parameters, alarms) and test_stack.py (ids)."""

from importlib.metadata import version

import ministack_shim
import pytest
from ministack.services import apigateway, cloudwatch_logs, lambda_svc
from ministack.services.cloudformation import changesets, provisioners

BODY = {"info": {"title": "name"}, "paths": {"/a": {ministack_shim.ANY_METHOD: {}}}}


def handlers() -> dict:
    return {kind: dict(functions) for kind, functions in provisioners._RESOURCE_HANDLERS.items()}


def test_it_is_made_for_the_version_that_is_installed() -> None:
    assert version("ministack") == ministack_shim.MADE_FOR


def test_ministack_alone_still_makes_no_routes() -> None:
    api_id, _ = handlers()["AWS::ApiGatewayV2::Api"]["create"]("Api", {"Body": BODY}, "stack")
    assert apigateway._routes[api_id] == {}, "ministack imports the Body itself now: drop this part of the shim"


def test_ministack_alone_still_refuses_the_types_that_are_names_only() -> None:
    assert not set(ministack_shim.NAMES_ONLY) & handlers().keys(), "drop these from the shim"


MATHS_ALARM = {"Metrics": [{"Id": "rate", "Expression": "100 * errors / requests"}], "AlarmName": "rate"}


def test_ministack_alone_still_refuses_an_alarm_on_an_expression() -> None:
    with pytest.raises(ValueError, match="MetricName"):
        handlers()["AWS::CloudWatch::Alarm"]["create"]("Rate", MATHS_ALARM, "stack")


def origins() -> list[str]:
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
    return applied["Resources"]["Api"]["Properties"]["Body"]["x-amazon-apigateway-cors"]["allowOrigins"]


def test_ministack_alone_still_transforms_without_parameters() -> None:
    assert origins() == ["default"], "drop this part of the shim"


def test_ministack_alone_still_gives_log_events_no_ids() -> None:
    lambda_svc._emit_lambda_logs({"config": {"FunctionName": "alone"}}, "id", "a line", False, 1)
    (stream,) = cloudwatch_logs._log_groups["/aws/lambda/alone"]["streams"].values()
    assert {event.get("eventId") for event in stream["events"]} == {None}, "drop this part of the shim"

"""ministack_shim.py is made for one version of ministack. These tests fail when ministack no longer needs it."""

from importlib.metadata import version

import ministack_shim
import pytest
from ministack.services import apigateway, cloudwatch_logs, lambda_svc
from ministack.services.cloudformation import changesets, provisioners

BODY = {
    "info": {"title": "name"},
    "paths": {
        "/hello": {
            ministack_shim.ANY_METHOD: {
                "x-amazon-apigateway-integration": {
                    "type": "aws_proxy",
                    "uri": "arn:aws:lambda:us-east-1:000000000000:function:hello",
                    "payloadFormatVersion": "2.0",
                }
            }
        }
    },
    "x-amazon-apigateway-cors": {"allowOrigins": ["https://a.example"]},
}


def created_routes(handlers: dict) -> list[str]:
    api_id, _ = handlers["AWS::ApiGatewayV2::Api"]["create"]("Api", {"Body": BODY}, "stack")
    return [route["routeKey"] for route in apigateway._routes[api_id].values()]


def handlers() -> dict:
    return {kind: dict(functions) for kind, functions in provisioners._RESOURCE_HANDLERS.items()}


def test_it_is_made_for_the_version_that_is_installed() -> None:
    assert version("ministack") == ministack_shim.MADE_FOR


def test_ministack_alone_still_makes_no_routes() -> None:
    assert created_routes(handlers()) == [], "ministack imports the Body itself now: drop this part of the shim"


def test_ministack_alone_still_refuses_the_types_that_are_names_only() -> None:
    assert not set(ministack_shim.NAMES_ONLY) & handlers().keys(), "drop these from the shim"


MATHS_ALARM = {"Metrics": [{"Id": "rate", "Expression": "100 * errors / requests"}], "AlarmName": "rate"}


def test_ministack_alone_still_refuses_an_alarm_on_an_expression() -> None:
    with pytest.raises(ValueError, match="MetricName"):
        handlers()["AWS::CloudWatch::Alarm"]["create"]("Rate", MATHS_ALARM, "stack")


def test_the_shim_takes_an_alarm_on_an_expression_and_leaves_others_alone() -> None:
    table = handlers()
    ministack_shim.install_provisioners(table)
    alarm = table["AWS::CloudWatch::Alarm"]
    assert alarm["create"]("Rate", MATHS_ALARM, "stack") == ("stack-Rate", {})
    assert alarm["update"]("stack-Rate", MATHS_ALARM, MATHS_ALARM, "stack", "Rate") == ("stack-Rate", {})
    with pytest.raises(ValueError, match="MetricName"):
        alarm["create"]("Errors", {"AlarmName": "errors"}, "stack")


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


def test_the_shim_transforms_with_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changesets, "_apply_transforms", changesets._apply_transforms)  # put back afterwards
    ministack_shim.install_parameters(changesets)
    assert origins() == ["given"]


def test_the_shim_makes_routes_on_create_and_on_update() -> None:
    table = handlers()
    ministack_shim.install_provisioners(table)
    assert created_routes(table) == ["ANY /hello"]

    api = table["AWS::ApiGatewayV2::Api"]
    api_id, _ = api["create"]("Api", {"Body": BODY}, "stack")
    moved = {**BODY, "paths": {"/moved": BODY["paths"]["/hello"]}}
    assert api["update"](api_id, {"Body": BODY}, {"Body": moved}, "stack", "Api")[0] == api_id
    assert [route["routeKey"] for route in apigateway._routes[api_id].values()] == ["ANY /moved"]
    assert apigateway._apis[api_id]["corsConfiguration"] == {"allowOrigins": ["https://a.example"]}


def logged(name: str) -> list[dict]:
    lambda_svc._emit_lambda_logs({"config": {"FunctionName": name}}, "id", "a line", False, 1)
    (stream,) = cloudwatch_logs._log_groups[f"/aws/lambda/{name}"]["streams"].values()
    return stream["events"]


def test_ministack_alone_still_gives_log_events_no_ids() -> None:
    assert {event.get("eventId") for event in logged("alone")} == {None}, "drop this part of the shim"


def test_the_shim_gives_each_log_event_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudwatch_logs, "_append_log_events", cloudwatch_logs._append_log_events)  # put back afterwards
    ministack_shim.install_event_ids(cloudwatch_logs)
    events = logged("shimmed")
    assert len({event["eventId"] for event in events}) == len(events) >= 3

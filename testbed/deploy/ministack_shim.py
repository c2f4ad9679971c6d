"""Starts ministack with what version 1.5.33 lacks for a SAM HTTP API:

- It ignores the OpenAPI `Body` of `AWS::ApiGatewayV2::Api`, into which SAM turns HttpApi events: the stack deploys
  without errors and without routes. The shim turns the Body's paths into routes and integrations, and its security schemes
  into authorizers.
- It runs SAM's transform without the stack's parameters, so SAM resolves the CORS origins to the parameter's default.
  The shim passes the parameters.
- It refuses `AWS::CodeDeploy::*` (into which SAM turns a DeploymentPreference), saved queries, and alarms on an
  expression of several metrics. The shim creates these as names only: an alias moves to a new version at once.
- The log events of its functions have no ids. The shim gives them ids.
- Its Runtime API writes an event in two parts, and the kernel keeps the second back for 40 ms, until the function's
  side acknowledges the first. The shim turns that off.

test_harness.py fails if another version of ministack is installed, or if ministack no longer needs a part of the shim.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from socketserver import StreamRequestHandler
from types import ModuleType
from unittest.mock import patch
from uuid import uuid4

MADE_FOR = "1.5.33"
ANY_METHOD = "x-amazon-apigateway-any-method"
AUTHORIZER = "x-amazon-apigateway-authorizer"

NAMES_ONLY = ["AWS::CodeDeploy::Application", "AWS::CodeDeploy::DeploymentGroup", "AWS::Logs::QueryDefinition"]
NAME_ONLY = {
    "create": lambda logical_id, props, stack_name: (f"{stack_name}-{logical_id}", {}),
    "update": lambda physical_id, old_props, new_props, *rest: (physical_id, {}),
    "delete": lambda physical_id, props: None,
}


def import_body(api_id: str, body: dict) -> None:
    """Replaces the routes, integrations, authorizers and CORS settings of `api_id` with those of an OpenAPI document."""
    from ministack.services import apigateway

    apigateway._routes[api_id] = {}
    apigateway._integrations[api_id] = {}
    schemes = body.get("components", {}).get("securitySchemes", {})
    apigateway._authorizers[api_id] = {
        name: {"authorizerId": name, "name": name, "authorizerType": scheme[AUTHORIZER]["type"].upper(), **scheme[AUTHORIZER]}
        for name, scheme in schemes.items()
    }
    for path, methods in body.get("paths", {}).items():
        for method, operation in methods.items():
            integration = operation["x-amazon-apigateway-integration"]
            # Each route has its own integration, so both can have the same id.
            ident = f"{len(apigateway._routes[api_id]):08x}"
            apigateway._integrations[api_id][ident] = {
                "integrationId": ident,
                "integrationType": integration["type"].upper(),
                "integrationUri": integration["uri"],
                "payloadFormatVersion": integration["payloadFormatVersion"],
            }
            apigateway._routes[api_id][ident] = {
                "routeId": ident,
                "routeKey": f"{'ANY' if method == ANY_METHOD else method.upper()} {path}",
                "target": f"integrations/{ident}",
            }
            for name, scopes in (operation.get("security") or [{}])[0].items():
                authorizer = {"authorizationType": "JWT", "authorizerId": name, "authorizationScopes": scopes}
                apigateway._routes[api_id][ident] |= authorizer
    api = apigateway._apis[api_id]
    api["name"] = body.get("info", {}).get("title", api["name"])
    api["corsConfiguration"] = body.get("x-amazon-apigateway-cors") or {}


def install_provisioners(handlers: dict) -> None:
    """Wraps or adds the provisioners in `handlers`, ministack's table from resource type to functions."""
    for kind in NAMES_ONLY:
        handlers.setdefault(kind, NAME_ONLY)
    api, alarm = handlers["AWS::ApiGatewayV2::Api"], handlers["AWS::CloudWatch::Alarm"]
    for verb, properties in (("create", 1), ("update", 2)):
        api[verb] = with_body(properties, api[verb])
        alarm[verb] = name_only_if("Metrics", properties, NAME_ONLY[verb], alarm[verb])


def with_body(properties: int, provision: Callable) -> Callable:
    def provisioned(*arguments):
        done = provision(*arguments)
        import_body(done[0], arguments[properties].get("Body") or {})
        return done

    return provisioned


def name_only_if(key: str, properties: int, name_only: Callable, otherwise: Callable) -> Callable:
    return lambda *arguments: (name_only if key in arguments[properties] else otherwise)(*arguments)


def install_parameters(changesets: ModuleType) -> None:
    """Passes the parameters to SAM's transform for change sets, the only way the SAM CLI deploys."""
    from ministack.services.cloudformation.engine import _transform_parameters
    from samtranslator.translator import transform as sam

    apply, transform = changesets._apply_transforms, sam.transform

    def apply_with_parameters(template, provided=None, previous=None):
        values = _transform_parameters(template, provided, previous)
        with patch.object(sam, "transform", lambda template, _, policies: transform(template, values, policies)):
            return apply(template, provided, previous)

    changesets._apply_transforms = apply_with_parameters


def install_event_ids(logs: ModuleType) -> None:
    """Gives an id to each log event that has none."""
    append = logs._append_log_events
    logs._append_log_events = lambda stream, events: append(stream, [{"eventId": uuid4().hex} | event for event in events])


def main() -> None:
    if version("ministack") != MADE_FOR:
        raise SystemExit(f"ministack {version('ministack')} is installed; this shim was written for {MADE_FOR}")
    from ministack import app
    from ministack.services import cloudwatch_logs
    from ministack.services.cloudformation import changesets, provisioners

    install_event_ids(cloudwatch_logs)
    install_provisioners(provisioners._RESOURCE_HANDLERS)
    install_parameters(changesets)
    StreamRequestHandler.disable_nagle_algorithm = True
    del sys.argv[1:]
    app.main()


if __name__ == "__main__":
    main()

"""Checks template.yaml without deploying it: SAM's and CloudFormation's linters, a policy scan, and our own proofs.

Each proof comes with templates that it must refuse: template.yaml with endpoints of each kind, and one change.
"""

import copy
import json
import re
import tomllib
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from unittest.mock import patch

import harness
import new
import proofs
import pytest
from harness import DECLARED, REGION, ROOT, run
from ministack.services.cloudformation import language_extensions
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

# With its loops expanded, as CloudFormation does. The SAM CLI's own expansion resolves parameters and conditions too.
TEMPLATE = language_extensions.apply(yaml_parse((ROOT / "template.yaml").read_text()), {})
ROUTER = {proofs.gateways(route): function for route, function in harness.ROUTER.items()}
EVENTS = {folder.name for folder in (ROOT / "events").iterdir()}
CHECKOV = ROOT / ".venv" / "checkov" / "bin" / "checkov"

NAMESPACE = tomllib.loads((ROOT / ".cargo/config.toml").read_text())["env"]["METRICS_NAMESPACE"]

ONE, OTHER, CALLS, TWIN, PUBLIC = "madeone", "madeother", "madecalls", "madetwin", "madepublic"
# Functions without routes of the API: their events, and what else they have.
ELSEWHERE: dict[str, tuple[dict, dict]] = {
    "madeunused": ({}, {}),
    "madequeue": ({"Queue": {"Type": "SQS", "Properties": {"Queue": {"Fn::GetAtt": ["Parts", "Arn"]}}}}, {"Timeout": 300}),
    "madedaily": ({"Daily": {"Type": "ScheduleV2", "Properties": {"ScheduleExpression": "cron(0 3 ? JAN MON#1 *)"}}}, {}),
    "madeurl": ({}, {
        "FunctionUrlConfig": {"AuthType": "AWS_IAM"}, "ReservedConcurrentExecutions": 10,
        "Timeout": {"Ref": "ThrottleRate"}, "VersionDescription": {"Fn::Sub": "${LogLevel} ${ThrottleRate}"},
    }),
}
# What they may do, as a Cargo.toml declares it and a policy grants it.
PERMISSIONS = {"Parts": ["dynamodb:Query"], "Parts/index/by-day": ["dynamodb:Query"], "Photos/*": ["s3:GetObject"]}
GRANTS = [
    {"Effect": "Allow", "Action": "dynamodb:Query", "Resource": [{"Fn::GetAtt": ["Parts", "Arn"]}, {"Fn::Sub": "${Parts.Arn}/index/by-day"}]},
    {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": {"Fn::Sub": "${Photos.Arn}/*"}},
]


def made() -> dict[str, str]:
    """The files that `make new` writes for endpoints of each kind."""
    files: dict[str, str] = {}
    with patch.object(new, "read", lambda file: files.get(file) or (ROOT / file).read_text()):
        for name, upstreams in ((ONE, ""), (OTHER, ""), (PUBLIC, ""), (CALLS, "madeprices")):
            files |= new.Endpoint(name, upstreams=upstreams).files()
    return files


Change = Callable[[dict], object]


def changed(change: Change) -> dict:
    template = copy.deepcopy(MADE)
    change(template)
    assert template != MADE
    return template


def properties(template: dict, name: str) -> dict:
    return template["Resources"][name]["Properties"]


def route(function: str) -> str:
    return next(path for path, name in MADE_ROUTER.items() if name == function)


def event(template: dict, function: str, method: str) -> str:
    events = properties(template, f"{function}Function")["Events"]
    return next(name for name, event in events.items() if event["Properties"]["Method"] == method)


def events(template: dict, function: str) -> dict:
    return properties(template, f"{function}Function")["Events"]


def daily(template: dict, expression: object) -> None:
    events(template, "madedaily")["Daily"]["Properties"]["ScheduleExpression"] = expression


def statement(template: dict, role: str) -> dict:
    return properties(template, role)["Policies"][0]["PolicyDocument"]["Statement"][0]


def variables(template: dict) -> dict:
    return properties(template, f"{CALLS}Function")["Environment"]["Variables"]


def policy(template: dict, name: str) -> dict:
    return properties(template, name)["PolicyDocument"]["Statement"][0]


def table(**change: object) -> dict:
    """A table for data, as `make new` writes it, with one attribute or property changed."""
    resource = yaml_parse(new.part("tables"))["Fn::ForEach::Tables"][2]["&{Name}Table"]
    for name, value in change.items():
        (resource if name.endswith("Policy") else resource["Properties"])[name] = value
    return resource


def paths(template: dict) -> dict:
    return properties(template, "Api")["DefinitionBody"]["paths"]


def copied(template: dict, own: str, name: str, events: dict, **more: object) -> None:
    """Adds a function that somebody wrote without `make new`, with all that `own` has, and these events."""
    for resource, written in list(template["Resources"].items()):
        if resource.startswith(own):
            text = json.dumps(written).replace(f"-{own}", f"-{name}").replace(own, name)
            template["Resources"][resource.replace(own, name)] = json.loads(text)
    properties(template, f"{name}Function").update(Events=events, **more)
    for query in proofs.of_type(template, "AWS::Logs::QueryDefinition").values():
        query["Properties"]["LogGroupNames"].append({"Ref": f"{name}Logs"})
    dashboard = properties(template, "Dashboard")["DashboardBody"]["Fn::Sub"][1]["Of"]
    dashboard["Fn::Sub"] += rf' OR \"${{AWS::StackName}}-{name}\"'


def of_each_kind() -> dict:
    """template.yaml with the made endpoints: one is public, one has a cache, and a twin that depends on a condition."""
    template = language_extensions.apply(yaml_parse(FILES["template.yaml"]), {})
    paths(template).pop(f"/{PUBLIC}")
    get = {"Type": "HttpApi", "Properties": {"ApiId": {"Ref": "Api"}, "Path": f"/{CALLS}", "Method": "GET"}}
    paths(template)[f"/{CALLS}"]["get"] = {"security": {"Fn::If": ["HasJwt", [{"jwt": []}], proofs.NO_VALUE]}}
    variables(template)["MADE_CACHE"] = {"Ref": "MadeCache"}
    copied(template, CALLS, TWIN, {"Get": get}, CodeUri=f"functions/{CALLS}")
    template["Conditions"]["HasTwin"] = {"Fn::Equals": [{"Ref": "Stage"}, "twin"]}
    for name, resource in template["Resources"].items():
        if name.startswith(TWIN) and resource["Type"] != "AWS::IAM::Policy":
            resource["Condition"] = "HasTwin"
    template["Resources"]["MadeCache"] = table(
        DeletionPolicy="Delete", UpdateReplacePolicy="Delete", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )
    put = {"Effect": "Allow", "Action": ["dynamodb:PutItem"], "Resource": {"Fn::GetAtt": ["MadeCache", "Arn"]}}
    template["Resources"]["MadeCachePolicy"] = granted([put], CALLS, TWIN)
    for name, (events, more) in ELSEWHERE.items():
        told = {"Environment": {"Variables": {"PARTS": {"Fn::Sub": "${Parts}"}}}}
        copied(template, OTHER, name, events, CodeUri=f"functions/{name}", **told, **more)
    template["Resources"] |= {
        "Parts": table(),
        "PartsPolicy": granted(GRANTS, *ELSEWHERE),
        # What belongs to no function.
        "Full": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Used", "Namespace": "AWS/EFS"}},
        "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}}},
    }
    template["Outputs"] |= {"PartsName": {"Value": {"Ref": "Parts"}}, "PartsUrl": {"Value": {"Fn::Sub": ["${Api}/parts", {}]}}}
    return template


def granted(statements: list[dict], *functions: str) -> dict:
    roles = [{"Ref": f"{name}Role"} for name in functions]
    return {"Type": "AWS::IAM::Policy", "Properties": {"Roles": roles, "PolicyDocument": {"Statement": statements}}}


FILES = made()
MADE = of_each_kind()
MADE_ROUTER = ROUTER | {f"/{name}": name for name in (ONE, OTHER, PUBLIC, CALLS)}
MADE_DECLARED = DECLARED | {
    name: tomllib.loads(FILES[f"functions/{name}/Cargo.toml"])["package"].get("metadata", {}).get("endpoint", {})
    for name in (ONE, OTHER, CALLS)
}
MADE_DECLARED |= {PUBLIC: {"public": [f"/{PUBLIC}"]}} | dict.fromkeys(ELSEWHERE, {"permissions": PERMISSIONS})
MADE_DECLARED[CALLS]["caches"] = ["MadeCache"]
MADE_DECLARED[CALLS]["permissions"]["MadeCache"] = ["dynamodb:PutItem"]


MADE_EVENTS = EVENTS | {ONE, OTHER, PUBLIC, CALLS, *ELSEWHERE}


def faults(
    proof: Callable[..., list[str]], template: dict, router: dict = MADE_ROUTER, folders: set = MADE_EVENTS, declared: dict = MADE_DECLARED
) -> list[str]:
    """Those of the template beside what the proof compares it with."""
    about = {"router": router, "folders": folders, "declared": declared, "namespace": NAMESPACE}
    return proof(template, **{name: it for name, it in about.items() if name in signature(proof).parameters})


SECRET_POLICY = f"{CALLS}MadepricesSecretPolicy"

PROOFS: dict[Callable[..., list[str]], dict[str, Change]] = {
    proofs.time_outs_nest: {
        "budget as long as the function": lambda t: variables(t).update(MADEPRICES_TIMEOUT_MS="10000"),
        "attempt longer than the budget": lambda t: variables(t).update(MADEPRICES_ATTEMPT_TIMEOUT_MS="5001"),
        "function as long as the gateway": lambda t: properties(t, f"{CALLS}Function").update(Timeout=30),
        "no budget": lambda t: variables(t).pop("MADEPRICES_TIMEOUT_MS"),
        "another upstream's budget": lambda t: variables(t).update(RATES_TIMEOUT_MS="10000"),
        "in one case": lambda t: variables(t).update(MADEPRICES_TIMEOUT_MS={"Fn::If": ["IsProd", "10000", "5000"]}),
        "a parameter without bounds": lambda t: variables(t).update(MADEPRICES_TIMEOUT_MS={"Ref": "LogRetentionDays"}),
        "what cannot be read": lambda t: variables(t).update(MADEPRICES_TIMEOUT_MS={"Fn::Sub": "${Stage}000"}),
    },
    proofs.failures_are_rolled_back_and_found: {
        "no alarm": lambda t: t["Resources"].pop(f"{OTHER}Throttles"),
        "alarm without its condition": lambda t: t["Resources"][f"{TWIN}Errors"].pop("Condition"),
        "no rollback": lambda t: properties(t, f"{OTHER}Function").pop("DeploymentPreference"),
        "not on the dashboard": lambda t: properties(t, f"{OTHER}Function")["FunctionName"].update({"Fn::Sub": "${AWS::StackName}-now"}),
        "not in a query": lambda t: properties(t, "WhyQuery")["LogGroupNames"].remove({"Ref": f"{OTHER}Logs"}),
    },
    proofs.alarms_watch_what_is_written: {
        "another namespace": lambda t: properties(t, f"{CALLS}BreakerOpen").update(Namespace="Others"),
        "another namespace on the dashboard": lambda t: properties(t, "Dashboard")["DashboardBody"]["Fn::Sub"].__setitem__(
            0, properties(t, "Dashboard")["DashboardBody"]["Fn::Sub"][0].replace("{" + NAMESPACE + ",", "{Others,", 1)
        ),
    },
    proofs.callers_are_not_logged: {"address": lambda t: properties(t, "Api")["AccessLogSettings"].update(Format='{"ip":"$context.identity.sourceIp"}')},
    proofs.versions_follow_parameters: {
        "one too few": lambda t: properties(t, f"{CALLS}Function").update(VersionDescription={"Ref": "LogLevel"}),
        "one too many": lambda t: properties(t, f"{ONE}Function").update(VersionDescription={"Fn::Sub": "${LogLevel} ${Stage}"}),
        "a new variable": lambda t: properties(t, f"{OTHER}Function").update(Environment={"Variables": {"STAGE": {"Ref": "Stage"}}}),
    },
    proofs.privileges_are_least: {
        "any resource": lambda t: statement(t, f"{ONE}Role").update(Resource="*"),
        "no resource": lambda t: statement(t, f"{ONE}Role").pop("Resource"),
        "another's log group": lambda t: statement(t, f"{OTHER}Role").update(Resource=statement(t, f"{ONE}Role")["Resource"]),
        "another's secret": lambda t: properties(t, SECRET_POLICY)["Roles"].append({"Ref": f"{OTHER}Role"}),
        "one more action on it": lambda t: policy(t, "MadeCachePolicy")["Action"].append("dynamodb:DeleteTable"),
        "any of a kind": lambda t: policy(t, "MadeCachePolicy").update(Action="dynamodb:*"),
        "another table": lambda t: policy(t, "MadeCachePolicy").update(Resource={"Fn::GetAtt": ["OtherTable", "Arn"]}),
        "declared and not granted": lambda t: t["Resources"].pop(SECRET_POLICY),
        "everything but": lambda t: statement(t, f"{ONE}Role").update(NotAction=statement(t, f"{ONE}Role").pop("Action")),
        "one more action": lambda t: statement(t, f"{OTHER}Role")["Action"].append("secretsmanager:GetSecretValue"),
        "more tracing": lambda t: properties(t, "TracePolicy")["PolicyDocument"]["Statement"][0]["Action"].append("xray:GetGroup"),
        "managed policy": lambda t: properties(t, f"{ONE}Role")["ManagedPolicyArns"].append("arn:aws:iam::aws:policy/ReadOnlyAccess"),
        "shared role": lambda t: properties(t, f"{OTHER}Function").update(Role={"Fn::GetAtt": [f"{ONE}Role", "Arn"]}),
        "SAM's role": lambda t: properties(t, f"{OTHER}Function").pop("Role"),
    },
    proofs.code_is_told_its_resources: {
        "no variable": lambda t: properties(t, "madeunusedFunction").pop("Environment"),
        "in its description alone": lambda t: variables(t).pop("MADEPRICES_SECRET_ID"),
    },
    proofs.callers_need_a_token: {
        "a route without": lambda t: paths(t)[route(OTHER)].pop("x-amazon-apigateway-any-method"),
        "always": lambda t: paths(t)[route(OTHER)]["x-amazon-apigateway-any-method"].update(security=[{"jwt": []}]),
        "on instances without": lambda t: paths(t)[f"/{CALLS}"].pop("get"),
        "preflight": lambda t: events(t, OTHER).pop(event(t, OTHER, "OPTIONS")),
        "no such route": lambda t: paths(t).update({"/now": {"get": {}}}),
        "another scheme": lambda t: properties(t, "Api")["DefinitionBody"]["components"]["Fn::If"][1].pop("securitySchemes"),
    },
    proofs.urls_are_signed_and_stream_as_told: {
        "public": lambda t: properties(t, f"{ONE}Function").update(FunctionUrlConfig={"AuthType": "NONE"}),
        "not told": lambda t: properties(t, f"{ONE}Function").update(
            FunctionUrlConfig={"AuthType": "AWS_IAM", "InvokeMode": "RESPONSE_STREAM"}
        ),
        "told without": lambda t: properties(t, f"{ONE}Function").update(
            FunctionUrlConfig={"AuthType": "AWS_IAM"}, Environment={"Variables": {"INVOKE_MODE": "RESPONSE_STREAM"}}
        ),
    },
    proofs.data_is_kept_and_caches_go: {
        "provisioned": lambda t: properties(t, "MadeCache").pop("BillingMode"),
        "no time to live": lambda t: properties(t, "MadeCache").pop("TimeToLiveSpecification"),
        "in clear": lambda t: properties(t, "MadeCache").pop("SSESpecification"),
        "kept after the stack": lambda t: t["Resources"]["MadeCache"].pop("DeletionPolicy"),
        "data that goes": lambda t: t["Resources"].update(Orders=table(DeletionPolicy="Delete")),
        "data that is replaced": lambda t: t["Resources"].update(Orders=table(UpdateReplacePolicy="Delete")),
        "data that goes in prod": lambda t: t["Resources"].update(Orders=table(DeletionPolicy={"Fn::If": ["IsProd", "Delete", "Retain"]})),
        "data without recovery": lambda t: t["Resources"].update(Orders=table(PointInTimeRecoverySpecification={})),
    },
    proofs.routes_agree: {
        "one too few": lambda t: events(t, ONE).pop(event(t, ONE, "ANY")),
        "one too many": lambda t: properties(t, f"{OTHER}Function")["Events"].update(
            Now={"Type": "HttpApi", "Properties": {"Path": "/now", "Method": "ANY"}}
        ),
        "one method": lambda t: events(t, OTHER)[event(t, OTHER, "ANY")]["Properties"].update(Method="GET"),
        "wrong function": lambda t: properties(t, f"{OTHER}Function").update(CodeUri=f"functions/{ONE}"),
        "taken by another": lambda t: properties(t, f"{TWIN}Function")["Events"]["Get"]["Properties"].update(Path=route(OTHER)),
    },
    proofs.schedules_are_cron_of_aws: {
        "every day of both": lambda t: daily(t, "cron(0 3 * * * *)"),
        "one of both": lambda t: daily(t, "cron(0 3 1 * MON *)"),
        "without a year": lambda t: daily(t, "cron(0 3 * * ?)"),
        "in prod": lambda t: daily(t, {"Fn::If": ["IsProd", "cron(0 3 ? * ? *)", "rate(1 day)"]}),
    },
    proofs.outputs_lead_to_routes: {
        "another path": lambda t: t["Outputs"][f"{ONE}Url"]["Value"]["Fn::Sub"][1].update(Path="/old"),
        "its route has changed": lambda t: events(t, ONE)[event(t, ONE, "ANY")]["Properties"].update(Path="/new"),
    },
}


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_template_holds(proof: Callable[..., list[str]]) -> None:
    wrong = faults(proof, TEMPLATE, ROUTER, EVENTS, DECLARED) or faults(proof, MADE)
    # pytest shortens a list, but not a message.
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("proof", "change"),
    [pytest.param(proof, change, id=f"{proof.__name__}: {what}") for proof, changes in PROOFS.items() for what, change in changes.items()],
)
def test_proof_refuses(proof: Callable[..., list[str]], change: Change) -> None:
    assert faults(proof, changed(change)) != []


def test_a_first_upstream_gets_the_loop_that_the_template_has() -> None:
    assert new.part("upstreams", NAMESPACE=NAMESPACE).replace("- []", f"- [{CALLS}]") in re.sub(r"(?m)^    - \[.*$", f"    - [{CALLS}]", FILES["template.yaml"])


def test_routes_agree_refuses_another_router_and_other_events() -> None:
    assert proofs.routes_agree(MADE, MADE_ROUTER | {route(OTHER): ONE}, MADE_EVENTS) != []
    assert proofs.routes_agree(MADE, MADE_ROUTER, MADE_EVENTS | {"fourth"}) != []
    more = changed(lambda t: properties(t, f"{ONE}Function")["Events"][event(t, ONE, "ANY")]["Properties"].update(Path="/more/{path+}"))
    assert '"/more/{*path}" = "madeone"' in str(proofs.routes_agree(more, MADE_ROUTER, MADE_EVENTS))
    assert '"/more"' in str(proofs.routes_agree(MADE, MADE_ROUTER | {"/more": ONE}, MADE_EVENTS))


def test_the_cause_of_a_route_or_function_that_is_none_is_told() -> None:
    assert "has no function that is built from functions/upload" in str(proofs.routes_agree(MADE, MADE_ROUTER | {"/up": "upload"}, MADE_EVENTS))
    template = copy.deepcopy(MADE)
    for it in events(template, OTHER).values():
        it["Properties"]["Path"] = route(ONE)
    assert f"{ONE}Function and {OTHER}Function both have ANY {route(ONE)}" in str(proofs.routes_agree(template, MADE_ROUTER, MADE_EVENTS))
    assert f"have {route(OTHER)}, which no function has among its Events" in str(proofs.callers_need_a_token(template, MADE_DECLARED))
    del template["Resources"][f"{ONE}Role"], template["Resources"][f"{ONE}Errors"]
    wrong = [f"no loop makes {ONE}Role, its log group and its alarms: add {ONE} to Fn::ForEach::Functions in template.yaml"]
    assert proofs.failures_are_rolled_back_and_found(template) == wrong


def test_time_outs_may_be_conditional_and_of_any_upstream() -> None:
    def change(template: dict) -> None:
        variables(template).update(
            MADEPRICES_TIMEOUT_MS={"Fn::If": ["IsProd", 20000, 5000]},
            RATES_TIMEOUT_MS={"Fn::If": ["IsProd", "4000", {"Ref": "ThrottleBurst"}]},
            RATES_ATTEMPT_TIMEOUT_MS={"Fn::If": ["IsProd", "300", {"Ref": "AWS::NoValue"}]},
        )
        properties(template, f"{CALLS}Function")["Timeout"] = {"Fn::If": ["IsProd", 25, 6]}

    assert proofs.time_outs_nest(changed(change)) == []


def test_the_line_that_declares_or_names_a_resource_is_told() -> None:
    wrong = proofs.privileges_are_least(MADE, MADE_DECLARED | {"madequeue": {}})
    assert any('add `permissions."Parts" = ["dynamodb:Query"]` to' in text for text in wrong), wrong
    unnamed = changed(lambda template: properties(template, "madedailyFunction").pop("Environment"))
    assert "add `PARTS: !Ref Parts`" in str(proofs.code_is_told_its_resources(unnamed, MADE_DECLARED))


def test_an_output_may_give_a_parameter_a_value() -> None:
    template = copy.deepcopy(MADE)
    events(template, ONE)[event(template, ONE, "ANY")]["Properties"]["Path"] = "/shops/{shop}/{path+}"
    for path, told in (("/shops/{shop}/{path+}", ""), ("/shops/1/a/b", ""), ("/shops/1", '`Path: "/shops/{shop}/{path+}"`')):
        template["Outputs"][f"{ONE}Url"]["Value"]["Fn::Sub"][1]["Path"] = path
        wrong = proofs.outputs_lead_to_routes(template)
        assert told in str(wrong) and bool(told) == bool(wrong)


def test_declarations_are_known() -> None:
    assert proofs.unknown_declarations(MADE_DECLARED) == []
    assert proofs.unknown_declarations({ONE: {"permission": {}}}) == [
        f"[package.metadata.endpoint] in functions/{ONE}/Cargo.toml: there is no `permission`: it can have "
        "`caches`, `example`, `links`, `permissions`, `public`, `public-url`"
    ]
    assert "`links` has no `dynamodb`: it can have `aws`, `http`" in str(proofs.unknown_declarations({ONE: {"links": ["dynamodb"]}}))


def test_only_declared_urls_are_public() -> None:
    url = {"AuthType": "NONE", "InvokeMode": "RESPONSE_STREAM"}
    told = {"FunctionUrlConfig": url, "Environment": {"Variables": {"INVOKE_MODE": "RESPONSE_STREAM"}}}
    template = changed(lambda template: properties(template, f"{ONE}Function").update(told))
    declared = MADE_DECLARED | {ONE: {"public-url": True}}
    assert proofs.urls_are_signed_and_stream_as_told(template, declared) == []
    assert "`public-url = true`" in str(proofs.urls_are_signed_and_stream_as_told(template, MADE_DECLARED))
    url["AuthType"] = "AWS_IAM"
    assert proofs.urls_are_signed_and_stream_as_told(template, declared) != []


def test_only_declared_routes_are_public() -> None:
    assert proofs.callers_need_a_token(MADE, MADE_DECLARED | {OTHER: {"public": [route(OTHER)]}}) != []
    assert proofs.callers_need_a_token(MADE, MADE_DECLARED | {OTHER: {"public": [route(ONE)]}}) != []
    assert f"functions/{PUBLIC}/Cargo.toml" in str(proofs.callers_need_a_token(MADE, MADE_DECLARED | {PUBLIC: {}}))


SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:upstream/token-AbC123"


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        (
            "Url",
            ["https://a.example", "https://a.example:8443/b?c=d", "http://127.0.0.1:80/x", "http://[::1]:80", "http://localhost"]
            + ["https://[2001:db8::1]:8443/b", "https://a_b.example?c=d", "https://a.example/@b:c"],
            ["", "a.example", "http://a.example", "http://localhost.a.example", "https://a b", "https://a#b", "https:///b"]
            + ["https://user:secret@a.example", "https://user@a.example/b", "https://:secret@a.example", "http://user@localhost"]
            + ["https://user:secret@[::1]/b", "https://user\\@a.example", "https://a.example:secret", "https://a.example "]
            + [" https://a.example"],
        ),
        ("SecretId", ["", SECRET], ["upstream/token", SECRET.removesuffix("-AbC123"), SECRET + "*"]),
        (
            "CorsAllowOrigins",
            ["", "*", "https://a.example", "https://a.example,http://localhost:3000"],
            ["a.example", "https://*.example", "*,https://a.example", "https://a.example/", "https://a.example,"],
        ),
        ("JwtIssuer", ["", "https://login.example/pool"], ["http://login.example", "login.example"]),
    ],
)
def test_parameter_takes_and_refuses(name: str, allowed: list, refused: list) -> None:
    parameters = {key: parameter for key, parameter in (TEMPLATE["Parameters"] | MADE["Parameters"]).items() if key.endswith(name)}
    assert parameters
    assert [(key, value) for key, one in parameters.items() for value in allowed if not proofs.accepts(one, value)] == []
    assert [(key, value) for key, one in parameters.items() for value in refused if proofs.accepts(one, value)] == []


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_the_template_accepts_the_parameters_in_samconfig(stage: str) -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())["default" if stage == "dev" else stage]
    given = dict(pair.split("=", 1) for pair in config["global"]["parameters"]["parameter_overrides"])
    assert given["Stage"] == stage
    assert [name for name in given if not proofs.accepts(TEMPLATE["Parameters"][name], given[name])] == []


def longest(node: object) -> int:
    """How many characters the text can have that CloudFormation makes of `node`."""
    if isinstance(node, str):
        return len(node)
    ((function, value),) = node.items()
    if function == "Ref":
        parameter = TEMPLATE["Parameters"][value]
        assert parameter.keys() & {"AllowedValues", "MaxLength"}, f"{value} needs a MaxLength, because a version's description has it"
        return max(map(len, map(str, parameter.get("AllowedValues", ["x" * parameter.get("MaxLength", 0)]))))
    if function == "Fn::If":
        return max(map(longest, value[1:]))
    if function == "Fn::Select":
        # The name of a secret, in its ARN.
        (name,) = re.findall(r"\{1,(\d+)\}-\[A-Za-z0-9\]\{6\}", TEMPLATE["Parameters"][value[1]["Fn::Split"][1]["Ref"]]["AllowedPattern"])
        return int(name) + len("-AbCdEf")
    text, own = value if isinstance(value, list) else (value, {})
    names = re.findall(r"\$\{(\w+)\}", text)
    return len(re.sub(r"\$\{\w+\}", "", text)) + sum(longest(own.get(name, {"Ref": name})) for name in names)


@pytest.mark.parametrize("name", proofs.functions(TEMPLATE))
def test_a_versions_description_has_room_for_every_value_allowed(name: str) -> None:
    length = longest(proofs.functions(TEMPLATE)[name]["VersionDescription"])
    assert length <= 256, "Lambda allows 256: lower the MaxLength of the parameters in it"


def transformed(template: dict, path: Path) -> Path:
    """The output of SAM's transform: the template that CloudFormation sees."""
    template = copy.deepcopy(template)
    del template["Mappings"]  # only the loops need them
    for function in proofs.of_type(template, "AWS::Serverless::Function").values():
        function["Properties"]["CodeUri"] = "s3://bucket/key"  # `sam deploy` puts such a URI there
    nothing = type("NoManagedPolicies", (), {"load": staticmethod(dict)})
    path.write_text(json.dumps(transform(template, {}, nothing), indent=1))
    return path


@pytest.fixture(autouse=True)
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)  # the transform needs it to find the partition


# Each linter starts once, for good and bad: it takes longer to load its rules than to apply them.
def test_cfn_lint_of_the_template_and_the_transformed_one(tmp_path: Path) -> None:
    """`make deploy` does the former by `sam validate --lint`."""
    good = transformed(TEMPLATE, tmp_path / "template.json")
    bad = transformed(changed(lambda t: properties(t, f"{ONE}Errors").update(Statistic="Mode")), tmp_path / "bad.json")
    found = run("cfn-lint", "--format", "parseable", ROOT / "template.yaml", good, bad, AWS_DEFAULT_REGION=REGION).stdout.splitlines()
    assert [line for line in found if not line.startswith(f"{bad}:")] == []
    assert any("Mode" in line for line in found)


def test_policy_scan_of_the_transformed_template(tmp_path: Path) -> None:
    good = transformed(TEMPLATE, tmp_path / "template.json")
    role = f"{CALLS}Role"
    bad = transformed(changed(lambda t: statement(t, role).update(Action="*", Resource="*")), tmp_path / "bad.json")
    files = [argument for file in (good, bad) for argument in ("--file", file)]
    assert CHECKOV.exists(), "checkov is not installed: `make .venv/checkov/ready` installs it"
    done = run(CHECKOV, "--config-file", Path(__file__).with_name("checkov.yaml"), *files, AWS_DEFAULT_REGION=REGION)
    found = done.stdout.split("Check: ")[1:]
    wrong = [text for text in found if f"/{good.name}:" in text]
    assert not wrong, "".join(wrong) + "An exception: `Metadata: { checkov: { skip: [{ id: CKV_…, comment: why }] } }` in the resource."
    assert any(role in text for text in found), done.stdout + done.stderr

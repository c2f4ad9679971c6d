"""The life of a stack: the SAM CLI deploys, updates, rolls back and deletes it, with calls in between. And `make smoke` against one whose
gateway wants a token.

test_api.py calls another stack, with dev's settings; the first one has prod's.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import caller
import jwt
import proofs
import pytest
import requests
from aws import Aws
from harness import DECLARED, PROTECTED, ROOT, ROUTER, in_ci, run
from samcli.yamlhelper import yaml_dump, yaml_parse
from test_api import cases

STACK = "life"
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())


def inventory(aws: Aws) -> set[str]:
    """Everything that a stack of template.yaml can leave in an account, and everything that SAM uploads for it."""
    logs, iam, s3 = aws.client("logs"), aws.client("iam"), aws.client("s3")
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    return {
        *(a["ApiEndpoint"] for a in aws.client("apigatewayv2").get_apis()["Items"]),
        *(f["FunctionArn"] for f in aws.client("lambda").list_functions()["Functions"]),
        *(g["arn"] for g in logs.describe_log_groups()["logGroups"]),
        *(r["Arn"] for r in iam.list_roles()["Roles"]),
        *(p["Arn"] for p in iam.list_policies(Scope="Local")["Policies"]),
        *aws.client("dynamodb").list_tables()["TableNames"],
        *(a["AlarmArn"] for a in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]),
        *(s["StackId"] for s in aws.client("cloudformation").describe_stacks()["Stacks"]),
        *(f"{b}/{o['Key']}" for b in buckets for o in s3.list_objects_v2(Bucket=b).get("Contents", [])),
    }


def get(url: str, **options) -> requests.Response:
    return requests.get(url, timeout=30, **options)


def status(aws: Aws) -> str:
    return aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]


def live_version(aws: Aws, function: str) -> str:
    alias = aws.client("lambda").get_alias(FunctionName=f"{STACK}-{function}", Name="live")
    return alias["FunctionVersion"]


def broken(built: Path, function: str) -> Path:
    """The template with one more resource. Making it fails, after the alias of `function` has moved to a new version."""
    template = yaml_parse((built / "template.yaml").read_text())
    template["Resources"]["SecondLive"] = {
        "Type": "AWS::Lambda::Alias",
        "DependsOn": f"{function}FunctionAliaslive",
        "Properties": {"FunctionName": {"Ref": f"{function}Function"}, "FunctionVersion": "$LATEST", "Name": "live"},
    }
    path = built / "broken.yaml"
    path.write_text(yaml_dump(template))
    return path


def data_of(aws: Aws) -> set[str]:
    """The stack's tables that are not caches."""
    caches = {cache for function in DECLARED.values() for cache in function.get("caches", [])}
    pages = aws.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
    tables = pages.search("StackResourceSummaries[?ResourceType=='AWS::DynamoDB::Table'][]")
    return {table["PhysicalResourceId"] for table in tables if table["LogicalResourceId"] not in caches}


def plain(url: str) -> tuple[int, str]:
    """The status and the type of a plain answer."""
    answer = get(url)
    return answer.status_code, answer.headers["content-type"]


def test_the_life_of_a_stack(aws: Aws, built: Path, stack: str, upstreams: list[str]) -> None:
    # `stack` comes first: SAM makes its own bucket with it. The bucket stays, and must not count as left by this stack.
    before = inventory(aws)
    given = ["Stage=prod", *upstreams]

    # After the deployment, every function answers at its URL in the outputs, as it does elsewhere.
    aws.deploy(STACK, *given, env="prod")
    assert status(aws) == "CREATE_COMPLETE"
    outputs, elsewhere = aws.outputs(STACK), aws.outputs(stack)
    urls = {name: aws.reachable(url) for name, url in outputs.items() if name.endswith("Url")}
    assert len(urls) >= len({*ROUTER.values()}) + 1
    # One without a condition, which has a route.
    unconditional = TEMPLATE["Resources"]["Fn::ForEach::Functions"][1]
    function, own_url = next((name, own) for name in unconditional if (own := f"{name.replace('-', '')}Url") in urls)
    url = urls[own_url]
    answers = {name: plain(url) for name, url in urls.items()}
    assert answers == {name: plain(aws.reachable(elsewhere[name])) for name in urls}

    # Changed parameters take effect: there are new versions, and the aliases point to them.
    version = live_version(aws, function)
    changed = [*given, "CorsAllowOrigins=https://a.example,https://b.example", "LogLevel=WARN", *["Docs=off"] * ("docsUrl" in urls)]
    aws.deploy(STACK, *changed, env="prod")
    assert status(aws) == "UPDATE_COMPLETE"
    assert live_version(aws, function) != version
    for origin, allowed in [("https://b.example", "https://b.example"), ("https://c.example", None)]:
        assert get(url, headers={"origin": origin}).headers.get("access-control-allow-origin") == allowed
    preflight = {"origin": "https://b.example", "access-control-request-method": "GET"}
    preflight["access-control-request-headers"] = "authorization"
    answer = requests.options(url, headers=preflight, timeout=30)
    assert "authorization" in answer.headers["access-control-allow-headers"].split(",")
    assert "docsUrl" not in urls or get(urls["docsUrl"]).status_code == 404

    # An update that fails half-way is rolled back, and the old version keeps answering.
    version = live_version(aws, function)
    failed = aws.deploy(STACK, *changed, "LogLevel=DEBUG", env="prod", template=broken(built, function), check=False)
    assert failed.returncode != 0
    assert "already exists" in failed.stdout
    assert (status(aws), live_version(aws, function)) == ("UPDATE_ROLLBACK_COMPLETE", version)
    assert plain(url) == answers[own_url]

    # After deletion, nothing is left behind except the data that prod keeps, and nothing answers.
    assert inventory(aws) != before
    kept = data_of(aws)
    aws.delete(STACK, env="prod")
    assert inventory(aws) - before == kept
    assert get(url).status_code == 404


def token_of(aws: Aws) -> tuple[str, str, str]:
    """A token of a user of the emulated Cognito, its issuer and its audience."""
    cognito, secret = aws.client("cognito-idp"), "Correct-horse-1"
    pool = cognito.create_user_pool(PoolName="callers")["UserPool"]["Id"]
    flows = ["ALLOW_USER_PASSWORD_AUTH"]
    client = cognito.create_user_pool_client(UserPoolId=pool, ClientName="test", ExplicitAuthFlows=flows)["UserPoolClient"]["ClientId"]
    cognito.admin_create_user(UserPoolId=pool, Username="ada")
    cognito.admin_set_user_password(UserPoolId=pool, Username="ada", Password=secret, Permanent=True)
    credentials = {"USERNAME": "ada", "PASSWORD": secret}
    result = cognito.initiate_auth(ClientId=client, AuthFlow="USER_PASSWORD_AUTH", AuthParameters=credentials)
    token = result["AuthenticationResult"]["AccessToken"]
    return token, jwt.decode(token, options={"verify_signature": False})["iss"], client


@pytest.fixture(scope="module")
def api_with_issuer(aws: Aws, built: Path) -> Iterator[SimpleNamespace]:
    """An API that wants a token: its URL, a token, and one that somebody else signed."""
    token, issuer, audience = token_of(aws)
    aws.deploy("tokens", "Stage=dev", f"JwtIssuer={issuer}", f"JwtAudience={audience},another")
    url = aws.reachable(aws.outputs("tokens")["ApiUrl"]).rstrip("/")
    yield SimpleNamespace(url=url, token=token, other=caller.token("ada", issuer=issuer))
    aws.delete("tokens")


def test_an_api_with_an_issuer_lets_only_callers_with_its_tokens_in(aws: Aws, api_with_issuer: SimpleNamespace, stack: str) -> None:
    url, elsewhere = api_with_issuer.url, aws.reachable(aws.outputs(stack)["ApiUrl"]).rstrip("/")

    def statuses(api: str, paths: list[str], given: str | None = None) -> list[int]:
        return [get(api + path, headers={"authorization": f"Bearer {given}"} if given else {}).status_code for path in paths]

    declared = {path for function in DECLARED.values() for path in function.get("public", [])}
    public, protected = ([re.sub(r"\{.*?\}", "a", route) for route in ROUTER if (proofs.gateways(route) in declared) == is_public] for is_public in (True, False))
    refused = [statuses(url, protected, token) for token in (None, "none", api_with_issuer.other)]
    assert refused == [[401] * len(protected)] * 3
    assert 401 not in statuses(url, protected, api_with_issuer.token)
    assert statuses(url, public) == statuses(elsewhere, public) and 401 not in statuses(url, public)


# The contract of each endpoint would take as long again as test_contract.py. The emulator answers OPTIONS itself.
PART = "test_api and not OPTIONS"
to_protected = pytest.mark.skipif(
    not any(case.values[0]["path"].partition("?")[0] in PROTECTED for case in cases()), reason="no case can be sent to a path that needs a token"
)


def smoke(api: SimpleNamespace, token: str, only: str) -> tuple[int, str]:
    """Runs the tests of `make smoke` that match `only`, and returns the exit code and what is printed."""
    # For make, a dollar is two.
    url = api.url.replace("$", "$$")
    done = run("make", "smoke", f"API_URL={url}", TOKEN=token, PYTEST_ADDOPTS=f"-q -rs -k '{only}'")
    assert not token or token not in done.stdout + done.stderr
    return done.returncode, done.stdout


def test_with_the_token_everything_is_tested(api_with_issuer: SimpleNamespace) -> None:
    status, output = smoke(api_with_issuer, api_with_issuer.token, PART)
    assert status == 0 and "needs a token" not in output, output


@in_ci
@to_protected
def test_without_the_token_what_is_public_is_tested(api_with_issuer: SimpleNamespace) -> None:
    status, output = smoke(api_with_issuer, "", PART)
    assert status == 0, output
    assert "the API needs a token here: put one into the environment variable TOKEN" in output
    assert "the API needs no token" not in output


@in_ci
@to_protected
def test_a_wrong_token_fails_and_is_not_printed(api_with_issuer: SimpleNamespace) -> None:
    status, output = smoke(api_with_issuer, api_with_issuer.other, "a_case")
    assert status != 0 and "test_a_case_gets_its_answer" in output, output


@in_ci
@pytest.mark.parametrize("has_token", [True, False])
def test_a_path_that_forgets_the_token_fails(aws: Aws, api_with_issuer: SimpleNamespace, has_token: bool) -> None:
    if not has_token and len(PROTECTED) == 1:
        pytest.skip("without its one token, the API is as one that needs none")
    gateway, api = aws.client("apigatewayv2"), api_with_issuer.url.split("/execute-api/")[1].split("/")[0]
    route = next(route for route in gateway.get_routes(ApiId=api)["Items"] if route["RouteKey"] == f"ANY {PROTECTED[-1]}")
    gateway.update_route(ApiId=api, RouteId=route["RouteId"], AuthorizationType="NONE")
    status, output = smoke(api_with_issuer, api_with_issuer.token if has_token else "", "with_tokens")
    assert status != 0 and "test_an_api_with_tokens_wants_one_on_every_path" in output, output


def test_without_an_address_it_tests_nothing_and_fails() -> None:
    """deploy.yml passes on what `make url` prints, which is nothing if that fails."""
    done = run("make", "smoke", "API_URL=", PYTEST_ADDOPTS="--collect-only --quiet")
    assert done.returncode != 0 and "API_URL" in done.stdout and "test_api.py" not in done.stdout, done.stdout

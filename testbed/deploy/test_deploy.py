"""The life of a stack: the SAM CLI deploys, updates, rolls back and deletes it, with calls in between.

test_api.py calls another stack, with dev's settings; this one has prod's.
"""

from pathlib import Path

import caller
import jwt
import proofs
import requests
from aws import Aws
from harness import PLAIN, PROTECTED, ROOT, ROUTER
from samcli.yamlhelper import yaml_dump, yaml_parse

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
    functions = proofs.declarations(ROOT / "functions").values()
    caches = {cache for function in functions for cache in function.get("caches", [])}
    pages = aws.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
    return {
        resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::DynamoDB::Table" and resource["LogicalResourceId"] not in caches
    }


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
    # One of those without a condition.
    function = TEMPLATE["Resources"]["Fn::ForEach::Functions"][1][0]
    own_url = f"{function.replace('-', '')}Url"
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


def test_an_api_with_an_issuer_lets_only_callers_with_its_tokens_in(aws: Aws, built: Path, stack: str) -> None:
    token, issuer, audience = token_of(aws)
    aws.deploy("tokens", "Stage=dev", f"JwtIssuer={issuer}", f"JwtAudience={audience},another")
    url, elsewhere = (aws.reachable(aws.outputs(name)["ApiUrl"]).rstrip("/") for name in ("tokens", stack))

    def statuses(api: str, paths: list[str], given: str | None = None) -> list[int]:
        return [get(api + path, headers={"authorization": f"Bearer {given}"} if given else {}).status_code for path in paths]

    public = [path for path in PLAIN if path not in PROTECTED]
    other = caller.token("ada", issuer=issuer)
    assert statuses(url, PROTECTED) == statuses(url, PROTECTED, "none") == statuses(url, PROTECTED, other) == [401] * len(PROTECTED)
    assert 401 not in statuses(url, PROTECTED, token)
    assert statuses(url, public) == statuses(elsewhere, public) and 401 not in statuses(url, public)
    aws.delete("tokens")

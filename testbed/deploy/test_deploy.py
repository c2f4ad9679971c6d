"""The life of a stack: the SAM CLI deploys, updates, rolls back and deletes it, with calls in between.

test_api.py calls another stack, with dev's settings; this one has prod's.
"""

from collections.abc import Callable
from pathlib import Path

import proofs
import requests
from aws import Aws
from harness import ROOT, Upstream, wait_for
from samcli.yamlhelper import yaml_dump, yaml_parse

STACK = "life"


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


def broken(built: Path) -> Path:
    """The template with one more resource. Making it fails, after the alias of `fetch` has moved to a new version."""
    template = yaml_parse((built / "template.yaml").read_text())
    template["Resources"]["SecondLive"] = {
        "Type": "AWS::Lambda::Alias",
        "DependsOn": "fetchFunctionAliaslive",
        "Properties": {"FunctionName": {"Ref": "fetchFunction"}, "FunctionVersion": "$LATEST", "Name": "live"},
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


def fetch_is_given(aws: Aws) -> tuple[set[str], dict[str, str]]:
    """Returns the policies of its role, and its environment variables."""
    function = aws.client("lambda").get_function_configuration(FunctionName=f"{STACK}-fetch", Qualifier="live")
    policies = aws.client("iam").list_role_policies(RoleName=function["Role"].rpartition("/")[2])["PolicyNames"]
    return set(policies), function["Environment"]["Variables"]


def test_the_life_of_a_stack(aws: Aws, built: Path, stack: str, start_upstream: Callable[[str], Upstream]) -> None:
    # `stack` comes first: SAM makes its own bucket with it. The bucket stays, and must not count as left by this stack.
    before = inventory(aws)
    old, new, never = (start_upstream(name) for name in ("old", "new", "never"))
    secret = aws.client("secretsmanager").create_secret(Name="upstream", SecretString="token")["ARN"]

    # After the deployment, it answers at the URLs in its outputs.
    aws.deploy(STACK, "Stage=prod", f"UpstreamUrl={old.url}", env="prod")
    assert status(aws) == "CREATE_COMPLETE"
    urls = {name: aws.reachable(url) for name, url in aws.outputs(STACK).items() if name.endswith("Url")}
    assert {"ApiUrl", "helloUrl", "timeUrl", "docsUrl", "fetchUrl"} <= urls.keys()
    assert get(urls["ApiUrl"]).text == "Hello, world!"
    assert get(urls["helloUrl"]).text == "Hello, world!"
    assert get(urls["timeUrl"]).text.startswith("Current time: ")
    assert get(urls["docsUrl"]).headers["content-type"] == "text/html; charset=utf-8"
    assert "/time" in get(urls["docsUrl"] + "/openapi.json").json()["paths"]
    assert get(urls["fetchUrl"]).content == old.body
    policies, variables = fetch_is_given(aws)
    assert policies == {"logs"}
    assert "UPSTREAM_SECRET_ID" not in variables

    # Changed parameters take effect: there is a new version, and the alias points to it.
    version = live_version(aws, "fetch")
    changed = ["Stage=prod", f"UpstreamSecretId={secret}", "CorsAllowOrigins=https://a.example,https://b.example"]
    aws.deploy(STACK, *changed, f"UpstreamUrl={new.url}", env="prod")
    assert status(aws) == "UPDATE_COMPLETE"
    assert live_version(aws, "fetch") != version
    assert get(urls["fetchUrl"]).content == new.body
    policies, variables = fetch_is_given(aws)
    assert policies == {"logs", "upstream-secret"}
    assert variables["UPSTREAM_SECRET_ID"] == secret
    # No token before there is a secret, then the secret's, then the rotated one, loaded after the upstream's 401.
    aws.client("secretsmanager").put_secret_value(SecretId=secret, SecretString="rotated")
    new.accepts = "Bearer rotated"
    assert get(urls["fetchUrl"]).content == new.body
    assert (old.authorizations[-1], new.authorizations) == (None, ["Bearer token", "Bearer token", "Bearer rotated"])
    for origin, allowed in [("https://b.example", "https://b.example"), ("https://c.example", None)]:
        assert get(urls["helloUrl"], headers={"origin": origin}).headers.get("access-control-allow-origin") == allowed

    preflight = {"origin": "https://b.example", "access-control-request-method": "GET"}
    preflight["access-control-request-headers"] = "authorization"
    answer = requests.options(urls["helloUrl"], headers=preflight, timeout=30)
    assert "authorization" in answer.headers["access-control-allow-headers"].split(",")

    # With SharedState=on, a new version answers with the shared response while the upstream is down.
    version = live_version(aws, "fetch")
    aws.deploy(STACK, *changed, "SharedState=on", f"UpstreamUrl={new.url}", env="prod")
    assert live_version(aws, "fetch") != version
    policies, variables = fetch_is_given(aws)
    assert policies == {"logs", "upstream-secret", "shared-state"}
    dynamodb = aws.client("dynamodb")
    table = dynamodb.describe_table(TableName=variables["SHARED_STATE_TABLE"])["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"

    def written() -> bool:
        # On a busy machine, the table can be too slow at first, and is then left alone for a while.
        assert get(urls["fetchUrl"]).content == new.body
        return {item["part"]["S"] for item in dynamodb.scan(TableName=table["TableName"])["Items"]} == {"response", "upstream"}

    wait_for(written, "the response in the table", 60)
    new.status = 503
    aws.deploy(STACK, *changed, "SharedState=on", "LogLevel=WARN", f"UpstreamUrl={new.url}", env="prod")
    stored = get(urls["fetchUrl"])
    assert (stored.status_code, stored.content) == (200, new.body)
    assert stored.headers["cache-status"].startswith("shared; hit; ttl=")
    new.status = 200
    changed += ["SharedState=off", "Docs=off"]
    aws.deploy(STACK, *changed, f"UpstreamUrl={new.url}", env="prod")
    assert fetch_is_given(aws)[0] == {"logs", "upstream-secret"}
    assert get(urls["docsUrl"]).status_code == 404
    assert table["TableName"] not in dynamodb.list_tables()["TableNames"]
    assert get(urls["fetchUrl"]).content == new.body

    # An update that fails half-way is rolled back, and the old version keeps answering.
    failed = aws.deploy(STACK, *changed, f"UpstreamUrl={never.url}", env="prod", template=broken(built), check=False)
    assert failed.returncode != 0
    assert "already exists" in failed.stdout
    assert status(aws) == "UPDATE_ROLLBACK_COMPLETE"
    assert get(urls["fetchUrl"]).content == new.body
    assert get(urls["helloUrl"]).text == "Hello, world!"

    # After deletion, nothing is left behind except the data that prod keeps, and nothing answers.
    assert inventory(aws) != before
    kept = data_of(aws)
    aws.delete(STACK, env="prod")
    assert inventory(aws) - before == kept
    assert get(urls["helloUrl"]).status_code == 404

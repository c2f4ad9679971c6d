"""`fetch` in a stack: its parameters take effect in a new version, with the permissions for them and no others."""

from collections.abc import Callable
from pathlib import Path

import requests
from aws import Aws
from harness import Upstream, wait_for

STACK = "fetches"


def get(url: str) -> requests.Response:
    return requests.get(url, timeout=30)


def given(aws: Aws) -> tuple[str, set[str], dict[str, str]]:
    """The version that answers, the policies of its role, and its environment variables."""
    function = aws.client("lambda").get_function_configuration(FunctionName=f"{STACK}-fetch", Qualifier="live")
    policies = aws.client("iam").list_role_policies(RoleName=function["Role"].rpartition("/")[2])["PolicyNames"]
    return function["Version"], set(policies), function["Environment"]["Variables"]


def test_parameters_take_effect(aws: Aws, built: Path, start_upstream: Callable[[str], Upstream]) -> None:
    old, new = start_upstream("old"), start_upstream("new")
    secret = aws.client("secretsmanager").create_secret(Name="upstream", SecretString="token")["ARN"]
    aws.deploy(STACK, "Stage=prod", f"UpstreamUrl={old.url}", env="prod")
    url = aws.reachable(aws.outputs(STACK)["fetchUrl"])
    assert get(url).content == old.body
    first, policies, variables = given(aws)
    assert policies == {"logs"} and "UPSTREAM_SECRET_ID" not in variables

    # No token before there is a secret, then the secret's, then the rotated one, loaded after the upstream's 401.
    changed = ["Stage=prod", f"UpstreamSecretId={secret}", f"UpstreamUrl={new.url}"]
    aws.deploy(STACK, *changed, env="prod")
    assert get(url).content == new.body
    second, policies, variables = given(aws)
    assert second != first and policies == {"logs", "upstream-secret"} and variables["UPSTREAM_SECRET_ID"] == secret
    aws.client("secretsmanager").put_secret_value(SecretId=secret, SecretString="rotated")
    new.accepts = "Bearer rotated"
    assert get(url).content == new.body
    assert (old.authorizations[-1], new.authorizations) == (None, ["Bearer token", "Bearer token", "Bearer rotated"])

    # With SharedState=on, a new version answers with the shared response while the upstream is down.
    aws.deploy(STACK, *changed, "SharedState=on", env="prod")
    third, policies, variables = given(aws)
    assert third != second and policies == {"logs", "upstream-secret", "shared-state"}
    dynamodb, table = aws.client("dynamodb"), variables["SHARED_STATE_TABLE"]

    def written() -> bool:
        # On a busy machine, the table can be too slow at first, and is then left alone for a while.
        assert get(url).content == new.body
        return {item["part"]["S"] for item in dynamodb.scan(TableName=table)["Items"]} == {"response", "upstream"}

    wait_for(written, "the response in the table", 60)
    new.status = 503
    aws.deploy(STACK, *changed, "SharedState=on", "LogLevel=WARN", env="prod")
    stored = get(url)
    assert (stored.status_code, stored.content) == (200, new.body)
    assert stored.headers["cache-status"].startswith("shared; hit; ttl=")
    new.status = 200
    aws.deploy(STACK, *changed, "SharedState=off", env="prod")
    assert given(aws)[1] == {"logs", "upstream-secret"}
    assert table not in dynamodb.list_tables()["TableNames"]
    assert get(url).content == new.body
    aws.delete(STACK, env="prod")

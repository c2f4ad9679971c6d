"""`fetch` and AWS: the packaged function under a Runtime API, with the emulator's Secrets Manager and its access control switched on;
and in a stack, whose parameters take effect in a new version, with the permissions for them and no others."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from aws import Aws
from harness import REGION, Upstream, emulator_environment, free_port, wait_for
from shared_fixtures import emulator, environment_of

EVENT = json.dumps({"request": {"path": "/fetch"}})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with emulator(tmp_path_factory.mktemp("guarded"), AUTH="true") as aws:
        yield aws


@contextmanager
def fetching(command: list[str], log: Path, **env: str) -> Iterator[Callable[[], tuple[int, str]]]:
    """Starts `fetch`. Call the result to get the status, and "good" or the problem's type."""
    with environment_of(command, log, env) as invoke:

        def fetch() -> tuple[int, str]:
            answer = invoke(EVENT)
            if answer["headers"]["content-type"] == "application/problem+json":
                return answer["statusCode"], json.loads(answer["body"])["type"].removeprefix("urn:problem-type:")
            return answer["statusCode"], "good"

        yield fetch


def settings(aws: Aws, upstream: Upstream, secret: str) -> dict[str, str]:
    # Answers are not stored, so that each call needs the secret.
    return emulator_environment(aws.endpoint) | {
        "UPSTREAM_URL": upstream.url,
        "UPSTREAM_SECRET_ID": secret,
        "STALE_IF_ERROR_SECONDS": "0",
    }


def test_the_token_is_loaded_once_and_again_when_it_is_refused(
    guarded: Aws, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    secrets = guarded.client("secretsmanager")
    arn = secrets.create_secret(Name="rotated", SecretString="planted-1")["ARN"]
    upstream = start_upstream("rotating")
    upstream.accepts = "Bearer planted-1"
    log = tmp_path / "log"
    with fetching(invoke, log, **settings(guarded, upstream, arn)) as fetch:
        assert upstream.authorizations == []
        assert [fetch(), fetch()] == [(200, "good")] * 2
        secrets.put_secret_value(SecretId=arn, SecretString="planted-2")
        assert fetch() == (200, "good"), "the old token is used as long as it is good"
        upstream.accepts = "Bearer planted-2"
        assert fetch() == (200, "good")
        # The upstream refuses every token: the secret is loaded again, but not for every request.
        upstream.accepts = "Bearer planted-3"
        assert [fetch(), fetch()] == [(502, "upstream-error")] * 2
    sent = [authorization.removeprefix("Bearer planted-") for authorization in upstream.authorizations]
    assert sent == ["1", "1", "1", "1", "2", "2", "2"]
    lines = log.read_text()
    assert '"cache_status":' in lines and "planted" not in lines


def test_the_token_is_a_member_of_a_json_secret(
    guarded: Aws, invoke: list[str], start_upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    secrets = guarded.client("secretsmanager")
    arn = secrets.create_secret(Name="json", SecretString='{"user":"planted","token":"planted-1"}\n')["ARN"]
    upstream = start_upstream("json")
    upstream.accepts = "Bearer planted-1"
    log = tmp_path / "log"
    env = settings(guarded, upstream, arn) | {"UPSTREAM_SECRET_JSON_KEY": "token"}
    with fetching(invoke, log, **env) as fetch:
        assert fetch() == (200, "good")
        # Rotated to a plain text: that is an operator's mistake, and not sent.
        secrets.put_secret_value(SecretId=arn, SecretString="planted-2")
        upstream.accepts = "Bearer planted-2"
        assert fetch() == (500, "misconfigured")
    assert upstream.authorizations == ["Bearer planted-1"] * 2
    lines = log.read_text()
    assert "is no JSON object" in lines and "planted" not in lines


@pytest.mark.parametrize(
    ("secret", "value", "json_key", "reason"),
    [
        ("absent", None, "", "ResourceNotFound"),
        ("denied", {"SecretString": "planted"}, "", "AccessDenied"),
        ("empty", {"SecretString": " "}, "", "holds no text"),
        ("binary", {"SecretBinary": b"planted"}, "", "is binary"),
        ("object", {"SecretString": '{"token":"planted"}'}, "", "name its member in UPSTREAM_SECRET_JSON_KEY"),
        ("string", {"SecretString": '"planted"'}, "", "is no token"),
        ("scheme", {"SecretString": "Bearer planted"}, "", "begins with `Bearer`"),
        ("member", {"SecretString": '{"tokens":"planted"}'}, "token", "has no member"),
        ("list", {"SecretString": '{"token":["planted"]}'}, "token", "is no string"),
        ("twice", {"SecretString": '{"token":"planted","token":"planted"}'}, "token", "more than once"),
    ],
)
def test_a_secret_that_cannot_be_used_is_a_misconfiguration(
    guarded: Aws,
    invoke: list[str],
    start_upstream: Callable[[str], Upstream],
    tmp_path: Path,
    secret: str,
    value: dict | None,
    json_key: str,
    reason: str,
) -> None:
    upstream = start_upstream(secret)
    arn = f"arn:aws:secretsmanager:{REGION}:000000000000:secret:absent-AbCdEf"
    if value:
        arn = guarded.client("secretsmanager").create_secret(Name=secret, **value)["ARN"]
    env = settings(guarded, upstream, arn) | {"UPSTREAM_SECRET_JSON_KEY": json_key}
    if secret == "denied":
        iam = guarded.client("iam")
        iam.create_user(UserName="nobody")
        key = iam.create_access_key(UserName="nobody")["AccessKey"]
        env |= {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    log = tmp_path / "log"
    with fetching(invoke, log, **env) as fetch:
        assert fetch() == (500, "misconfigured")
    assert upstream.authorizations == []
    lines = log.read_text()
    assert reason in lines and "planted" not in lines


def test_a_secret_that_cannot_be_reached_is_not_a_misconfiguration(
    invoke: list[str], upstream: Upstream, guarded: Aws, tmp_path: Path
) -> None:
    nobody = Aws.__new__(Aws)
    nobody.endpoint = f"http://127.0.0.1:{free_port()}"
    with fetching(invoke, tmp_path / "log", **settings(nobody, upstream, "any")) as fetch:
        assert fetch() == (503, "upstream-unavailable")


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

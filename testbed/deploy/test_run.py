"""`make run` starts each function with its own settings, with the upstream that they name, and with a local AWS if it needs one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import emulator
import pytest
import requests
from harness import ROOT, answered, environment, run, wait_for

TEMPLATE = """\
Parameters:
  Bucket: { Type: String, Default: none }
Conditions:
  HasCache: !Equals [!Ref Bucket, some]
Resources:
  OrdersTable:
    Type: AWS::DynamoDB::Table
    DeletionPolicy: Retain
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]

  Fn::ForEach::Tables:
    - Name
    - [Others, Notes]
    - "&{Name}Table":
        Type: AWS::DynamoDB::Table
        Properties:
          BillingMode: PAY_PER_REQUEST
          AttributeDefinitions: [{ AttributeName: pk, AttributeType: S }]
          KeySchema: [{ AttributeName: pk, KeyType: HASH }]

  CacheTable:
    Type: AWS::DynamoDB::Table
    # Optional.
    Condition: HasCache
    Properties: { BillingMode: PAY_PER_REQUEST }

  OtherTable:
    Type: AWS::DynamoDB::Table
    Properties: { BillingMode: PAY_PER_REQUEST }

  OrdersSecret:
    Type: AWS::SecretsManager::Secret
    Properties: { GenerateSecretString: {} }

  OrdersQueue:
    Type: AWS::SQS::Queue
    Properties: { RedrivePolicy: { maxReceiveCount: 3, deadLetterTargetArn: !GetAtt LostQueue.Arn } }

  LostQueue:
    Type: AWS::SQS::Queue

  OrdersBucket:
    Type: AWS::S3::Bucket

  ordersFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/orders
      Environment:
        Variables:
          ORDERS_TABLE: !Ref OrdersTable
          NOTES_TABLE: !Ref NotesTable
          ORDERS_QUEUE: !GetAtt OrdersQueue.QueueName
          ORDERS_SECRET_ID: !Sub "${OrdersSecret}"
          CACHE_TABLE: !If [HasCache, !Ref CacheTable, !Ref AWS::NoValue]
          FILES: !Ref OrdersBucket
          BUCKET: !Ref Bucket
"""
CARGO_TOML = """\
[package.metadata.endpoint.permissions]
OrdersTable = ["dynamodb:PutItem"]
NotesTable = ["dynamodb:PutItem"]
"OrdersTable/index/by-day" = ["dynamodb:Query"]
OrdersSecret = ["secretsmanager:GetSecretValue"]
OrdersQueue = ["sqs:SendMessage"]
"OrdersBucket/*" = ["s3:PutObject"]
CacheTable = ["dynamodb:PutItem"]

[dependencies]
OtherTable = "1"
"""
SPEC = """\
security: [{}, { jwt: [] }]
paths:
  /orders/{rest}:
    get: { responses: {}, security: [{ jwt: [] }] }
    head: { responses: {} }
  /open:
    get: { responses: {}, security: [] }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one function that has a table, a secret, a queue and a bucket."""
    (tmp_path / "testbed").mkdir()
    (tmp_path / "functions/orders").mkdir(parents=True)
    shutil.copy(ROOT / "testbed/emulator.py", tmp_path / "testbed")
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "openapi.yaml").write_text(SPEC)
    (tmp_path / "functions/orders/Cargo.toml").write_text(CARGO_TOML)
    (tmp_path / "CargoLambda.toml").write_text('[watch.router]\n"/orders/{*rest}" = "orders"\n"/open" = "orders"\n')
    return tmp_path


@contextmanager
def running(tree: Path) -> Iterator[tuple[subprocess.Popen, dict]]:
    """`emulator.py --run`, with a command that prints what it was given and waits for the end of its input."""
    command = [sys.executable, str(tree / "testbed/emulator.py"), "--run", str(tree / "data"), "sh", "-c", "echo; echo $LOCAL_ENDPOINTS; read line"]
    with subprocess.Popen(command, cwd=tree, env=environment(LOG_LEVEL="of the functions", SERVICES="s3"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        given = next(line for line in run.stdout if line.startswith("{"))
        yield run, json.loads(given)["orders"]


def dynamodb(variables: dict, operation: str, **parameters: object) -> dict:
    body = json.dumps({"TableName": variables["ORDERS_TABLE"], **parameters}).encode()
    aws = emulator.Emulator(variables["AWS_ENDPOINT_URL"])
    headers = {"x-amz-target": f"DynamoDB_20120810.{operation}", "content-type": "application/x-amz-json-1.0"}
    return json.loads(aws.call("dynamodb", variables["AWS_ACCESS_KEY_ID"], body, **headers))


def gone(endpoint: str) -> bool:
    return answered(endpoint) is None


def test_a_function_gets_what_it_declares_and_its_items_outlive_a_run(tree: Path) -> None:
    item = {"id": {"S": "1"}}
    with running(tree) as (run, given):
        variables = given["variables"]
        assert {name for name in variables if not name.startswith("AWS_")} == {"ORDERS_TABLE", "NOTES_TABLE", "ORDERS_QUEUE", "ORDERS_SECRET_ID", "FILES"}
        assert (variables["ORDERS_TABLE"], variables["ORDERS_QUEUE"]) == ("OrdersTable", "OrdersQueue")
        stored = requests.put(f"{variables['AWS_ENDPOINT_URL']}/{variables['FILES']}/a", data=b"photo", timeout=60)
        assert stored.ok and requests.get(stored.url, timeout=60).content == b"photo", stored.text
        assert dynamodb(variables, "DescribeTable")["Table"]["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
        notes = variables | {"ORDERS_TABLE": variables["NOTES_TABLE"]}
        assert dynamodb(notes, "DescribeTable")["Table"]["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
        dynamodb(variables, "PutItem", Item=item)
    assert run.returncode == 1 and gone(variables["AWS_ENDPOINT_URL"])
    # A later run may have another template.
    (tree / "template.yaml").write_text(TEMPLATE.replace("          BUCKET:", "          SECOND: !Ref OrdersTable\n          BUCKET:"))
    with running(tree) as (_, given):
        assert given["variables"]["SECOND"] == "OrdersTable"
        assert dynamodb(given["variables"], "Scan")["Items"] == [item]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_make_run_however_that_ends(tree: Path, how: int) -> None:
    with running(tree) as (run, given):
        os.kill(run.pid, how)
        wait_for(lambda: gone(given["variables"]["AWS_ENDPOINT_URL"]), "the end of the emulator", 30)


@pytest.mark.parametrize("is_needed", [True, False])
def test_nothing_goes_on_when_the_terminal_is_closed(tree: Path, is_needed: bool) -> None:
    if not is_needed:
        (tree / "functions/orders/Cargo.toml").write_text("[package]\n")
        (tree / "openapi.yaml").write_text("paths: {}\n")
    # As cargo-lambda does.
    ignores = ["sh", "-c", "trap '' HUP; echo pid $$; read line"]
    command = [sys.executable, str(tree / "testbed/emulator.py"), "--run", str(tree / "data"), *ignores]
    with subprocess.Popen(command, cwd=tree, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        pid = int(next(line for line in run.stdout if line.startswith("pid ")).split()[1])
        os.kill(run.pid, signal.SIGHUP)
        run.wait(60)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_it_says_which_resource_the_local_aws_cannot_make(tree: Path) -> None:
    (tree / "template.yaml").write_text(TEMPLATE.replace("LostQueue.Arn", "NoQueue.Arn"))
    command = [sys.executable, str(tree / "testbed/emulator.py"), "--run", str(tree / "data"), "true"]
    done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "\nOrdersQueue: Invalid value for the parameter RedrivePolicy." in done.stderr, done.stderr


def test_it_says_why_there_is_no_local_aws(tree: Path) -> None:
    started = [tree / "testbed/emulator.py", "--accounts"]
    # A Python without packages.
    done = run(sys.executable, "-S", *started)
    assert done.returncode == 1 and "`make .venv/local` installs it" in done.stderr, done.stderr
    (tree / "testbed/ministack.py").write_text("app = None\n")
    done = run(sys.executable, *started)
    assert done.returncode == 1 and "'NoneType' object has no attribute 'main'" in done.stderr, done.stderr


def test_a_token_is_needed_where_the_contract_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "ROOT", tree)
    assert emulator.protected(emulator.parsed("openapi.yaml")) == {"orders": [["/orders/.+", ["HEAD", "OPTIONS"]]]}


def needed(tree: Path) -> bool:
    # With the Python of the machine, which has no packages.
    return subprocess.run(["python3", "-S", str(tree / "testbed/emulator.py"), "--needed"], cwd=tree).returncode == 0


def test_it_is_needed_only_for_what_is_always_there_and_for_tokens(tree: Path) -> None:
    (tree / "openapi.yaml").write_text("paths: {}\n")
    assert needed(tree)
    (tree / "functions/orders/Cargo.toml").write_text('[package.metadata.endpoint.permissions]\nCacheTable = []\nBucket = []\n\n[dependencies]\nOtherTable = "1"\n')
    assert not needed(tree)
    for security in ("[{ jwt: [] }]", "\n        - jwt: []"):
        (tree / "openapi.yaml").write_text(f"security: [{{}}]\npaths:\n  /orders:\n    get:\n      security: {security}\n")
        assert needed(tree)
    for security in ("[]", "[{}, { jwt: [] }]"):
        (tree / "openapi.yaml").write_text(f"paths:\n  /orders:\n    get:\n      security: {security}\n")
        assert not needed(tree)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Starts the function `orders`, which prints its settings and waits for the end of its input."""
    (tmp_path / "testbed").mkdir()
    shutil.copy(ROOT / "testbed/settings.py", tmp_path / "testbed")
    (tmp_path / "events/orders").mkdir(parents=True)
    (tmp_path / "events/orders/settings.json").write_text('{ "PRICES_URL": "{upstream}/prices", "CURRENCY": "EUR" }')
    (tmp_path / "orders").write_text("#!/bin/sh\necho $PRICES_URL $CURRENCY $1 $AWS_REGION $AWS_SESSION_TOKEN $AWS_OPERATION_TIMEOUT_MS\nread line\n")
    (tmp_path / "orders").chmod(0o755)
    return [sys.executable, str(tmp_path / "testbed/settings.py"), "http://api", str(tmp_path / "orders"), "argument"]


@pytest.mark.parametrize(("own", "told"), [({}, "EUR"), ({"CURRENCY": "SEK"}, "SEK")])
def test_a_function_has_its_settings_unless_the_environment_has_them(command: list[str], own: dict, told: str) -> None:
    done = run(*command, **own)
    assert done.stdout == f"http://api/prices {told} argument\n", done.stderr


def test_a_client_of_aws_has_what_it_needs_beside_its_address(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "events/orders/settings.json").write_text('{ "AWS_ENDPOINT_URL_SQS": "{upstream}", "AWS_REGION": "there" }')
    done = run(*command)
    assert done.stdout == "argument there 60000\n", done.stderr


def test_its_aws_is_the_local_one_whatever_the_environment_says(command: list[str]) -> None:
    local = {"orders": {"variables": {"PRICES_URL": "local", "CURRENCY": "local", "AWS_REGION": "here", "AWS_OPERATION_TIMEOUT_MS": "60000"}}, "other": {}}
    done = run(*command, LOCAL_ENDPOINTS=json.dumps(local), CURRENCY="SEK", AWS_REGION="there", AWS_OPERATION_TIMEOUT_MS="1", AWS_SESSION_TOKEN="real")
    assert done.stdout == "local SEK argument here 1\n", done.stderr


@pytest.mark.parametrize("written", ["{", "[]", '{ "LIMIT": 3 }'])
def test_invalid_settings_are_reported_by_the_function_and_before_make_run(command: list[str], tmp_path: Path, written: str) -> None:
    check = [*command[:2], "--check"]
    assert run(*check).returncode == 0
    (tmp_path / "events/orders/settings.json").write_text(written)
    for started in (command, check):
        done = run(*started)
        assert done.returncode != 0 and done.stderr.startswith(f"{tmp_path}/events/orders/settings.json: "), done.stderr


def test_its_upstream_answers_as_long_as_it_runs(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "events/orders/upstream.json").write_text('{ "price": 3 }')
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        url = running.stdout.readline().split()[0]
        assert requests.get(url, timeout=30).json() == requests.post(url, data="a" * 99_999, timeout=30).json() == {"price": 3}
        head = requests.head(url, timeout=30)
        assert (head.headers["content-type"], head.content) == ("application/json", b"")
    wait_for(lambda: gone(url), "the end of the upstream", 30)

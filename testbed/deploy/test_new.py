"""`make new` adds endpoints to a copy of this repository, which passes its tests without an edit under testbed/.

Their names begin with `made`, as a team may have endpoints of its own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from harness import ROOT, environment


TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new repository with the files that git tracks or would add. Cargo reuses what has been compiled here, because
    it compares paths within the workspace and the times of files."""
    copy = tmp_path_factory.mktemp("copy")
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    ).splitlines()
    for file in filter(lambda file: (ROOT / file).exists(), listed):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    for command in (
        "git init --quiet",
        "git add --all --force",
        "git -c user.name=test -c user.email=test@example.com commit --quiet --message=all",
    ):
        subprocess.run(command.split(), cwd=copy, check=True)
    for fingerprints in chain(TARGET.glob("*/.fingerprint"), TARGET.glob("*-linux-gnu/release/.fingerprint")):
        for folder in (fingerprints, fingerprints.with_name("build"), fingerprints.with_name("deps")):
            shutil.copytree(
                folder, copy / "target" / folder.relative_to(TARGET), ignore=executables, copy_function=link
            )
    # The path of its workspace is compiled into it, so it must be compiled again.
    (copy / "testbed/src/lib.rs").touch()
    yield copy
    shutil.rmtree(copy / "target")


def link(source: str, target: str) -> None:
    """Links files that the compiler replaces. Copies the others, which may be changed in place."""
    if Path(source).suffix in (".rlib", ".rmeta", ".so"):
        try:
            return os.link(source, target)
        except OSError:  # another file system
            pass
    shutil.copy2(source, target)


def executables(folder: str, names: list[str]) -> list[str]:
    """The test executables, not copied: they are large, and link in a second. A release's takes a minute."""
    return [name for name in names if Path(folder).parts[-2:] == ("debug", "deps") and not Path(name).suffix]


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = environment(CARGO_TARGET_DIR=str(copy / "target"))
    return subprocess.run(command, cwd=copy, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL)


def passes(copy: Path, *command: str) -> str:
    done = run(copy, *command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def changes(copy: Path) -> set[str]:
    return set(passes(copy, "git", "status", "--short").splitlines())


def undo(copy: Path) -> None:
    passes(copy, "git", "checkout", "--quiet", ".")
    passes(copy, "git", "clean", "--quiet", "--force", "-d")
    assert changes(copy) == set()


def edit(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert text.count(old) == 1, f"{old!r} in {file}"
    (copy / file).write_text(text.replace(old, new))


def make_public_webhook(copy: Path) -> None:
    """A webhook that needs no token, with a setting, a secret that it may read, and a table for data."""
    passes(copy, "make", "new", "NAME=madehook", "METHODS=POST")
    edit(copy, "functions/madehook/Cargo.toml", "[[bin]]", """[package.metadata.endpoint]
public = ["/madehook"]

[package.metadata.endpoint.permissions]
UpstreamSecretId = ["secretsmanager:GetSecretValue"]
MadeHooksTable = ["dynamodb:PutItem"]

[[bin]]""")
    (copy / "events/madehook/settings.json").write_text('{ "HOOK_SOURCE": "test" }\n')
    edit(copy, "functions/madehook/src/main.rs", "    json(", """    std::env::var("HOOK_SOURCE").map_err(Problem::misconfigured)?;
    json(""")
    token = '          "/madehook": { x-amazon-apigateway-any-method: { security: !If [HasJwt, [{ jwt: [] }], !Ref AWS::NoValue] } }\n'
    edit(copy, "template.yaml", token, "")
    described = "      Role: !GetAtt madehookRole.Arn\n      VersionDescription: "
    edit(copy, "template.yaml", described + "!Ref LogLevel\n", described + """!Sub ${LogLevel} ${Stage}
      Environment: { Variables: { HOOK_SOURCE: !Ref Stage } }
""")
    edit(copy, "template.yaml", "  madehookFunction:\n", """  madehookSecretPolicy:
    Type: AWS::IAM::Policy
    Condition: HasUpstreamSecret
    Properties:
      PolicyName: madehook-secret
      Roles: [!Ref madehookRole]
      PolicyDocument:
        Version: "2012-10-17"
        Statement: [{ Effect: Allow, Action: secretsmanager:GetSecretValue, Resource: !Ref UpstreamSecretId }]

  MadeHooksTable:
    Type: AWS::DynamoDB::Table
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
      SSESpecification: { SSEEnabled: true }
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }

  madehookTablePolicy:
    Type: AWS::IAM::Policy
    Properties:
      PolicyName: madehook-table
      Roles: [!Ref madehookRole]
      PolicyDocument:
        Version: "2012-10-17"
        Statement: [{ Effect: Allow, Action: dynamodb:PutItem, Resource: !GetAtt MadeHooksTable.Arn }]

  madehookFunction:
""")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({}, "a name has lower-case letters"),
        ({"NAME": "Orders"}, "a name has lower-case letters"),
        ({"NAME": "orders-"}, "a name has lower-case letters"),
        ({"NAME": "o" * 33}, "at most 32 characters"),
        ({"NAME": "build"}, "cargo keeps a folder"),
        ({"NAME": "hello"}, "already exists"),
        ({"NAME": "aws"}, "already exists"),
        ({"NAME": "testbed"}, "already exists"),
        ({"NAME": "fetchon-instances"}, "has a fetchoninstancesFunction already"),
        ({"NAME": "root"}, "openapi.yaml has operations of Root already"),
        ({"NAME": "madeorders", "ROUTE": "/time"}, "time is already served there"),
        ({"NAME": "madeorders", "ROUTE": "orders"}, "a route has segments"),
        ({"NAME": "madeorders", "ROUTE": "/a/../b"}, "a route has segments"),
        ({"NAME": "madeorders", "ROUTE": "/{a}/{a}"}, "two parameters have the same name"),
        ({"NAME": "madeorders", "ROUTE": "/{a__b}"}, "a route has segments"),
        ({"NAME": "madeorders", "ROUTE": "/docs/{name}"}, "docs is already served there"),
        ({"NAME": "madeorders", "ROUTE": "/{a}/{a+}"}, "two parameters have the same name"),
        ({"NAME": "madeorders", "ROUTE": "/{a+}/b"}, "a route has segments"),
        ({"NAME": "madeorders", "METHODS": "FETCH"}, "an endpoint can have GET, POST"),
        ({"NAME": "madeorders", "METHODS": "GET,GET"}, "a method appears twice"),
        ({"NAME": "madeorders", "UPSTREAMS": "prices,a b"}, "a name is as in UPSTREAMS="),
        ({"NAME": "madeorders", "UPSTREAMS": "prices,prices"}, "a name appears twice"),
        ({"NAME": "madeorders", "UPSTREAMS": "a,b,c,d"}, "no room for the settings of more than three"),
    ],
)
def test_invalid_endpoints_are_refused_before_anything_is_written(copy: Path, wanted: dict[str, str], why: str) -> None:
    done = run(copy, "make", "new", *(f"{name}={value}" for name, value in wanted.items()))
    assert done.returncode != 0 and why in done.stderr, done.stdout + done.stderr
    assert changes(copy) == set()


def test_an_endpoint_that_cannot_be_finished_leaves_nothing_behind(copy: Path) -> None:
    settings = (copy / "rustfmt.toml").read_text()
    (copy / "rustfmt.toml").write_text("max_width = false")
    done = run(copy, "make", "new", "NAME=madeorders")
    (copy / "rustfmt.toml").write_text(settings)
    assert done.returncode != 0 and "Nothing was changed." in done.stderr, done.stdout + done.stderr
    assert changes(copy) == set()


def test_any_name_that_is_not_refused_compiles(copy: Path) -> None:
    # Keywords, functions that the code uses, names that are alike, crates.
    names = "{type}/{path}/{request}/{self}/{json}/{get}/{shop}/{shot}/{a}/{b}/{c}/{d}/{e}"
    passes(copy, "make", "new", "NAME=core", f"ROUTE=/{names}", "METHODS=GET,POST,PUT,PATCH,DELETE")
    passes(copy, "make", "new", "NAME=serde", "ROUTE=/things/{type}", "METHODS=GET,POST")
    # Keywords, crates, and an upstream that two endpoints share.
    passes(copy, "make", "new", "NAME=tokio", f"ROUTE=/tokio/{names}", "METHODS=GET,POST,PUT,PATCH,DELETE", "UPSTREAMS=type,self,std")
    passes(copy, "make", "new", "NAME=std", "METHODS=DELETE", "UPSTREAMS=type")
    passes(copy, "make", "check")
    tested = passes(copy, "cargo", "test", "--bin=core", "--bin=serde", "--bin=tokio", "--bin=std", "--test=failing_upstreams")
    assert tested.count("answers_its_events ... ok") == 4 and tested.count("a_failing_upstream_becomes_a_problem ... ok") == 2
    undo(copy)


def test_new_endpoints_are_served_tested_and_deployed(copy: Path) -> None:
    told = passes(copy, "make", "new", "NAME=madeorders")
    assert len(told.splitlines()[-3:]) == 3 and "functions/madeorders/src/main.rs" in told
    passes(copy, "make", "new", "NAME=madeshop-orders", "ROUTE=/madeshops/{shop}/orders", "METHODS=GET,POST,PUT,DELETE")
    passes(copy, "make", "new", "NAME=madedrop", "ROUTE=/madeshops/{shop}/orders/{order}", "METHODS=DELETE")
    passes(copy, "make", "new", "NAME=madefiles", "ROUTE=/madefiles/{name+}")
    passes(copy, "make", "new", "NAME=madequotes", "ROUTE=/madequotes/{symbol}", "METHODS=GET,POST", "UPSTREAMS=madeprices,exchange-rates")
    make_public_webhook(copy)
    assert "already" in run(copy, "make", "new", "NAME=madeorders").stderr
    passes(copy, "make", "check")
    passes(copy, "make", "events")
    assert (copy / "target/events/madeshop-orders/post.alb.json").exists()
    bins = ["--bin=madeorders", "--bin=madeshop-orders", "--bin=madedrop", "--bin=madefiles", "--bin=madehook", "--bin=madequotes"]
    replayed = passes(copy, "cargo", "test", *bins, "--test=failing_upstreams")
    # Those with settings run once more, in a process that has them.
    assert replayed.count("answers_its_events ... ok") == 6 and "a_failing_upstream_becomes_a_problem ... ok" in replayed
    # These include the contract, side by side against `make run` and against what `sam deploy` put into the emulator.
    tests = (["template"], ["contract", "-k", "local"], ["contract", "-k", "not local"])
    with ThreadPoolExecutor() as pool:
        results = [
            pool.submit(passes, copy, sys.executable, "-m", "pytest", "-q", "-rA", f"testbed/deploy/test_{name}.py", *more)
            for name, *more in tests
        ]
    tested = "".join(result.result() for result in results)
    for where in ("local", "deployed"):
        for operation in ("GET /madeorders", "POST /madeshops/{shop}/orders", "DELETE /madeshops/{shop}/orders/{order}", "GET /madefiles/{name}", "POST /madehook", "GET /madequotes/{symbol}", "POST /madequotes/{symbol}"):
            assert f"PASSED testbed/deploy/test_contract.py::test_answers_are_as_described[{operation}][{where}]" in tested
    undo(copy)

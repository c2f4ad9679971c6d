"""`make new` adds endpoints to a copy of this repository, which passes its tests without an edit under testbed/.

The services in testbed/services are made there, too: each patch has what somebody writes who wants one.
Names begin with `made`, as a team may have endpoints of its own. `make services` runs the whole of `make test` on them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

import harness
import new
import pytest
from harness import ROOT, in_ci
from samcli.yamlhelper import yaml_parse


TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new repository with the files that git tracks or would add. Cargo reuses what has been compiled here, because
    it compares paths within the workspace and the times of files."""
    if (ROOT / "functions/madehook").exists():
        pytest.skip("this is such a copy, in which `make services` runs the other tests")
    copy = committed(tmp_path_factory.mktemp("copy"))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    # .gitignore names the folder, which a link is not.
    (copy / ".git/info/exclude").write_text(".venv\n")
    for fingerprints in chain(TARGET.glob("*/.fingerprint"), TARGET.glob("*-linux-gnu/release/.fingerprint")):
        for folder in (fingerprints, fingerprints.with_name("build"), fingerprints.with_name("deps")):
            shutil.copytree(
                folder, copy / "target" / folder.relative_to(TARGET), ignore=executables, copy_function=link
            )
    # The path of its workspace is compiled into it, so it must be compiled again.
    (copy / "testbed/src/lib.rs").touch()
    git(copy, "tag", "copied")
    yield copy
    shutil.rmtree(copy / "target")


@pytest.fixture
def copy(copied: Path) -> Iterator[Path]:
    """That repository, for one test, whatever the last one did to it."""
    yield copied
    undo(copied)


def committed(copy: Path) -> Path:
    """Makes `copy` a new repository with the files that git tracks here, or would add."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for file in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, copy / file)
    git(copy, "init", "--quiet")
    git(copy, "add", "--all", "--force")
    commit(copy)
    return copy


def link(source: str, target: str) -> None:
    """Links files that the compiler replaces. Copies the others, which may be changed in place."""
    if Path(source).suffix in (".rlib", ".rmeta", ".so"):
        with suppress(OSError):  # another file system
            return os.link(source, target)
    shutil.copy2(source, target)


def executables(folder: str, names: list[str]) -> list[str]:
    """The test executables, not copied: they are large, and link in a second. A release's takes a minute. Nor what a compiler
    beside this is writing."""
    own = [name for name in names if Path(folder).parts[-2:] == ("debug", "deps") and not Path(name).suffix]
    return own + [name for name in names if name.endswith(".rcgu.o") or name.startswith("rmeta")]


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    committer = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return harness.run(*command, folder=copy, CARGO_TARGET_DIR=str(copy / "target"), **committer)


def passes(copy: Path, *command: str) -> str:
    done = run(copy, *command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def git(copy: Path, *arguments: str) -> str:
    return passes(copy, "git", *arguments)


def commit(copy: Path) -> None:
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message=edited")


def changes(copy: Path) -> set[str]:
    return set(git(copy, "status", "--short").splitlines())


def undo(copy: Path) -> None:
    git(copy, "reset", "--quiet", "--hard", "copied")
    git(copy, "clean", "--quiet", "--force", "-d")


SERVICES = ROOT / "testbed/services"

# What `make new` writes, without a change.
PLAIN = (
    "NAME=madeorders",
    "NAME=madeshop-orders ROUTE=/madeshops/{shop}/orders METHODS=GET,POST,PUT,DELETE",
    "NAME=madedrop ROUTE=/madeshops/{shop}/orders/{order} METHODS=DELETE",
    "NAME=madefiles ROUTE=/madefiles/{name+}",
    "NAME=madeparcels METHODS=GET,POST ITEM=/madeparcels/{id} ITEM_METHODS=GET,DELETE",
    "NAME=madeexport ROUTE=/madeexport/{year}/{month} STREAM=yes",
    "NAME=madedownloads UPSTREAMS=made-archive STREAM=yes",
    "NAME=madenotes TABLE=made-notes",
    "NAME=madequotes ROUTE=/madequotes/{symbol} METHODS=GET,POST UPSTREAMS=madeprices,exchange-rates",
)


def make_services(copy: Path) -> None:
    for wanted in PLAIN:
        passes(copy, "make", "new", *wanted.split())
    for service in ("hook", "consent"):
        changes = SERVICES / f"{service}.patch"
        for command in re.findall("^make new .*", changes.read_text(), re.MULTILINE):
            passes(copy, "sh", "-c", command)
        for file in re.findall(r"^--- /dev/null\n\+\+\+ b/(.*)", changes.read_text(), re.MULTILINE):
            (copy / file).unlink(missing_ok=True)
        git(copy, "apply", "-C1", str(changes))
        for path in re.findall(r"^  /.*:\n(?:    .+\n)+", (copy / "paths.yaml").read_text(), re.MULTILINE):
            edit(copy, "openapi.yaml", (re.escape(path.splitlines()[0]) + r"\n(    .+\n)+", path.replace("\\", r"\\")))
        (copy / "paths.yaml").unlink()
    change_by_hand(copy)


def edit(copy: Path, file: str, *changes: tuple[str, str]) -> None:
    text = (copy / file).read_text()
    for old, new in changes:
        text, found = re.subn(old, new, text)
        assert found, f"{old} in {file}"
    (copy / file).write_text(text)


def change_by_hand(copy: Path) -> None:
    """An endpoint gets another name, route and memory, and one more method."""
    passes(copy, "make", "new", "NAME=madeold")
    passes(copy, "make", "rename", "NAME=madeold", "TO=made-new")
    code, events = "functions/made-new", "events/made-new"
    for file in ("CargoLambda.toml", "template.yaml", "openapi.yaml", f"{code}/Cargo.toml", f"{code}/src/main.rs",
                 f"{events}/plain.json"):
        (copy / file).write_text(re.sub(r"(?<!functions)/made-new\b", "/madelater/all", (copy / file).read_text()))
    edit(copy, "template.yaml",
         (r"\nMappings:\n(  #.*\n)*  Functions:\n", r"\g<0>    made-new: { Path: /madelater/all }\n"),
         (r"      CodeUri: functions/made-new\n", r"\g<0>      MemorySize: 256\n"))
    edit(copy, f"{code}/src/main.rs", (r"get\(read\)", "get(read).delete(remove)"),
         (r"\n#\[cfg\(test", f"\nasync fn remove(_request: Request) -> Result<Response, Problem> {{\n{new.GONE}}}\n\\g<0>"))
    edit(copy, "openapi.yaml", (r"  /madelater/all:\n.*\n", r"\g<0>    delete:\n      operationId: deleteMadenew\n      responses:\n"
         '        <<: *every\n        "204": { description: There is none any more, headers: *unstored }\n'))
    case = {"request": {"method": "DELETE", "path": "/madelater/all"}, "answer": {"status": 204, "headers": {"content-type": None}}}
    (copy / events / "delete.json").write_text(json.dumps(case))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({}, "a name has lower-case letters"),
        ({"NAME": "Orders"}, "a name has lower-case letters"),
        ({"NAME": "o" * 33}, "at most 32 characters"),
        ({"NAME": "build"}, "cargo keeps a folder"),
        ({"NAME": "hello"}, "already exists"),
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
        ({"NAME": "madeorders", "UPSTREAMS": "prices,a b"}, "UPSTREAMS=a b: a name has lower-case letters"),
        ({"NAME": "madeorders", "UPSTREAMS": "prices,prices"}, "a name appears twice"),
        ({"NAME": "madeorders", "UPSTREAMS": "a,b,c,d"}, "no room for the settings of more than three"),
        ({"NAME": "madeorders", "STREAM": "no"}, "STREAM=no: it is `yes`, or is left out"),
        ({"NAME": "madeorders", "STREAM": "yes", "METHODS": "GET,POST"}, "with GET alone, and with one of UPSTREAMS"),
        ({"NAME": "madeorders", "STREAM": "yes", "UPSTREAMS": "prices,rates"}, "with GET alone, and with one of UPSTREAMS"),
        ({"NAME": "madeorders", "TABLE": "Orders"}, "TABLE=Orders: a name has lower-case letters"),
        ({"NAME": "madeorders", "TABLE": "orders", "UPSTREAMS": "prices"}, "without UPSTREAMS and STREAM"),
        ({"NAME": "madeorders", "TABLE": "orders", "ROUTE": "/shops/{shop}/orders"}, "its items are a caller's"),
        ({"NAME": "madeorders", "TABLE": "orders", "ITEM": "/elsewhere/{id}"}, "its items are a caller's"),
        ({"NAME": "madeorders", "TABLE": "orders", "METHODS": "POST"}, "/madeorders/{id} can have GET, PUT, PATCH, DELETE, and has none"),
        ({"NAME": "madeorders", "TABLE": "orders", "METHODS": "PUT", "ITEM_METHODS": "GET"}, "/madeorders can have GET, POST, and has PUT"),
        ({"NAME": "madeorders", "ITEM": "/madeorders"}, "madeorders is already served there"),
        ({"NAME": "madeorders", "ITEM_METHODS": "PUT"}, "ITEM=: a route has segments"),
        ({"NAME": "madeorders", "ITEM": "/a/{a}", "ITEM_METHODS": "PUT,PUT"}, "ITEM_METHODS=PUT,PUT: a method appears twice"),
    ],
)
def test_invalid_endpoints_are_refused_before_anything_is_written(copy: Path, wanted: dict[str, str], why: str) -> None:
    done = run(copy, "make", "new", *(f"{name}={value}" for name, value in wanted.items()))
    assert done.returncode != 0 and why in done.stderr, done.stdout + done.stderr
    assert changes(copy) == set()


# Of each kind: without and with other routes, upstreams and items; and those that are there.
KINDS = [wanted for wanted in PLAIN if "NAME=madedrop" not in wanted]


@pytest.mark.parametrize("wanted", KINDS)
def test_removing_an_endpoint_is_the_inverse_of_making_it(copy: Path, wanted: str) -> None:
    told = (passes(copy, "make", "new", *wanted.split()), passes(copy, "make", "remove", wanted.split()[0]))
    assert all(text.endswith(f"\n{new.RESTART}\n") for text in told)
    assert changes(copy) == set()


@in_ci
@pytest.mark.parametrize("wanted", KINDS)
def test_a_renamed_endpoint_is_as_if_it_were_made_with_its_new_name(copy: Path, wanted: str) -> None:
    name = wanted.split()[0].removeprefix("NAME=")
    passes(copy, "make", "new", *re.sub(rf"(?<![a-z]){name}(?![\w-])", "madelonger-name", wanted).split())
    commit(copy)
    passes(copy, "make", "remove", "NAME=madelonger-name")
    passes(copy, "make", "new", *wanted.split())
    passes(copy, "make", "rename", f"NAME={name}", "TO=madelonger-name")
    # The next build after `make new` writes Cargo.lock.
    differences = git(copy, "diff", "--", ".", ":!Cargo.lock")
    assert differences == ""


def test_a_contract_without_its_components_gets_them(copy: Path) -> None:
    _, *others = sorted(folder.name for folder in (copy / "events").iterdir())
    for name in others:
        passes(copy, "make", "remove", f"NAME={name}")
    text = (copy / "openapi.yaml").read_text()
    assert [name for name in re.findall(r"(?m)^  (\w+): &", text) if f"*{name}" not in text] == []
    commit(copy)
    passes(copy, "make", "new", "NAME=madenotes", "TABLE=made-notes")
    spec = yaml_parse((copy / "openapi.yaml").read_text())
    named = set(re.findall(r"#/components/(\w+)/([\w.-]+)", (copy / "openapi.yaml").read_text()))
    left = "MadeNotesTable in your account" in passes(copy, "make", "remove", "NAME=madenotes")
    unchanged = changes(copy) == set()
    assert left and unchanged and all(name in spec["components"][group] for group, name in named)


def test_a_renamed_endpoint_finds_its_items(copy: Path) -> None:
    passes(copy, "make", "new", "NAME=message", "TABLE=message")
    edit(copy, "openapi.yaml", (r"  /message:\n", r"\g<0>    x-headers: { location: { schema: { const: message } } }\n"))
    passes(copy, "make", "rename", "NAME=message", "TO=later")
    code = (copy / "functions/later/src/main.rs").read_text()
    assert 'Table::new("MESSAGE_TABLE", "message")' in code
    assert "location: { schema: { const: later } }" in (copy / "openapi.yaml").read_text()


@pytest.mark.parametrize("name", sorted({folder.name for folder in (ROOT / "events").iterdir()}))
def test_any_endpoint_can_be_renamed_and_removed(copy: Path, name: str) -> None:
    told = passes(copy, "make", "rename", f"NAME={name}", "TO=madelonger-name")
    assert told.endswith(f"\n{new.RESTART}\n")
    assert not (copy / "functions" / name).exists() and changes(copy)
    passes(copy, "make", "rename", "NAME=madelonger-name", f"TO={name}")
    assert changes(copy) == set()
    passes(copy, "make", "remove", f"NAME={name}")
    own = rf"functions/{name}$|^\"/.*= \"{name}\"|\\b{name.replace('-', '')}(Function|Role|Logs)"
    left = run(copy, "git", "grep", "-E", own, "--", "*.yaml", "CargoLambda.toml").stdout
    assert left == ""


def test_an_endpoint_that_something_else_needs_is_not_removed(copy: Path) -> None:
    passes(copy, "make", "new", "NAME=madeorders")
    needs = "  MadeAlarm:\n    Type: AWS::CloudWatch::Alarm\n    Properties: { Dimensions: [{ Name: FunctionName, Value: !Ref madeordersFunction }] }\n\n"
    edit(copy, "template.yaml", (r"  # The resources that every function has\.\n", needs + r"\g<0>"))
    commit(copy)
    for wanted, why in (("NAME=madeorders", "needs madeordersFunction elsewhere"), ("NAME=madenone", "no such endpoint")):
        done = run(copy, "make", "remove", wanted)
        assert done.returncode != 0 and why in done.stderr and changes(copy) == set(), done.stdout + done.stderr
    for to, why in (("hello", "already exists"), ("Orders", "a name has lower-case letters")):
        done = run(copy, "make", "rename", "NAME=madeorders", f"TO={to}")
        assert done.returncode != 0 and why in done.stderr and changes(copy) == set(), done.stdout + done.stderr


def test_an_endpoint_that_cannot_be_finished_leaves_nothing_behind(copy: Path) -> None:
    settings = (copy / "rustfmt.toml").read_text()
    (copy / "rustfmt.toml").write_text("max_width = false")
    done = run(copy, "make", "new", "NAME=madeorders")
    (copy / "rustfmt.toml").write_text(settings)
    assert done.returncode != 0 and "Nothing was changed." in done.stderr, done.stdout + done.stderr
    assert changes(copy) == set()


@in_ci
def test_any_name_that_is_not_refused_compiles(copy: Path) -> None:
    # Keywords, functions that the code uses, names that are alike, crates.
    names = "{type}/{path}/{request}/{self}/{json}/{get}/{shop}/{shot}/{a}/{b}/{c}/{d}/{e}"
    passes(copy, "make", "new", "NAME=core", f"ROUTE=/{names}", "METHODS=GET,POST,PUT,PATCH,DELETE")
    passes(copy, "make", "new", "NAME=serde", "ROUTE=/things/{type}", "METHODS=GET,POST",
           "ITEM=/things/{type}/{self}", "ITEM_METHODS=GET,POST,PUT,PATCH,DELETE")
    # Keywords, crates, and an upstream that two endpoints share.
    passes(copy, "make", "new", "NAME=tokio", f"ROUTE=/tokio/{names}", "METHODS=GET,POST,PUT,PATCH,DELETE", "UPSTREAMS=type,self,std")
    passes(copy, "make", "new", "NAME=std", "METHODS=DELETE", "UPSTREAMS=type")
    passes(copy, "make", "new", "NAME=stream", "STREAM=yes", f"ITEM=/stream/{names}")
    # The name of a kind of items, and few and all methods.
    passes(copy, "make", "new", "NAME=message", "TABLE=message", "METHODS=GET,POST,PUT,PATCH,DELETE", "ITEM=/message/{type}")
    passes(copy, "make", "new", "NAME=item", "TABLE=type", "ROUTE=/shop/item", "METHODS=GET")
    passes(copy, "make", "new", "NAME=commit", "TABLE=self", "METHODS=POST", "ITEM_METHODS=DELETE")
    passes(copy, "make", "check")
    made = ("core", "serde", "tokio", "std", "stream", "message", "item", "commit")
    tested = passes(copy, "cargo", "test", *(f"--bin={name}" for name in made), "--test=failing_upstreams")
    # That of a function with settings runs once more, in a process that has them.
    assert tested.count("answers_its_events ... ok") == len(made) and tested.count("a_failing_upstream_becomes_a_problem ... ok") == 2


@in_ci
def test_services_are_checked_served_and_tested(copy: Path) -> None:
    told = passes(copy, "make", "new", "NAME=madefirst")
    assert len(told.splitlines()[-3:]) == 3 and "functions/madefirst/src/main.rs" in told
    assert "already" in run(copy, "make", "new", "NAME=madefirst").stderr
    undo(copy)
    make_services(copy)
    passes(copy, "make", "check")
    passes(copy, "make", "events")
    assert (copy / "target/events/madeshop-orders/post.alb.json").exists()
    made = sorted(folder.name for folder in (copy / "events").glob("made*"))
    # The services, and the one that was renamed.
    assert len(made) == len(PLAIN) + 2 + 1
    passes(copy, "cargo", "test", "--test=packaging", "links")
    replayed = passes(copy, "cargo", "test", *(f"--bin={name}" for name in made), "--test=failing_upstreams")
    assert "a_failing_upstream_becomes_a_problem ... ok" in replayed
    # The test of a function with settings runs once more, in a process that has them.
    assert replayed.count("answers_its_events ... ok") == len(made)
    tests = (["test_template.py"], ["test_contract.py", "-k", "local and made"])
    with ThreadPoolExecutor() as pool:
        pytest = (sys.executable, "-m", "pytest", "-q", "-rA")
        results = [pool.submit(passes, copy, *pytest, f"testbed/deploy/{file}", *more) for file, *more in tests]
    tested = "".join(result.result() for result in results)
    for operation in ("GET /madeorders", "POST /madeshops/{shop}/orders", "GET /madefiles/{name}",
                      "POST /madehook", "POST /madeconsent", "POST /madequotes/{symbol}", "GET /madeexport/{year}/{month}", "POST /madenotes", "PATCH /madenotes/{id}", "DELETE /madeparcels/{id}", "DELETE /madelater/all"):
        assert f"PASSED testbed/deploy/test_contract.py::test_answers_are_as_described[{operation}][local]" in tested

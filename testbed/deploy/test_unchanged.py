"""`make test` runs a command again when one of its inputs has changed, and only then."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, environment

FILES = [
    "Cargo.toml", "events/orders/get.json", "events/carts/get.json", "functions/orders/src/main.rs", "functions/orders/Cargo.toml",
    "functions/carts/src/main.rs", "functions/carts/Cargo.toml", "functions/handler/src/lib.rs", "target/lambda/orders/bootstrap.zip",
    "target/lambda/carts/bootstrap.zip",
]  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"# {file}\n")
    (tmp_path / ".gitignore").write_text("/target\n/runs\n")
    (tmp_path / "testbed").mkdir()
    shutil.copy(ROOT / "testbed/unchanged.py", tmp_path / "testbed")
    executable = tmp_path / "target/debug/deps/test-0123456789abcdef"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho $TESTED_ENDPOINTS >> {tmp_path}/runs\n[ ! -e {tmp_path}/target/broken ]\n")
    executable.chmod(0o755)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def run(copy: Path, functions: str = "orders", **env: str) -> tuple[int, int]:
    """Returns the status, and how often the command has run so far."""
    without_ci = {name: value for name, value in environment().items() if name != "CI"}
    command = [sys.executable, "testbed/unchanged.py", functions, str(copy / "target/debug/deps/test-0123456789abcdef")]
    status = subprocess.run(command, cwd=copy, env=without_ci | env, stdout=subprocess.DEVNULL).returncode
    return status, len(runs(copy))


def runs(copy: Path) -> list[str]:
    """What each run was told to test."""
    return (copy / "runs").read_text().splitlines() if (copy / "runs").exists() else []


def write(file: str) -> Callable[[Path], object]:
    return lambda copy: (copy / file).write_text("# another")


OWN = {
    "of its code": write("functions/orders/src/main.rs"),
    "of its cases": write("events/orders/get.json"),
    "of its zip": write("target/lambda/orders/bootstrap.zip"),
    "of its executable": lambda copy: (copy / "target/debug/deps/test-0123456789abcdef").open("a").write("# another\n"),
    "of a library": write("functions/handler/src/lib.rs"),
    "of another's declarations": write("functions/carts/Cargo.toml"),
    "a deletion": lambda copy: (copy / "events/orders/get.json").unlink(),
    "a new file": write("functions/orders/src/more.rs"),
    "a new name": lambda copy: (copy / "events/orders/get.json").rename(copy / "events/orders/head.json"),
    "a new endpoint": lambda copy: (copy / "events/new").mkdir(),
}
OTHER = {
    "nothing": lambda _: None,
    "of another's code": write("functions/carts/src/main.rs"),
    "of another's cases": write("events/carts/get.json"),
    "of another's zip": write("target/lambda/carts/bootstrap.zip"),
    "the same again": write("Cargo.toml"),
}


@pytest.mark.parametrize("change", OWN)
def test_it_runs_again_after_a_change(copy: Path, change: str) -> None:
    assert (run(copy), run(copy)) == ((0, 1), (0, 1))
    OWN[change](copy)
    assert (run(copy), run(copy)) == ((0, 2), (0, 2))


@pytest.mark.parametrize("change", OTHER)
def test_it_does_not_run_again_after_other_changes(copy: Path, change: str) -> None:
    write("Cargo.toml")(copy)
    assert run(copy) == (0, 1)
    OTHER[change](copy)
    assert run(copy) == (0, 1)


def test_what_failed_runs_again(copy: Path) -> None:
    (copy / "target/broken").touch()
    assert (run(copy), run(copy)) == ((1, 1), (1, 2))


def test_what_passed_before_it_failed_runs_no_more(copy: Path) -> None:
    code = copy / "functions/orders/src/main.rs"
    assert run(copy) == (0, 1)
    before = code.read_text()
    code.write_text("broken")
    (copy / "target/broken").touch()
    assert run(copy) == (1, 2)
    code.write_text(before)
    assert run(copy) == (0, 2)


@pytest.mark.parametrize("env", [{"CI": "true"}, {"PROPTEST_CASES": "9"}])
def test_it_runs_again_in_ci_and_with_other_settings(copy: Path, env: dict[str, str]) -> None:
    assert (run(copy), run(copy, **env)) == ((0, 1), (0, 2))


def test_what_tests_all_endpoints_runs_again_after_a_change_of_any(copy: Path) -> None:
    assert run(copy, "*") == (0, 1)
    OTHER["of another's code"](copy)
    assert run(copy, "*") == (0, 2)


@pytest.mark.parametrize(
    ("package", "lists", "after_code", "after_cases"),
    [
        ("functions/orders", "", [], []),
        ("functions/carts", "", ["carts"], ["carts"]),
        ("functions/handler", "", [], []),
        ("functions/handler", "uses-cases", [], [""]),
        ("testbed", "uses-endpoints", ["carts orders"], ["carts orders"]),
        ("testbed", "each-endpoint", ["carts"], ["carts"]),
    ],
)
def test_cargos_tests_run_again_after_a_change_of_what_they_use(
    copy: Path, package: str, lists: str, after_code: list[str], after_cases: list[str]
) -> None:
    (copy / package).mkdir(parents=True, exist_ok=True)
    (copy / package / "Cargo.toml").write_text(f'[package.metadata]\n{lists or "uses-endpoints"} = {["test"] if lists else []}\n')
    for change, after in [("nothing", None), ("of another's code", after_code), ("of another's cases", after_cases)]:
        OTHER[change](copy)
        before = runs(copy)
        assert run(copy, "cargo", CARGO_MANIFEST_DIR=str(copy / package))[0] == 0
        assert after is None or runs(copy)[len(before) :] == after


def test_tests_in_documentation_run_again_after_a_change_of_any_library(copy: Path) -> None:
    write("functions/handler/src/lib.rs")(copy)
    write("functions/orders/src/lib.rs")(copy)
    (copy / "functions/carts/Cargo.toml").write_text('[lib]\npath = "src/carts.rs"\n')
    command = ["make", "--silent", "--file", str(ROOT / "Makefile"), "--eval", "print: ; @echo $(LIBRARIES)", "print"]
    assert {*subprocess.check_output(command, cwd=copy, text=True).split()} == {"carts", "handler", "orders"}


def told(copy: Path) -> str | None:
    """What `each` runs next, or None if it runs nothing."""
    before = len(runs(copy))
    assert run(copy, "each")[0] == 0
    return (*runs(copy)[before:], None)[0]


def test_each_endpoint_is_tested_again_after_a_change_of_its_own(copy: Path) -> None:
    assert (told(copy), told(copy)) == ("carts orders", None)
    for change in ("of its code", "of its cases", "of its zip", "a new file"):
        OWN[change](copy)
        assert (told(copy), told(copy)) == ("orders", None), change
    for change in ("of another's code", "of another's cases", "of another's zip"):
        OTHER[change](copy)
        assert (told(copy), told(copy)) == ("carts", None), change
    for change in ("of a library", "of another's declarations", "of its executable"):
        OWN[change](copy)
        assert (told(copy), told(copy)) == ("carts orders", None), change


def test_what_several_endpoints_do_is_tested_with_each_version_of_one_beside_each_of_another(copy: Path) -> None:
    orders = copy / "functions/orders/src/main.rs"
    before = orders.read_text()
    assert told(copy) == "carts orders"
    orders.write_text("another")
    assert told(copy) == "orders"
    OTHER["of another's code"](copy)
    assert told(copy) == "carts"
    orders.write_text(before)
    assert (told(copy), told(copy)) == ("", None)


PERMISSIONS = "[package.metadata.endpoint.permissions]\n{} = []\n"


@pytest.mark.parametrize(
    ("settings", "orders", "carts", "together"),
    [
        ("{}", "OrdersTable", "CartsTable", False),
        ("{}", "OrdersTable", '"OrdersTable/index/by-day"', True),
        ('{ "PRICES_URL": "{upstream}/carts/1/all?x" }', "OrdersTable", "CartsTable", True),
        ('{ "PRICES_URL": "{upstream}/prices" }', "OrdersTable", "CartsTable", False),
    ],
)
def test_an_endpoint_is_tested_again_after_a_change_of_one_that_it_calls_or_shares_a_table_with(
    copy: Path, settings: str, orders: str, carts: str, together: bool
) -> None:
    (copy / "CargoLambda.toml").write_text('[watch.router]\n"/carts/{id}/all" = "carts"\n"/orders" = "orders"\n')
    (copy / "events/orders/settings.json").write_text(settings)
    (copy / "functions/orders/Cargo.toml").write_text(PERMISSIONS.format(orders))
    (copy / "functions/carts/Cargo.toml").write_text(PERMISSIONS.format(carts))
    assert told(copy) == "carts orders"
    OTHER["of another's code"](copy)
    assert told(copy) == ("carts orders" if together else "carts")
    # Then it does not call `make run`.
    (copy / "events/orders/upstream.json").write_text("{}")
    assert told(copy) == ("carts orders" if "Orders" in carts else "orders")
    OTHER["of another's cases"](copy)
    assert told(copy) == ("carts orders" if "Orders" in carts else "carts")


def test_a_file_that_cannot_be_read_is_named(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (copy / "CargoLambda.toml").write_text('[watch.router]\n"/orders" = "orders"\n"/orders" = "carts"\n')
    (copy / "events/orders/settings.json").write_text('{ "PRICES_URL": "{upstream}/orders" }')
    assert run(copy, "each") == (1, 0)
    assert capfd.readouterr().err.startswith("CargoLambda.toml: Cannot overwrite a value (at line 3")


def test_an_each_run_that_failed_runs_again(copy: Path) -> None:
    assert told(copy) == "carts orders"
    OWN["of its code"](copy)
    (copy / "target/broken").touch()
    assert (run(copy, "each")[0], run(copy, "each")[0], runs(copy)[1:]) == (1, 1, ["orders", "orders"])

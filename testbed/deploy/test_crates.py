"""The crates can be published, and a workspace elsewhere uses them by cargo alone, as docs/crates.md says."""

import json
import os
import re
import secrets
import shlex
import shutil
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
import pytest
import requests
from aws import Aws
from harness import ROOT, answered, environment, free_port, in_ci, process, wait_for
from test_new import committed

PAGE = (ROOT / "docs/crates.md").read_text()
MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
ADDRESS = "https://git.example.com/template"
VERSION = MANIFEST["package"]["version"]
HOME = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Nothing is downloaded. `--offline` would also refuse to clone a repository on this machine.
# The lints of `make test` are for what is here.
SHARED = {"CARGO_TARGET_DIR": str(TARGET), "RUSTC_WORKSPACE_WRAPPER": ""}
OFFLINE = {"CARGO_HTTP_PROXY": "http://127.0.0.1:9", "CARGO_NET_RETRY": "0"}


def run(folder: Path, *command: str, **env: str) -> str:
    done = harness.run(*command, folder=folder, **OFFLINE, **SHARED, **env)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


METADATA = json.loads(run(ROOT, "cargo", "metadata", "--quiet", "--offline", "--no-deps", "--format-version", "1"))
CRATES = {package["name"]: package for package in METADATA["packages"] if package["publish"] is None}


def test_what_is_published_is_what_the_page_lists() -> None:
    listed = re.findall(r"^\| `(lambda-[\w-]+)` \| `(\w+)` \| ", PAGE, re.MULTILINE)
    assert dict(listed) == {name: package["targets"][0]["name"] for name, package in CRATES.items()}
    for name, package in CRATES.items():
        features = [feature for feature in package["features"] if feature != "default"]
        row = re.search(rf"^\| `{name}` .*", PAGE, re.MULTILINE)[0]
        assert all(f"`{feature}`" in row for feature in features), name
    assert {dependency["version"] for dependency in MANIFEST["dependencies"].values() if "path" in dependency and "version" in dependency} == {VERSION}


def test_each_crate_can_be_packaged(tmp_path: Path) -> None:
    selected = [f"--package={name}" for name in CRATES]
    run(ROOT, "cargo", "package", "--quiet", "--offline", "--no-verify", "--allow-dirty", "--target-dir", str(tmp_path), *selected)
    for name, package in CRATES.items():
        with tarfile.open(tmp_path / "package" / f"{name}-{VERSION}.crate") as archive:
            files = {Path(member).relative_to(f"{name}-{VERSION}").as_posix(): member for member in archive.getnames()}
            manifest = tomllib.loads(archive.extractfile(files["Cargo.toml"]).read().decode())
            readme = archive.extractfile(files[manifest["package"]["readme"]]).read().decode()
        assert "src/lib.rs" in files and readme == PAGE
        beside = {file for file in files if not file.startswith("src/")} - {".cargo_vcs_info.json"}
        assert beside == {"Cargo.toml", "Cargo.toml.orig", "Cargo.lock", "crates.md"}, name
        assert manifest["package"]["description"] and manifest["package"]["license"] == "MIT OR Apache-2.0"
        own = [dependency for dependency in package["dependencies"] if "path" in dependency and dependency["kind"] is None]
        assert all(manifest["dependencies"][dependency["rename"] or dependency["name"]]["version"] == VERSION for dependency in own), name


def test_the_versions_of_the_types_of_others_are_those_on_the_page() -> None:
    rows = re.findall(r"^\| `\w+`.*? \| (`[^|]*) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    named = {name: version for names, version in rows for name in re.findall(r"`([\w-]+)`", names.split(":")[0])}
    assert len(named) == 8
    for name, version in named.items():
        wanted = MANIFEST["dependencies"][name]
        assert re.match(rf"{re.escape(version)}(\.|$)", wanted if isinstance(wanted, str) else wanted["version"]), name


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a repository with the files that git tracks here or would add, and with a tag."""
    # Cargo keeps its clones under this name.
    name = f"crates-{secrets.token_hex(8)}"
    repository = committed(tmp_path_factory.mktemp("repository") / name)
    run(repository, "git", "tag", f"v{VERSION}")
    yield f"file://{repository}"
    for clone in (HOME / "git").glob(f"*/{name}-*"):
        shutil.rmtree(clone)


def share(folder: Path) -> None:
    """Adds a dependency that has each crate with the features that it has here, and the profile. So cargo compiles none of them again."""
    tree = run(ROOT, "cargo", "tree", "--quiet", "--offline", "--workspace", "--edges=normal,dev,no-proc-macro", "--prefix=none", "--format={p}|{f}")
    dependencies = ""
    for name, version, features in sorted(set(re.findall(r"(?m)^(\S+) v([^\s|]+)\|(\S*)", tree))):
        listed = [feature for feature in features.split(",") if feature]
        dependencies += f'"{name}-{version.replace(".", "-").replace("+", "-")}" = {{ package = "{name}", version = "={version}", '
        dependencies += f"default-features = false, features = {json.dumps(listed)} }}\n"
    (folder / "same/src").mkdir(parents=True)
    (folder / "same/src/lib.rs").touch()
    (folder / "same/Cargo.toml").write_text(f'[package]\nname = "same"\nedition = "2024"\n\n[dependencies]\n{dependencies}')
    profiles = re.findall(r"(?m)^\[profile\.dev.*\n(?:.+\n)+", (ROOT / "Cargo.toml").read_text())
    with (folder / "Cargo.toml").open("a") as manifest:
        manifest.write("\n".join(['\n[dependencies.same]\npath = "same"\n\n[workspace]\n', *profiles]))


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[..., str]]:
    """Compiles in a folder, and returns the executable. What was compiled for these folders alone is deleted at the end."""
    files = []

    def build(folder: Path, *command: str) -> str:
        built = run(folder, "cargo", *command, "--offline", "--message-format=json")
        artifacts = [message for message in map(json.loads, built.splitlines()) if message["reason"] == "compiler-artifact"]
        own = [artifact for artifact in artifacts if not artifact["package_id"].startswith("registry")]
        files.extend(file for artifact in own for file in artifact["filenames"])
        assert [artifact["package_id"] for artifact in artifacts if artifact not in own and not artifact["fresh"]] == []
        return next(artifact["executable"] for artifact in own if artifact["executable"])

    yield build
    for file in set(files):
        Path(file).unlink()


@in_ci
def test_a_workspace_elsewhere_replays_its_own_events(tmp_path: Path, repository: str, build: Callable[..., str]) -> None:
    first, *commands, last = re.findall(r"(?m)^    (cargo .*)", PAGE.partition("A whole service")[0])
    assert (first, last, len(commands)) == ("cargo new greeting && cd greeting", "cargo test", 3)
    run(tmp_path, *first.split(" && ")[0].split())
    folder = tmp_path / "greeting"
    # The versions that are here: newer ones would have to be downloaded.
    shutil.copy(ROOT / "Cargo.lock", folder)
    for number, command in enumerate(commands):
        assert f"--tag v{VERSION} " in command or "--git" not in command
        # The first one clones.
        offline = {"CARGO_NET_OFFLINE": "true"} if number else {}
        run(folder, *shlex.split(command.replace(ADDRESS, repository)), **offline)
    written = re.findall(r"(?m)^`(\S+)`.*:\n\n```\w+\n((?:.*\n)*?)```", PAGE)
    assert [file for file, _ in written] == ["src/main.rs", "events/greeting/plain.json"]
    for file, text in written:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    share(folder)
    tests = build(folder, "test", "--no-run")
    assert "answers_its_events ... ok" in run(folder, tests)
    case = folder / "events/greeting/plain.json"
    case.write_text(case.read_text().replace("Ada!", "Eve!"))
    with pytest.raises(AssertionError, match=r"greeting/plain \(.*vpc-lattice\): body: expected"):
        run(folder, tests)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, repository: str) -> Path:
    """A service that cargo-lambda makes of the template."""
    folder = tmp_path_factory.mktemp("service")
    make, new, test = (line.split("#")[0].split() for line in re.findall(r"(?m)^    (.*)", PAGE.partition("A whole service")[2])[:3])
    assert make == ["make", "standalone"] and test == ["make", "-C", "shipping", "test"]
    new[new.index("target/standalone")] = str(ROOT / "target/standalone")
    assert "cargo lambda new" in run(ROOT, *make)
    run(folder, *new, "--no-interactive", "--render-var", f"repository={repository}")
    shutil.copy(ROOT / "Cargo.lock", folder / "shipping")
    # Clones.
    run(folder / "shipping", "cargo", "metadata", "--quiet", "--format-version", "1")
    share(folder / "shipping")
    return folder / "shipping"


@in_ci
def test_a_service_of_the_template_replays_its_events_and_is_served(service: Path, tmp_path: Path, build: Callable[..., str]) -> None:
    assert ADDRESS not in (service / "Cargo.toml").read_text() and not (service / "CargoLambda.toml").exists()
    run(service, "cargo", "fmt", "--check", "--package", service.name)
    assert "answers_its_events ... ok" in run(service, build(service, "test", "--no-run"))
    assert run(service, "make", "-n", "test").strip() == "cargo test"
    build(service, "build")
    port = free_port()
    watch = [*run(service, "make", "-n", "run").split(), "--invoke-address", "127.0.0.1", "--invoke-port", str(port)]
    with process(watch, environment(**OFFLINE, **SHARED, CARGO_NET_OFFLINE="true"), tmp_path / "watch.log", service):
        url = f"http://127.0.0.1:{port}/service"
        answer = wait_for(lambda: answered(url), "cargo lambda watch", 120)
    assert answer.json() == {"message": "service"}


@in_ci
def test_a_service_of_the_template_is_deployed(service: Path, tmp_path: Path, aws: Aws, build: Callable[..., str]) -> None:
    """As `make deploy` does it, but with the debug build in the place of `sam build`'s."""
    (tmp_path / "built").mkdir()
    shutil.copy(build(service, "build"), tmp_path / "built/bootstrap")
    template = tmp_path / "template.yaml"
    template.write_text((service / "template.yaml").read_text().replace("CodeUri: .\n", "CodeUri: built\n"))
    aws.deploy("shipping", template=template)
    answer = requests.get(aws.reachable(aws.outputs("shipping")["Url"]), timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"message": "service"})

"""Fixtures of all tests, also of a function's own: an emulated AWS, a stack that the SAM CLI deploys there, an upstream, and the API that the checks call."""

import fcntl
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urljoin

import caller
import emulator as local
import proofs
import pytest
import unchanged
from aws import ARCHITECTURE, Aws
from harness import PLAIN, ROOT, Api, Upstream, emulator_environment, environment, free_port, is_tested, process, wait_for_line
from samcli.yamlhelper import yaml_parse
from settings import Handler, read


class Server(ThreadingHTTPServer):
    # A whole fleet connects at once.
    request_queue_size = 512


def serving(handler: type[Handler]) -> Server:
    server = Server(("127.0.0.1", 0), handler)
    # `shutdown` waits for up to one interval.
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


@pytest.fixture(scope="session")
def start_upstream() -> Iterator[Callable[[str], Upstream]]:
    servers = []

    def start(name: str, **more: object) -> Upstream:
        upstream = Upstream("", **{"body": name.encode() + bytes(range(256)), **more})

        class UpstreamHandler(Handler):
            def do_GET(self) -> None:
                authorization = self.headers.get("authorization")
                upstream.authorizations.append(authorization)
                welcome = upstream.accepts in (None, authorization)
                headers = {"content-type": upstream.content_type, **upstream.headers}
                self.reply(upstream.status if welcome else 401, upstream.body, headers)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.do_GET()

            do_PUT = do_PATCH = do_DELETE = do_POST

        server = serving(UpstreamHandler)
        servers.append(server)
        upstream.url = f"http://127.0.0.1:{server.server_port}/{name}"
        return upstream

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def upstream(start_upstream: Callable[[str], Upstream]) -> Upstream:
    return start_upstream("upstream")


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with emulator(tmp_path_factory.mktemp("aws")) as aws:
        yield aws


@contextmanager
def emulator(scratch: Path, **settings: str) -> Iterator[Aws]:
    port, shim = str(free_port()), Path(__file__).with_name("ministack_shim.py")
    # Its functions have its environment. They may be slow beside other tests.
    given = emulator_environment(f"http://127.0.0.1:{port}") | {"AWS_OPERATION_TIMEOUT_MS": "60000"}
    aws = {name: value for name, value in given.items() if name.startswith("AWS_")}
    with local.emulator(scratch, str(shim), **aws, GATEWAY_PORT=port, **settings) as running:
        yield Aws(running.endpoint, scratch)


@pytest.fixture
def table(aws: Aws) -> str:
    """An empty table for SHARED_STATE_TABLE."""
    name = f"shared-{random.randrange(10**9)}"
    aws.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("key", "part")],
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}, {"AttributeName": "part", "KeyType": "RANGE"}],
    )
    return name


@pytest.fixture(scope="module")
def invoke(request: pytest.FixtureRequest) -> list[str]:
    """The command that runs the packaged function beside which the test stands, in functions/NAME/tests: one event per
    line of input, one answer per line of output."""
    build = ["cargo", "build", "--quiet", "--example", "invoke"]
    subprocess.run(build, cwd=ROOT, check=True)
    return [str(ROOT / "target/debug/examples/invoke"), request.path.parents[1].name]


@contextmanager
def environment_of(invoke: list[str], log: Path, env: dict[str, str]) -> Iterator[Callable[[str], dict]]:
    """Starts an environment that stays up. Call the result with an event to get the answer. It logs to `log`."""
    with log.open("w") as lines:
        running = subprocess.Popen(invoke, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=lines)

        def answer(event: str) -> dict:
            running.stdin.write(event + "\n")
            running.stdin.flush()
            return json.loads(running.stdout.readline())

        try:
            yield answer
        finally:
            running.stdin.close()
            assert running.wait() == 0


@pytest.fixture(scope="session")
def built(aws: Aws) -> Path:
    """The output of `sam build` for template.yaml. The groups of tests that run side by side share it: it takes as long as
    several deployments, and cargo-lambda moves away what another build has just made."""
    folder = aws.build_dir.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, now = folder / "made", unchanged.key(unchanged.inputs(unchanged.ENDPOINTS), [ARCHITECTURE])
        if not made.exists() or made.read_text() != now:
            made.unlink(missing_ok=True)
            aws.sam("build", "--build-dir", str(aws.build_dir), "--parameter-overrides", ARCHITECTURE)
            made.write_text(now)
    return aws.build_dir


@pytest.fixture(scope="session")
def upstreams(start_upstream: Callable[..., Upstream], upstream: Upstream) -> list[str]:
    """The parameters of the template that name a function's upstream, with a server for each."""
    overrides = {}
    for resource in yaml_parse((ROOT / "template.yaml").read_text())["Resources"].values():
        if not isinstance(resource, dict) or resource["Type"] != "AWS::Serverless::Function":
            continue
        function = proofs.code(resource["Properties"])
        variables = resource["Properties"].get("Environment", {}).get("Variables", {})
        answer = ROOT / "events" / function / "upstream.json"
        for variable, value in settings_of_upstreams(function).items():
            if isinstance(variables.get(variable), dict) and "Ref" in variables[variable]:
                own = start_upstream(variable, body=answer.read_bytes(), content_type="application/json") if answer.exists() else upstream
                overrides[variables[variable]["Ref"]] = value.replace("{upstream}", own.url.rpartition("/")[0])
    return [f"{parameter}={value}" for parameter, value in overrides.items()]


@pytest.fixture(scope="session")
def stack(aws: Aws, built: Path, upstreams: list[str]) -> str:
    aws.deploy("checks", "Stage=dev", *upstreams)
    return "checks"


def settings_of_upstreams(function: str) -> dict[str, str]:
    """Those of the function's settings for tests that name its upstream."""
    return {variable: value for variable, value in read(ROOT / "events" / function / "settings.json").items() if "{upstream}" in value}


@pytest.fixture(scope="session")
def deployed_api(aws: Aws, stack: str) -> str:
    return aws.reachable(aws.outputs(stack)["ApiUrl"])


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[str]]:
    """Starts `make run` with the given settings, and yields its URL."""

    @contextmanager
    def start(*settings: str) -> Iterator[str]:
        log = tmp_path_factory.mktemp("run") / "make-run.log"
        command = ["make", "run", f"PORT={free_port()}", *settings]
        with process(command, environment(), log) as running:
            first = wait_for_line(running, log, "ready: ", 300).split()[0]
            yield urljoin(first, "/")

    return start


@pytest.fixture(scope="session")
def local_api(make_run: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    """`make run`, which starts a function at its first request: here, those that are tested."""
    tested = [path for path in PLAIN if is_tested(path)]
    with make_run(f"PLAIN_ROUTES={' '.join(tested or PLAIN)}") as url:
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "api" in metafunc.fixturenames:
        given = os.environ.get("API_URL")
        metafunc.parametrize("api", ["given"] if given else ["local", "deployed"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> Api:
    where = request.param
    if where == "given":
        return Api(where, os.environ["API_URL"], os.environ.get("TOKEN"))
    # `make run` asks for a token where openapi.yaml does.
    return Api(where, request.getfixturevalue(f"{where}_api"), caller.token("ada") if where == "local" else None)

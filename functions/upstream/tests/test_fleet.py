"""What environments share of several URLs and of two upstreams: processes of the example `two_upstreams`, and the
emulator's DynamoDB."""

import json
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
import requests
from aws import Aws
from harness import ROOT, emulator_environment, wait_for
from shared_fixtures import Handler, emulator, environment_of, serving

# A fleet keeps two processors and the emulator busy.
PATIENCE = dict.fromkeys(
    [
        "SHARED_STATE_TIMEOUT_MS",
        *(f"{name}_{setting}" for name in ("PRICES", "RATES") for setting in ("TIMEOUT_MS", "ATTEMPT_TIMEOUT_MS")),
    ],
    "60000",
)


@dataclass
class Service:
    """An upstream. Each of its responses has another body."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"cache-control": "max-age=3600"})
    # The requests, such as `GET /a`.
    asked: list[str] = field(default_factory=list)
    # A request for this path waits for `let_through`.
    held: str = ""
    let_through: Event = field(default_factory=Event)


@dataclass
class Answer:
    status: int
    cache_status: str
    body: str


@dataclass
class Fleet:
    """New environments of the endpoint."""

    start: Callable[[], AbstractContextManager[Callable[..., Answer]]]
    prices: Service
    rates: Service
    # The operations of DynamoDB that were called.
    operations: list[str]

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Asks an environment of its own, and waits until it has told the others."""
        with self.start() as ask:
            return ask(path, method, **headers)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with emulator(tmp_path_factory.mktemp("fleet")) as aws:
        yield aws


@contextmanager
def service() -> Iterator[Service]:
    service = Service()

    class ServiceHandler(Handler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            service.asked.append(f"{self.command} {self.path}")
            if self.path == service.held:
                service.let_through.wait(30)
            language = self.headers.get("accept-language", "")
            body = f"{self.path} {language} {len(service.asked)} of {service.url}".encode()
            self.reply(service.status, body, {**service.headers, "content-type": "text/plain"})

        do_PUT = do_GET

    server = serving(ServiceHandler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    yield service
    service.let_through.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fleet(aws: Aws, table: str, tmp_path: Path) -> Iterator[Fleet]:
    build = ["cargo", "build", "--quiet", "--example", "invoke", "--example", "two_upstreams"]
    subprocess.run(build, cwd=ROOT, check=True)
    command = [str(ROOT / "target/debug/examples" / name) for name in ("invoke", "two_upstreams")]
    operations = []

    class Counted(Handler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            operations.append(self.headers["x-amz-target"].rpartition(".")[2])
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            passed = requests.post(aws.endpoint, data=body, headers=headers, timeout=30)
            self.reply(passed.status_code, passed.content, {"content-type": "application/x-amz-json-1.0"})

    dynamodb = serving(Counted)
    with service() as prices, service() as rates:
        env = emulator_environment(f"http://127.0.0.1:{dynamodb.server_port}") | PATIENCE | {
            "PRICES_URL": prices.url,
            "RATES_URL": rates.url,
            "SHARED_STATE_TABLE": table,
        }

        @contextmanager
        def start() -> Iterator[Callable[..., Answer]]:
            with environment_of(command, tmp_path / "log", env) as invoke:

                def ask(path: str, method: str = "GET", **headers: str) -> Answer:
                    sent = {name.replace("_", "-"): value for name, value in headers.items()}
                    answer = invoke(json.dumps({"request": {"method": method, "path": path, "headers": sent}}))
                    body = b64decode(answer["body"]).decode() if answer["isBase64Encoded"] else answer["body"]
                    return Answer(answer["statusCode"], answer["headers"].get("cache-status", ""), body)

                yield ask

        yield Fleet(start, prices, rates, operations)
    dynamodb.shutdown()
    dynamodb.server_close()


def test_only_a_function_that_asks_for_it_links_what_the_table_needs() -> None:
    tree = ["cargo", "tree", "--quiet", "--package", "lambda-endpoint-upstream", "--edges", "normal", "--prefix", "none"]

    def is_linked(*features: str) -> bool:
        crates = subprocess.run([*tree, *features], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return "aws-sdk-dynamodb " in crates

    assert (is_linked(), is_linked("--features", "fleet")) == (False, True)


def test_each_url_of_each_upstream_has_its_own_response(fleet: Fleet) -> None:
    paths = ["/prices/a", "/prices/b", "/rates/a"]
    with fleet.start() as ask:
        first = [ask(path) for path in paths]
    assert len({answer.body for answer in first}) == 3
    with fleet.start() as ask:
        second = [ask(path) for path in paths]
    assert [answer.body for answer in second] == [answer.body for answer in first]
    assert all(answer.cache_status.startswith("shared; hit; ttl=3") for answer in second)
    assert (fleet.prices.asked, fleet.rates.asked) == (["GET /a", "GET /b"], ["GET /a"])


def test_a_request_reads_all_that_is_shared_at_once(fleet: Fleet) -> None:
    with fleet.start() as ask:
        ask("/prices/a", accept_language="de")
        ask("/prices/b")
    assert fleet.operations == ["BatchGetItem", "UpdateItem", "PutItem", "UpdateItem"] * 2
    fleet.operations.clear()
    with fleet.start() as ask:
        for _ in range(3):
            ask("/prices/b")
            ask("/prices/a", accept_language="de")
    assert fleet.operations == ["BatchGetItem"] * 2


def test_a_response_that_varies_is_for_the_requests_that_it_is_for(fleet: Fleet) -> None:
    fleet.prices.headers["vary"] = "accept-language"
    languages = ["de", "en", "de", "en"]
    answers = [fleet.ask("/prices/a", accept_language=language) for language in languages]
    assert [answer.body.split()[1] for answer in answers] == languages
    assert fleet.prices.asked == ["GET /a"] * 2


def test_all_urls_of_an_upstream_have_one_verdict_and_another_upstream_has_its_own(fleet: Fleet) -> None:
    fleet.prices.headers = fleet.rates.headers = {"cache-control": "max-age=0"}
    assert {fleet.ask(f"/{path}").status for path in ("prices/a", "prices/b", "rates/a")} == {200}
    fleet.prices.status, fleet.prices.headers = 503, {"retry-after": "300"}
    assert "shared; hit" in fleet.ask("/prices/a").cache_status
    fleet.prices.asked.clear()
    for path in ("a", "b"):
        answer = fleet.ask(f"/prices/{path}")
        assert (answer.status, "circuit-breaker-open" in answer.cache_status) == (200, True), path
    for path in ("/prices/never-asked-before", "/prices/a?streamed=yes", "/prices/never-asked-before?streamed=yes"):
        assert fleet.ask(path).status == 503, path
    assert fleet.prices.asked == []
    assert fleet.ask("/rates/a").cache_status == "upstream; fwd=miss; fwd-status=200"


def test_a_stream_finds_out_whether_the_upstream_is_well_again_and_is_not_shared(
    fleet: Fleet, aws: Aws, table: str
) -> None:
    dynamodb = aws.client("dynamodb")
    cacheable, fleet.prices.headers, fleet.prices.status = fleet.prices.headers, {"retry-after": "300"}, 503
    assert fleet.ask("/prices/a").status == 502
    [verdict] = [item for item in dynamodb.scan(TableName=table)["Items"] if "open_until" in item]
    dynamodb.put_item(TableName=table, Item=verdict | {"open_until": {"N": str(int(time.time() * 1000) - 1000)}})
    fleet.prices.headers, fleet.prices.status = cacheable, 200
    assert fleet.ask("/prices/b?streamed=yes").status == 200
    assert not [item for item in dynamodb.scan(TableName=table)["Items"] if "open_until" in item]
    assert fleet.ask("/prices/b").cache_status == "upstream; fwd=miss; fwd-status=200"


def test_only_requests_for_the_same_url_wait_for_each_other(fleet: Fleet) -> None:
    fleet.prices.headers = {"cache-control": "max-age=0"}
    for path in ("/prices/a", "/prices/b"):
        fleet.ask(path)
    fleet.prices.asked.clear()
    fleet.prices.held = "/a"
    with ThreadPoolExecutor() as pool:
        late = pool.submit(fleet.ask, "/prices/a")
        wait_for(lambda: fleet.prices.asked, "the call that has the lease", 30)
        assert "fwd-status=200" in fleet.ask("/prices/b").cache_status
        waiting = pool.submit(fleet.ask, "/prices/a")
        reads = fleet.operations.count("BatchGetItem")
        wait_for(lambda: fleet.operations.count("BatchGetItem") >= reads + 2, "reads by the one that waits", 30)
        fleet.prices.let_through.set()
        assert "fwd-status=200" in late.result().cache_status
        assert waiting.result().status == 200
    assert fleet.prices.asked[:2] == ["GET /a", "GET /b"]


@pytest.mark.parametrize("language", ["", "de"])
def test_what_an_unsafe_request_may_have_changed_is_no_longer_used(fleet: Fleet, language: str) -> None:
    headers = {"accept_language": language} if language else {}
    before = {path: fleet.ask(path, **headers).body for path in ("/prices/a", "/prices/b")}
    changed = fleet.ask("/prices/a", "PUT")
    assert changed.cache_status == "upstream; fwd=miss; fwd-status=200", "in the same invocation"
    after = {path: fleet.ask(path, **headers) for path in before}
    assert after["/prices/a"].cache_status.startswith("upstream; fwd=miss" if language else "shared; hit")
    assert after["/prices/a"].body == changed.body or language
    assert after["/prices/b"].body == before["/prices/b"]
    assert fleet.prices.asked == ["GET /a", "GET /b", "PUT /a", "GET /a"] + ["GET /a"] * bool(language)


def test_a_response_that_was_asked_for_before_an_unsafe_request_is_not_used_after_it(fleet: Fleet) -> None:
    fleet.ask("/prices/b")
    fleet.prices.held = "/a"
    with ThreadPoolExecutor() as pool:
        late = pool.submit(fleet.ask, "/prices/a")
        wait_for(lambda: "GET /a" in fleet.prices.asked, "the call before", 30)
        fleet.prices.held = ""
        assert fleet.ask("/prices/a", "PUT").status == 200
        fleet.prices.let_through.set()
        late.result()
    assert fleet.ask("/prices/a").cache_status == "upstream; fwd=miss; fwd-status=200"

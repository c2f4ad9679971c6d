"""The running functions keep to openapi.yaml, for all requests that schemathesis generates from it. So does the rest of
this repository."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from types import SimpleNamespace
from zlib import crc32

import hypothesis.configuration
import pytest
import schemathesis
import yaml
from harness import OWNED, PLAIN, ROOT, ROUTER, Api, Upstream, is_tested
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import AcceptedNegativeData, FailureGroup
from schemathesis.openapi.checks import RejectedPositiveData
from shared_fixtures import settings_of_upstreams
from unchanged import function_at

# hypothesis caches the machine's Unicode tables, by default in the root folder.
hypothesis.configuration.set_hypothesis_home_dir(ROOT / "target" / "hypothesis")

SPEC = yaml.safe_load((ROOT / "openapi.yaml").read_text())
TESTED = {path: item for path, item in SPEC["paths"].items() if is_tested(path)}
METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
# For these, the schema says what is refused.
OF_THE_SCHEMA = {"400", "413", "415", "422"}


def operations() -> Iterator[tuple[str, str, dict]]:
    for path, item in SPEC["paths"].items():
        yield from ((path, method, item[method]) for method in METHODS if method in item)


def accepted(operation: dict) -> list[str]:
    """The statuses that a request may get which the schema allows: all documented ones that depend on more than the
    request. A schema cannot say everything: `x-refuses` lists statuses for what it cannot say, such as unknown zones."""
    documented = {str(status).lower() for status in operation["responses"]} - OF_THE_SCHEMA
    return sorted({status for status in documented if status[0] < "5"} | {"2xx", "304", "406", *map(str, operation.get("x-refuses", []))})


CONTRACT = schemathesis.openapi.from_dict(
    {**SPEC, "paths": TESTED},
    config=schemathesis.Config.from_dict({
        # The same requests in each run, on a slow machine too.
        "seed": 1,
        "generation": {"deterministic": True, "database": "none", "max-examples": 15, "with-security-parameters": False},
        "suppress-health-check": ["too_slow"],
        # Methods that API Gateway passes on and the contract does not have.
        "phases": {"coverage": {"unexpected-methods": ["POST", "PUT", "PATCH", "DELETE"]}},
        "checks": {
            # An operator decides whether the others need a token.
            "ignored_auth": {"enabled": False},
            # A request with a fault can be refused for something else before: no item, another version, no token.
            "negative_data_rejection": {"expected-statuses": ["4xx", "5xx"]},
        },
        "operations": [
            {"include-name": f"{method.upper()} {path}", "checks": {"positive_data_acceptance": {"expected-statuses": accepted(operation)}}}
            for path, method, operation in operations()
            if path in TESTED
        ],
    }),
)
# An `Accept` header, and whether the API can satisfy it.
ACCEPTS = [("*/*", True), ("application/json", True), ("text/html, application/json;q=0.9, */*;q=0.8", True), ("image/png", False)]


@schemathesis.deserializer("text/plain")
def text(_: schemathesis.DeserializationContext, answer: schemathesis.Response) -> str:
    """Without this, text is not checked."""
    return answer.text


def validator(schema: dict) -> Draft202012Validator:
    """Returns a validator for a schema that refers to components of the contract."""
    return Draft202012Validator({**schema, "components": SPEC["components"]})


def errors_are_problems(_: schemathesis.CheckContext, answer: schemathesis.Response, case: schemathesis.Case) -> None:
    """Checks what OpenAPI cannot express: other methods get problems too, and the body agrees with the head. An error that the
    contract describes otherwise, as of a router that has its own, is as it says."""
    if answer.status_code >= 400 and answer.request.method != "HEAD" and not is_described_otherwise(case, answer.status_code):
        found = answer.headers.get("content-type")
        # The method of the request may be one that the path does not have.
        where = f"{case.operation.method.upper()} {case.operation.path} in openapi.yaml"
        assert found == ["application/problem+json"], (
            f"an error is a problem, unless {where} has a response of the status {answer.status_code} with another content, or none: {found}"
        )
        problem = answer.json()
        validator(SPEC["components"]["schemas"]["Problem"]).validate(problem)
        assert problem["status"] == answer.status_code
        assert problem["instance"] == f"urn:uuid:{answer.headers['x-request-id'][0]}"


def is_described_otherwise(case: schemathesis.Case, status: int) -> bool:
    responses = case.operation.definition.raw["responses"]
    found = responses.get(str(status), responses.get(f"{status // 100}XX", {}))
    described = SPEC["components"]["responses"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
    return described != {} and "application/problem+json" not in described.get("content", {})


def by_itself(api: Api, answer: schemathesis.Response) -> bool:
    """cargo-lambda passes on no bytes that are not UTF-8. In the emulator, `{name+}` matches no line feed."""
    if api.where == "local":
        return answer.status_code == 500
    return api.where == "deployed" and answer.status_code == 404 and "%0A" in str(answer.request.url)


def read_by_handler(case: schemathesis.Case) -> str | None:
    """Why `handler` reads what the schema refuses, if it does so for every endpoint; or what answers in front of the endpoint."""
    if "" in (case.query or {}).values():
        return "an empty parameter counts as absent"
    schema = case.operation.definition.raw.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if isinstance(case.body, list) and schema.get("type") == "object":
        return "serde reads a list of the members in an object's place"
    if case.operation.method == "options" and "200" in case.operation.definition.raw["responses"]:
        return "a CORS layer answers OPTIONS, before the endpoint reads the request; handler itself answers 204"
    return None


@pytest.mark.parametrize(
    ("query", "body", "reads"),
    [({"limit": ""}, None, True), ({"limit": "a"}, None, False), ({}, [None], True), (None, {}, False), ({}, "a", False)],
)
def test_handler_reads_empty_parameters_and_lists_in_an_objects_place(query: dict | None, body: object, reads: bool) -> None:
    content = {"application/json": {"schema": {"type": "object"}}}
    operation = SimpleNamespace(method="post", definition=SimpleNamespace(raw={"requestBody": {"content": content}}))
    case = SimpleNamespace(query=query, body=body, operation=operation)
    assert bool(read_by_handler(case)) == reads
    content["application/json"]["schema"]["type"] = "array"
    assert bool(read_by_handler(case)) == (reads and query != {})


@pytest.mark.parametrize(("status", "is_layers"), [("200", True), ("204", False)])
def test_a_cors_layer_answers_options_before_the_endpoint(status: str, is_layers: bool) -> None:
    operation = SimpleNamespace(method="options", definition=SimpleNamespace(raw={"responses": {status: {}}}))
    assert bool(read_by_handler(SimpleNamespace(query=None, body=None, operation=operation))) == is_layers


def test_an_error_that_is_no_problem_is_told_with_an_operation_that_there_is() -> None:
    operation = SimpleNamespace(method="get", path="/old", definition=SimpleNamespace(raw={"responses": {}}))
    answer = SimpleNamespace(status_code=405, request=SimpleNamespace(method="PUT"), headers={})
    with pytest.raises(AssertionError, match="unless GET /old in openapi.yaml has a response of the status 405"):
        errors_are_problems(None, answer, SimpleNamespace(method="PUT", operation=operation))


@pytest.mark.parametrize(
    ("responses", "otherwise"),
    [
        ({}, False),
        ({"405": {"description": "Without a body."}}, True),
        ({"4XX": {"content": {"text/plain": {}}}}, True),
        ({"4XX": {"content": {"text/plain": {}}}, "405": {"content": {"application/problem+json": {}}}}, False),
        ({"405": {"$ref": "#/components/responses/BadRequest"}}, False),
        ({"405": {"$ref": "#/components/responses/Methods"}}, True),
        ({"404": {"description": "Without a body."}}, False),
    ],
)
def test_a_contract_can_describe_errors_that_are_no_problems(responses: dict, otherwise: bool) -> None:
    case = SimpleNamespace(operation=SimpleNamespace(definition=SimpleNamespace(raw={"responses": responses})))
    assert is_described_otherwise(case, 405) == otherwise


@CONTRACT.parametrize()
def test_answers_are_as_described(api: Api, case: schemathesis.Case) -> None:
    if api.where == "deployed" and case.operation.method == "options":
        pytest.skip("the emulator answers OPTIONS itself; API Gateway does so only for an API with CORS")
    # Chosen by the request alone, so that it is the same in each run.
    accept, satisfiable = ACCEPTS[crc32(ascii((case.method, case.query, case.headers)).encode()) % len(ACCEPTS)]
    answer = api.answered(case.call(base_url=api.url, headers={"accept": accept} | api.credentials()))
    if "x-request-id" not in answer.headers and by_itself(api, answer):
        print(f"not the function, but what is in front of it, answered {answer.request.url}: {answer.text}")
        return
    try:
        case.validate_response(answer, additional_checks=[errors_are_problems])
    except FailureGroup as failures:
        why = read_by_handler(case)
        if why and all(isinstance(failure, AcceptedNegativeData) for failure in failures.exceptions):
            print(f"not a fault of the endpoint: {why}")
            return
        if any(isinstance(failure, RejectedPositiveData) for failure in failures.exceptions):
            where, line = f"{case.method} {case.operation.path}", f"x-refuses: [{answer.status_code}]"
            failures.add_note(f"If a schema cannot say why this is refused, add `{line}` to {where} in openapi.yaml.")
        raise
    assert answer.status_code != 406 or not satisfiable


@pytest.mark.parametrize("path", TESTED)
def test_allow_lists_the_methods_of_the_contract(api: Api, path: str) -> None:
    if api.where != "local":
        pytest.skip("the gateway in front may answer OPTIONS itself")
    answer = api.call(re.sub(r"\{.*?\}", "a", path), "OPTIONS")
    # An axum router has neither OPTIONS nor spaces in it.
    allowed = {method.strip() for method in answer.headers["allow"].split(",")} | {"OPTIONS"}
    assert allowed == {method.upper() for method in TESTED[path] if method in METHODS} | {"OPTIONS"}


@pytest.mark.parametrize("path", [path for path in PLAIN if settings_of_upstreams(ROUTER[path]) and "get" in TESTED.get(path, {})])
def test_an_upstreams_error_is_as_described(api: Api, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    if api.where != "deployed":
        pytest.skip("its upstream is not ours")
    monkeypatch.setattr(upstream, "accepts", "another token")
    CONTRACT[path]["GET"].Case().call_and_validate(
        base_url=api.url, additional_checks=[errors_are_problems], excluded_checks=[not_a_server_error]
    )


def test_openapi_yaml_is_valid() -> None:
    schemathesis.openapi.from_dict(SPEC).validate()


def answers() -> Iterator[dict]:
    yield from SPEC["components"]["responses"].values()
    for _, _, operation in operations():
        yield from (answer for answer in operation["responses"].values() if "$ref" not in answer)


def media() -> Iterator[dict]:
    for answer in answers():
        yield from answer.get("content", {}).values()


def test_its_examples_are_valid() -> None:
    examples = [(medium["schema"], medium["example"]) for medium in media() if "example" in medium]
    assert examples
    for schema, example in examples:
        validator(schema).validate(example)


def test_its_paths_are_the_routes() -> None:
    assert {path: function_at(path) for path in SPEC["paths"]} == {route.replace("{*", "{"): function for route, function in ROUTER.items()}


@pytest.mark.skipif(OWNED, reason="a team's contract may have no operation with a body")
def test_the_page_about_requests_shows_a_form_that_fits_the_contract() -> None:
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/requests.md").read_text(), re.DOTALL)[1]
    contract = yaml.safe_load((ROOT / "openapi.yaml").read_text().replace("\npaths:\n", f"\npaths:\n  /photos:\n{shown}"))
    schemathesis.openapi.from_dict(contract).validate()
    form, accepted = contract["paths"]["/photos"]["post"], contract["components"]["responses"]["UnsupportedMediaType"]["headers"]["accept"]
    for kind in (*form["requestBody"]["content"], "application/x-www-form-urlencoded"):
        validator(accepted["schema"]).validate(kind)


# The problems of our crates.
STATUSES = {**HTTPStatus.__members__, "PAYLOAD_TOO_LARGE": 413}
CONSTRUCTORS = {"data/src/idempotency.rs": "Problem", "handler/src/problem.rs": "Self", "upstream/src/error.rs": "Problem"}
PROBLEMS = {
    name: STATUSES[status]
    for file, of in CONSTRUCTORS.items()
    for name, status in re.findall(
        of + r'::new\(\s*"([a-z-]+)",\s*(?:"[^"]+"|title),\s*StatusCode::(\w+)', (ROOT / "functions" / file).read_text()
    )
}
URN = "urn:problem-type:"


def test_the_contract_and_the_page_have_every_problem_of_our_crates() -> None:
    assert len(PROBLEMS) >= 25
    rows = re.findall(r"^\| (`.*`) \| (\d{3}) \|", (ROOT / "docs/requests.md").read_text(), re.MULTILINE)
    listed = {name: int(status) for names, status in rows for name in re.findall("`(.+?)`", names)}
    assert PROBLEMS.items() <= listed.items()
    documented = {}
    for properties in (medium.get("schema", {}).get("properties", {}) for medium in media()):
        types = [name for name in properties.get("type", {}).get("enum", []) if str(name).startswith(URN)]
        documented |= {name.removeprefix(URN): properties["status"]["const"] for name in types}
    # 405 is no operation's answer: each path answers the methods that it has. A team's endpoints may not have all of them.
    assert OWNED or PROBLEMS.items() - documented.items() == {("method-not-allowed", 405)}
    assert {name: status for name, status in documented.items() if PROBLEMS.get(name, status) != status} == {}

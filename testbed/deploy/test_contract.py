"""The running functions keep to openapi.yaml, for all requests that schemathesis generates from it. So does the rest of
this repository."""

import re
import tomllib
from collections.abc import Iterator
from zlib import crc32

import hypothesis.configuration
import pytest
import schemathesis
import yaml
from harness import ROOT, Api, Upstream
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error

# hypothesis caches the machine's Unicode tables, by default in the root folder.
hypothesis.configuration.set_hypothesis_home_dir(ROOT / "target" / "hypothesis")

SPEC = yaml.safe_load((ROOT / "openapi.yaml").read_text())
CONTRACT = schemathesis.openapi.from_dict(
    SPEC,
    config=schemathesis.Config.from_dict({
        # The same requests in each run, on a slow machine too.
        "seed": 1,
        "generation": {"deterministic": True, "database": "none", "max-examples": 15},
        "suppress-health-check": ["too_slow"],
        # Methods that API Gateway passes on and the contract does not have.
        "phases": {"coverage": {"unexpected-methods": ["POST", "PUT", "PATCH", "DELETE"]}},
        # The schema has neither `Accept` nor the list of zones, so a request that it allows may be refused.
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "304", "406"]}},
        "operations": [{
            "include-path": "/time",
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "406"]}},
        }],
    }),
)
# An `Accept` header, and whether the API can satisfy it.
ACCEPTS = [
    ("*/*", True),
    ("application/json", True),
    ("text/html, application/json;q=0.9, */*;q=0.8", True),
    ("image/png", False),
]


@schemathesis.deserializer("text/plain")
def text(_: schemathesis.DeserializationContext, answer: schemathesis.Response) -> str:
    """Without this, text is not checked."""
    return answer.text


def validator(schema: dict) -> Draft202012Validator:
    """Returns a validator for a schema that refers to components of the contract."""
    return Draft202012Validator({**schema, "components": SPEC["components"]})


def errors_are_problems(_: schemathesis.CheckContext, answer: schemathesis.Response, case: schemathesis.Case) -> None:
    """Checks what OpenAPI cannot express: other methods get problems too, and the body agrees with the head."""
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert answer.headers["content-type"] == ["application/problem+json"]
        problem = answer.json()
        validator(SPEC["components"]["schemas"]["Problem"]).validate(problem)
        assert problem["status"] == answer.status_code
        assert problem["instance"] == f"urn:uuid:{answer.headers['x-request-id'][0]}"


@CONTRACT.parametrize()
def test_answers_are_as_described(api: Api, case: schemathesis.Case) -> None:
    if api.where == "deployed" and case.operation.method == "options":
        pytest.skip("the emulator answers OPTIONS itself; API Gateway does so only for an API with CORS")
    # Chosen by the request alone, so that it is the same in each run.
    accept, satisfiable = ACCEPTS[crc32(ascii((case.method, case.query, case.headers)).encode()) % len(ACCEPTS)]
    answer = api.answered(case.call(base_url=api.url, headers={"accept": accept} | api.credentials()))
    case.validate_response(answer, additional_checks=[errors_are_problems])
    assert answer.status_code != 406 or not satisfiable


def test_allow_lists_the_methods_of_the_contract(api: Api) -> None:
    if api.where != "local":
        pytest.skip("the gateway in front may answer OPTIONS itself")
    for path, item in SPEC["paths"].items():
        answer = api.call(re.sub(r"\{.*?\}", "a", path), "OPTIONS")
        methods = {method.upper() for method in item if method not in ("summary", "parameters")}
        assert set(answer.headers["allow"].split(", ")) == methods, path


def test_an_upstreams_error_is_as_described(api: Api, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    if api.where == "given":
        pytest.skip("its upstream is not ours")
    monkeypatch.setattr(upstream, "accepts", "another token")
    answer = CONTRACT["/fetch"]["GET"].Case().call_and_validate(
        base_url=api.url, additional_checks=[errors_are_problems], excluded_checks=[not_a_server_error]
    )
    assert (answer.status_code, answer.json()["upstream_status"]) == (502, 401)


def test_openapi_yaml_is_valid() -> None:
    CONTRACT.validate()


def media() -> Iterator[dict]:
    for answer in SPEC["components"]["responses"].values():
        yield from answer.get("content", {}).values()


def test_its_examples_are_valid() -> None:
    examples = [(medium["schema"], medium["example"]) for medium in media() if "example" in medium]
    assert len(examples) >= 6
    for schema, example in examples:
        validator(schema).validate(example)


def test_cargo_toml_has_its_paths_and_version() -> None:
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert SPEC["paths"].keys() == workspace["metadata"]["lambda"]["watch"]["router"].keys()
    assert SPEC["info"]["version"] == workspace["package"]["version"]


def test_readme_lists_its_problems() -> None:
    rows = re.findall(r"^\| (`.*`) \| (\d{3}) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = {f"urn:problem-type:{name}": int(status) for names, status in rows for name in re.findall("`(.+?)`", names)}
    problem = SPEC["components"]["schemas"]["Problem"]
    assert listed.keys() == set(problem["properties"]["type"]["enum"])
    for properties in (medium["schema"]["properties"] for medium in media() if "$ref" in medium.get("schema", {})):
        assert {listed[name] for name in properties["type"]["enum"]} == {properties["status"]["const"]}

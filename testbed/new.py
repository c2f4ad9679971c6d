"""`make new`: writes the boilerplate of a new endpoint: crate, route, template, contract, first payloads.

    new.py NAME [ROUTE] [METHODS] [ITEM] [ITEM_METHODS] [UPSTREAMS] [STREAM] [TABLE]

It inserts text, so that existing files keep their comments and their order. Before it writes anything, it checks its
arguments and finds every place to insert.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from emulator import TABLES
from table import Table, head_of, part, uses

ROOT = Path(__file__).resolve().parents[1]

# The routes of `make run`.
ROUTES = "CargoLambda.toml"

# For each method: the name of the Rust function, and the status of its answer.
METHODS = {
    "GET": ("read", "OK", 200),
    "POST": ("create", "CREATED", 201),
    "PUT": ("replace", "OK", 200),
    "PATCH": ("change", "OK", 200),
    "DELETE": ("remove", "NO_CONTENT", 204),
}
WITH_BODY = ("POST", "PUT", "PATCH")
GONE = """    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
"""

# Of a line in a file of events/.
WIDTH = 140

# Folders that cargo keeps where it puts the binaries, so no binary can have such a name.
CARGOS = ("build", "deps", "examples", "incremental", "test")


# What each change of the routes ends with.
RESTART = "A `make run` that was started before does not have this change of the routes: start it again."


class Refused(Exception):
    """The endpoint cannot be written. The message says why."""


# Lambda's limit for the description of a version, which has the values of the settings: see Globals in template.yaml.
DESCRIPTION = 256
# The longest log level, and the longest name of a secret with its suffix, as PricesSecretId allows it.
LOG_LEVEL, SECRET = len("TRACE"), 32 + len("-AbCdEf")


class Upstream:
    """A service that the endpoint calls."""

    def __init__(self, name: str) -> None:
        self.name, self.static = name, name.replace("-", "_").upper()
        self.id = "".join(word.capitalize() for word in name.split("-"))

    def parameters(self, route: str, url_bytes: int) -> str:
        return rf"""  {self.id}Url:
    Type: String
    Default: https://{self.name}.example.com
    AllowedPattern: ^(https://(\[[0-9a-fA-F:.]+\]|[^\s/?#@:\\\[\]]+)|http://(localhost|127\.0\.0\.1|\[::1\]))(:[0-9]+)?([/?][^\s#]*)?$
    ConstraintDescription: An https URL of up to {url_bytes} characters, without credentials and fragment; http only to a loopback address.
    # A version's description contains this, and holds at most {DESCRIPTION} characters.
    MaxLength: {url_bytes}
    Description: The URL of the upstream {self.name}, which {route} calls.
  {self.id}SecretId:
    Type: String
    Default: ""
    # An ARN, because a policy for a name needs a wildcard for the suffix that Secrets Manager adds.
    AllowedPattern: ^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{{12}}:secret:[A-Za-z0-9/_+=.@-]{{1,32}}-[A-Za-z0-9]{{6}})?$
    ConstraintDescription: The complete ARN of a Secrets Manager secret, including its six-character suffix, or empty. The name has up to 32 characters.
    MaxLength: 128
    Description: Secret that is sent to the upstream {self.name} as a bearer token. If empty, no token is sent.
"""

    def policy(self, endpoint: str) -> str:
        return part(
            "policy", ENDPOINT=endpoint, POLICY=f"{self.id}Secret", CONDITION=f"    Condition: Has{self.id}Secret\n", KIND=f"{self.name}-secret",
            ACTIONS="secretsmanager:GetSecretValue", RESOURCE=f"!Ref {self.id}SecretId",
        )

    def variables(self) -> str:
        return f"""          {self.static}_URL: !Ref {self.id}Url
          {self.static}_SECRET_ID: !If [Has{self.id}Secret, !Ref {self.id}SecretId, !Ref AWS::NoValue]
          {self.static}_TIMEOUT_MS: "5000"
          {self.static}_ATTEMPT_TIMEOUT_MS: "2000"
"""


class Resource:
    """A path of the endpoint. `suffix` tells its names from those of the endpoint's other path."""

    def __init__(self, prefix: str, route: str, methods: str) -> None:
        self.variable, self.route, self.suffix = prefix or "ROUTE", route, prefix.capitalize()
        self.methods_variable = f"{prefix}_METHODS".lstrip("_")
        self.methods = [method.strip().upper() for method in (methods or "GET").split(",")]
        # `{name+}` takes the rest of the path.
        self.parameters = re.findall(r"\{(.*?)\+?\}", self.route)

    def check(self, routes: dict[str, str]) -> None:
        """`routes` are those that there are."""
        name = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"
        segment = rf"[A-Za-z0-9._~-]+|\{{{name}\}}"
        is_route = re.fullmatch(rf"(/({segment}))*/({segment}|\{{{name}\+\}})", self.route)
        if not is_route or {".", ".."} & set(self.route.split("/")):
            raise Refused(
                f"{self.variable}={self.route}: a route has segments of letters, digits and -._~, or {{parameters}} of lower-case "
                "letters and digits, with single underscores between them, of which the last may be {name+}; "
                f"as in {self.variable}='/shops/{{shop}}/orders'."
            )
        if len(set(self.parameters)) != len(self.parameters):
            raise Refused(f"{self.variable}={self.route}: two parameters have the same name.")
        if unknown := [method for method in self.methods if method not in METHODS]:
            raise Refused(f"{self.methods_variable}={','.join(unknown)}: an endpoint can have {', '.join(METHODS)}.")
        if len(set(self.methods)) != len(self.methods):
            raise Refused(f"{self.methods_variable}={','.join(self.methods)}: a method appears twice.")
        for route in routes:
            if re.sub(r"\{.*?\}", "{}", route) == re.sub(r"\{.*?\}", "{}", self.route):
                raise Refused(f"{self.variable}={self.route}: {routes[route]} is already served there.")

    def function(self, method: str) -> str:
        return "_".join(filter(None, [METHODS[method][0], self.suffix.lower()]))


def check_form(variable: str, name: str, most: int) -> None:
    """Refuses what is no name, or has more than `most` characters."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > most:
        raise Refused(
            f"{variable}={name}: a name has lower-case letters and digits, with single hyphens between them, begins "
            f"with a letter, and has at most {most} characters; as in {variable}=shop-orders."
        )


def check_name(variable: str, name: str) -> None:
    """Refuses a name that no endpoint can have, or that something has already."""
    check_form(variable, name, 32)
    if name in CARGOS:
        raise Refused(f"{variable}={name}: cargo keeps a folder of its own under that name; choose another one.")
    for there in (f"functions/{name}", f"events/{name}", f"{name}/Cargo.toml"):
        if (ROOT / there).exists():
            raise Refused(f"{variable}={name}: {there} already exists.")
    id = name.replace("-", "")
    if re.search(rf"^  {id}Function:$", read("template.yaml"), re.MULTILINE):
        raise Refused(f"{variable}={name}: template.yaml has a {id}Function already.")


class Endpoint:
    def __init__(
        self, name: str, route: str = "", methods: str = "", item: str = "", item_methods: str = "",
        upstreams: str = "", stream: str = "", table: str = "",
    ) -> None:
        self.name, self.stream, self.table = name, stream, Table(table) if table else None
        route = route or f"/{name}"
        if self.table:
            methods, item, item_methods = self.table.split(route, methods, item, item_methods)
        self.upstreams = [Upstream(upstream.strip().lower()) for upstream in upstreams.split(",") if upstream]
        self.id = name.replace("-", "")
        self.resources = [Resource("", route, methods)]
        if item or item_methods or self.table:
            self.resources.append(Resource("ITEM", item, item_methods))
        self.methods = [method for method in METHODS if any(method in resource.methods for resource in self.resources)]
        self.parameters = [name for resource in self.resources for name in resource.parameters]

    def check(self) -> None:
        check_name("NAME", self.name)
        names = [upstream.name for upstream in self.upstreams]
        for name in names:
            check_form("UPSTREAMS", name, 20)
        if len(set(names)) != len(names):
            raise Refused(f"UPSTREAMS={','.join(names)}: a name appears twice.")
        if len(names) > 3:
            raise Refused(
                f"UPSTREAMS={','.join(names)}: the description of a version has no room for the settings of more than three; "
                "add the others to template.yaml by hand."
            )
        if self.stream not in ("", "yes"):
            raise Refused(f"STREAM={self.stream}: it is `yes`, or is left out.")
        if self.stream and (self.methods != ["GET"] or len(names) > 1):
            raise Refused("STREAM=yes: an endpoint that streams is made with GET alone, and with one of UPSTREAMS at most; docs/streams.md says what else can stream.")
        if self.table and (self.upstreams or self.stream):
            raise Refused(f"TABLE={self.table.name}: an endpoint with a table is made without UPSTREAMS and STREAM; add them by hand.")
        if re.search(rf"^      operationId: [a-z]+{self.id.capitalize()}$", read("openapi.yaml"), re.MULTILINE):
            raise Refused(f"NAME={self.name}: openapi.yaml has operations of {self.id.capitalize()} already.")
        routes = router()
        if self.table:
            check_form("TABLE", self.table.name, 32)
        if why := self.table and self.table.refused(self.resources, read("template.yaml")):
            raise Refused(f"TABLE={self.table.name}: {why}")
        for resource in self.resources:
            resource.check(routes)
            routes[resource.route] = self.name

    def files(self) -> dict[str, str]:
        """The content of each new or changed file."""
        return {
            ROUTES: self.with_routes(),
            "template.yaml": self.template(),
            "openapi.yaml": self.openapi(),
            f"functions/{self.name}/Cargo.toml": self.manifest(),
            f"functions/{self.name}/src/main.rs": self.main(),
            **({f"functions/{self.name}/tests/failing_upstreams.rs": self.test()} if self.upstreams else {}),
            **self.cases(),
        }

    def cases(self) -> dict[str, str]:
        return {f"events/{self.name}/{case}": pretty(content) + "\n" for case, content in self.events()}

    def with_routes(self) -> str:
        routes = "".join(f'\n"{local(resource.route)}" = "{self.name}"' for resource in self.resources)
        return read(ROUTES).rstrip("\n") + routes + "\n"

    def manifest(self) -> str:
        manifest = read("testbed/new/function.toml").replace('"NAME', f'"{self.name}').replace("ROUTES", self.routes())
        permissions, links = {f"{upstream.id}SecretId": ["secretsmanager:GetSecretValue"] for upstream in self.upstreams}, ["aws"]
        if self.stream:
            manifest = manifest.replace("serde.workspace = true\n", "")
        if self.table:
            permissions = {self.table.id: self.table.actions(self.resources)}
            manifest = insert(manifest, r"(?<=\n\[dependencies\]\n)", "data.workspace = true\n")
        elif self.upstreams:
            links.append("http")
            tokio = 'tokio = { workspace = true, features = ["macros"] }\n' if len(self.upstreams) > 1 else ""
            manifest = insert(manifest, r"(?=\n\[dev-dependencies\]\n)", f"{tokio}upstream.workspace = true\n")
        if self.stream:
            streams = "upstream" if self.upstreams else "handler"
            manifest = manifest.replace(f"{streams}.workspace = true", streams + ' = { workspace = true, features = ["stream"] }')
        lines = "".join(f"{name} = {json.dumps(actions)}\n" for name, actions in permissions.items())
        declared = f"[package.metadata.endpoint]\nlinks = {json.dumps(links)}\n\n[package.metadata.endpoint.permissions]\n{lines}\n"
        return insert(manifest, r"(?=\[\[bin\]\]\n)", declared) if permissions else manifest

    def routes(self) -> str:
        return ", ".join(f"`{resource.route}`" for resource in self.resources)

    def main(self) -> str:
        if self.table:
            return self.table.main(self.name, self.routes(), self.resources)
        has_body = any(method in WITH_BODY for method in self.methods)
        answers = self.methods != ["DELETE"] and not self.stream
        several = len(self.resources) > 1
        statics = "".join(
            f"""
/// The environment variable `{upstream.static}_URL` says where it is. docs/upstream.md lists its other settings.
static {upstream.static}: Upstream = Upstream::new("{upstream.static}");
"""
            for upstream in self.upstreams
        )
        made = []
        for resource in self.resources:
            operations = ".".join(f"{method.lower()}({resource.function(method)})" for method in resource.methods)
            made.append(f'{operations}.at("{resource.route}")')
        endpoint = f"routes([{', '.join(made)}])" if several else made[0]
        operations = "".join(self.operation(resource, method) for resource in self.resources for method in resource.methods)
        types = ""
        if self.upstreams and answers:
            types += struct("Answer", "an upstream's response: write here what the endpoint needs of it", "Deserialize, Serialize")
        if has_body:
            of = "a request" if self.upstreams else "a request and an answer"
            types += struct("Message", of, "Deserialize, Serialize", "#[serde(deny_unknown_fields)]\n")
        elif answers and not self.upstreams:
            types += struct("Message", "an answer", "Serialize")
        code = f"""{statics}
fn main() -> ExitCode {{
    handler::run(endpoint())
}}

fn endpoint() -> {"Routes" if several else "Resource"} {{
    {endpoint}
}}
{types}{operations}
#[cfg(test)]
mod tests {{
    #[tokio::test]
    async fn answers_its_events() {{
        testbed::replay("{self.name}", super::endpoint()).await;
    }}
}}
"""
        return f"//! {self.routes()}: say here what it is for.\n\nuse std::process::ExitCode;\n\n{uses(code)}{code}"

    def operation(self, resource: Resource, method: str) -> str:
        status = f"StatusCode::{METHODS[method][1]}"
        # No variables, because a parameter can have the name of a keyword or of a function.
        values = [f'path(&request, "{name}")?' for name in resource.parameters]
        checks = "".join(f"    {value};\n" for value in values)
        message = f'[{", ".join(values)}].join(" ")' if len(values) > 1 else "".join(values or [f'"{self.name}"'])
        if self.upstreams:
            body = self.calls(resource, method)
        elif method in WITH_BODY:
            body = f"{checks}    let message: Message = body(&request, 16 * 1024)?;\n    json({status}, &message)\n"
        elif method == "DELETE":
            body = checks + GONE
        elif self.stream:
            body = f"""    let message = {message}{".to_owned()" * (len(values) < 2)};
    Ok(stream("text/plain; charset=utf-8", move |pieces| async move {{
        // Send each piece when it is there.
        pieces.send(message).await
    }}))
"""
        elif values:
            body = f"    let message = {message}{'.into()' * (len(values) < 2)};\n    json({status}, &Message {{ message }})\n"
        else:
            body = f"    json({status}, &Message {{ message: {message}.into() }})\n"
        request = "request" if "&request" in body else "_request"
        return f"\nasync fn {resource.function(method)}({request}: Request) -> Result<Response, Problem> {{\n{body}}}\n"

    def calls(self, resource: Resource, method: str) -> str:
        """The body of an operation that asks all upstreams at once."""
        read, sent, answered = "", "", ".json::<Answer>()"
        if method in WITH_BODY:
            read, sent = "    let message: Message = body(&request, 16 * 1024)?;\n", ".with_json(&message)"
        if method == "DELETE":
            answered = ".send()"
        if self.stream:
            answered = ".stream().await?"
        place = "/{}" * len(resource.parameters)
        values = ", ".join(f'path(&request, "{name}")?' for name in resource.parameters)
        calls, names = "", [f"from_{upstream.static.lower()}" for upstream in self.upstreams]
        for name, upstream in zip(names, self.upstreams, strict=True):
            calls += f'    let {name} = {upstream.static}.{method.lower()}("{place}", [{values}]){sent}{answered};\n'
        if self.stream:
            return f"{calls}    Ok({names[0]}.pass_on(&request))\n"
        all_of_them = f"try_join!({', '.join(names)})?" if len(names) > 1 else f"{names[0]}.await?"
        if method == "DELETE":
            return f"{calls}    {all_of_them};\n{GONE}"
        return f"{read}{calls}    json(StatusCode::{METHODS[method][1]}, &{all_of_them})\n"

    def test(self) -> str:
        names = ", ".join(f'"{upstream.static}"' for upstream in self.upstreams)
        return f"""//! {self.routes()} while one of its upstreams fails. docs/upstream.md lists the faults.

use testbed::upstream::Fault;

#[tokio::test]
async fn a_failing_upstream_becomes_a_problem() {{
    for upstream in [{names}] {{
        for fault in ["refuses connections", "resets in the body", "answers 503"].map(Fault::named) {{
            let answer = fault.answer_of("{self.name}", env!("CARGO_BIN_EXE_{self.name}"), upstream).await;
            assert_eq!((answer.status, &*answer.problem()), (fault.status, fault.what), "{{upstream}} {{}}", fault.name);
        }}
    }}
}}
"""

    def events(self) -> list[tuple[str, object]]:
        if self.table:
            return self.table.events(self.resources)
        files = []
        for resource, (number, method) in ((resource, method) for resource in self.resources for method in enumerate(resource.methods)):
            path = re.sub(r"\{(.*?)\+?\}", r"a-\1", resource.route)
            request = ({} if method == "GET" else {"method": method}) | {"path": path}
            sent = {"message": "hello"}
            told = {"message": " ".join(f"a-{name}" for name in resource.parameters) or self.name}
            if self.upstreams:
                told = sent if len(self.upstreams) == 1 else [sent] * len(self.upstreams)
            if method in WITH_BODY:
                request["body"] = sent
            if self.stream and not self.upstreams:
                told = told["message"]
            kind = "text/plain; charset=utf-8" if self.stream and not self.upstreams else "application/json"
            headers = {"content-type": None if method == "DELETE" else kind, "cache-control": "no-store"}
            answer = {"status": METHODS[method][2], "headers": headers}
            if method != "DELETE":
                answer["body"] = sent if method in WITH_BODY and not self.upstreams else told
            case = "-".join(filter(None, [resource.suffix.lower(), method.lower() if number else ""])) or "plain"
            files.append((f"{case}.json", {"request": request, "answer": answer}))
        settings = {f"{upstream.static}_URL": f"{{upstream}}/{upstream.name}" for upstream in self.upstreams}
        settings |= {"INVOKE_MODE": "RESPONSE_STREAM"} if self.stream else {}
        files += [("settings.json", settings)] * bool(settings) + [("upstream.json", sent)] * bool(self.upstreams)
        return files

    def template(self) -> str:
        text = read("template.yaml")
        head = "    Metadata: { BuildMethod: rust-cargolambda }\n"
        settings = "      VersionDescription: !Ref LogLevel\n"
        if self.upstreams:
            head, settings = self.upstream_settings()
        if self.table:
            head, settings = self.table.settings(self.id)
            place = r"(?=  # The resources that every function has\.\n)"
            text = text if TABLES in text else insert(text, place, part("tables"))
            text = insert(append(text, TABLES, self.table.prefix), place, self.table.policy(self.id, self.resources))
        if self.stream:
            settings = self.stream_settings(settings)
            url = f"""  {self.id}Streams:
    Description: Function URL of the endpoint, which streams. It takes signed requests.
    Value: !GetAtt {self.id}FunctionUrl.FunctionUrl
"""
            text = insert(text, r"(?=  Fn::ForEach::Urls:\n)", url)
        http_api = "{{ Type: HttpApi, Properties: {{ ApiId: !Ref Api, Path: \"{}\", Method: {} }} }}"
        events = "".join(
            f"        {resource.suffix}{method.capitalize()}: "
            + http_api.format(resource.route, method) + "\n"
            for resource in self.resources for method in ("ANY", "OPTIONS")
        )
        block = f"""  {self.id}Function:
    Type: AWS::Serverless::Function
{head}    Properties:
      FunctionName: !Sub ${{AWS::StackName}}-{self.name}
      CodeUri: functions/{self.name}
      Role: !GetAtt {self.id}Role.Arn
{settings}      LoggingConfig: {{ LogGroup: !Ref {self.id}Logs }}
      DeploymentPreference:
        Alarms: !If [IsProd, [!Ref {self.id}Errors], [!Ref AWS::NoValue]]
      Events:
{events}
"""
        text = insert(text, r"(?=  # The resources that every function has\.\n)", block)
        secured = "{ x-amazon-apigateway-any-method: { security: !If [HasJwt, [{ jwt: [] }], !Ref AWS::NoValue] } }"
        for resource in self.resources:
            text = insert(text, r"(?=      FailOnWarnings: true\n)", f'          "{resource.route}": {secured}\n')
        for loop in ("Functions", "Urls"):
            text = append(text, rf"  Fn::ForEach::{loop}:\n    - Name\n    - ", self.name)
        text = insert(text, r"LogGroupNames: &logGroups\n(        - !Ref \w+\n)*", f"        - !Ref {self.id}Logs\n", after=True)
        others = "" if "FunctionName=()" in text else "\n            OR "
        text = insert(text, r"(?=\)\n\n  WhichRequestsFailedQuery:)", f'{others}\\"${{AWS::StackName}}-{self.name}\\"')
        route = self.resources[0].route
        own = f"      Path: {json.dumps(route)}\n" if route != f"/{self.name}" else ""
        if self.upstreams:
            text = self.with_upstreams(text)
        if self.upstreams and not self.stream:
            own += "      # 80 % of the upstreams' time limit.\n      SlowMs: 4000\n"
        elif self.stream:
            own += "      # 80 % of its Timeout.\n      SlowMs: 20000\n"
        if own:
            text = insert(text, r"(?<=\nMappings:\n)(  #.*\n)*  Functions:\n", f"    {self.name}:\n{own}", after=True)
        return text

    def stream_settings(self, settings: str) -> str:
        """The lines of the function's block that are for its function URL, after its other `settings`."""
        mode = "# The function URL streams. The API cannot, and gets the answer as a whole: docs/streams.md.\n"
        settings = re.sub(r"(      #.*\n)?      Timeout: .*\n", "", settings)
        if self.upstreams:
            settings += f"          {mode}          INVOKE_MODE: RESPONSE_STREAM\n"
        else:
            settings += f"      {mode}      Environment: {{ Variables: {{ INVOKE_MODE: RESPONSE_STREAM }} }}\n"
        return """      # A whole stream may take as long, and the API waits for 30 s. Without routes of the API, it can be up to 900.
      Timeout: 25
""" + settings + """      FunctionUrlConfig:
        AuthType: AWS_IAM
        InvokeMode: RESPONSE_STREAM
        Cors: !If
          - HasCors
          - AllowOrigins: !Split [",", !Ref CorsAllowOrigins]
            AllowMethods: [GET, HEAD]
            AllowHeaders: [accept, authorization, last-event-id, traceparent, x-amz-content-sha256, x-amz-date, x-amz-security-token]
            ExposeHeaders: [x-request-id]
          - !Ref AWS::NoValue
"""

    def upstream_settings(self) -> tuple[str, str]:
        """The lines of the function's block that are for its upstreams."""
        policies = ", ".join(f"{self.id}{upstream.id}SecretPolicy" for upstream in self.upstreams)
        values = " ".join(f"${{{upstream.id}Url}} ${{{upstream.id}Secret}}" for upstream in self.upstreams)
        secrets = "".join(
            f'          {upstream.id}Secret: !If [Has{upstream.id}Secret, !Select [6, !Split [":", !Ref {upstream.id}SecretId]], ""]\n'
            for upstream in self.upstreams
        )
        more = """      # TLS is limited by the CPU, and more memory brings more CPU. 128 MB have enough for one connection.
      MemorySize: 256
"""
        memory = more if len(self.upstreams) > 1 else ""
        return (
            f"""    # If a policy's condition does not hold, CloudFormation does not wait for it.
    DependsOn: [{policies}]
    Metadata: {{ BuildMethod: rust-cargolambda, cfn-lint: {{ config: {{ ignore_checks: [E3005] }} }} }}
""",
            f"""{memory}      # Longer than the upstreams' limits plus a cold start, shorter than the 30 s that API Gateway waits.
      Timeout: 10
      VersionDescription: !Sub
        - ${{LogLevel}} {values}
        # The secrets' names, because the description has no room for their ARNs.
        - {secrets.lstrip()}      Environment:
        Variables:
{"".join(upstream.variables() for upstream in self.upstreams)}""",
        )

    def with_upstreams(self, text: str) -> str:
        """`text` with what the function's block refers to: parameters, unless another function has the upstream too, and
        policies."""
        own = [upstream for upstream in self.upstreams if not re.search(rf"^  {upstream.id}Url:$", text, re.MULTILINE)]
        count = len(self.upstreams)
        url_bytes = min(92, (DESCRIPTION - LOG_LEVEL - 2 * count) // count - SECRET)
        parameters = "".join(upstream.parameters(self.resources[0].route, url_bytes) for upstream in own)
        conditions = "".join(f'  Has{upstream.id}Secret: !Not [!Equals [!Ref {upstream.id}SecretId, ""]]\n' for upstream in own)
        policies = "".join(upstream.policy(self.id) for upstream in self.upstreams)
        listed = ", ".join(f"{upstream.id}Url, {upstream.id}SecretId" for upstream in own)
        group = f'      - Label: {{ default: "The upstreams of {self.resources[0].route}" }}\n        Parameters: [{listed}]\n' if own else ""
        text = insert(text, r"(?=      - Label: \{ default: Limits \}\n)", group)
        text = insert(text, r"(?=\nRules:\n)", parameters)
        text = insert(text, r"(?=\nMappings:\n)", conditions)
        text = insert(text, r"(?=  # The resources that every function has\.\n)", policies)
        if "  Fn::ForEach::Upstreams:\n" not in text:
            namespace = tomllib.loads(read(".cargo/config.toml"))["env"]["METRICS_NAMESPACE"]
            loop = part("upstreams", NAMESPACE=namespace)
            text = insert(text, r"  Fn::ForEach::Functions:\n(?:    .*\n|\n(?=    ))*\n", loop, after=True)
        return append(text, r"  Fn::ForEach::Upstreams:\n    - Name\n    - ", self.name)

    def openapi(self) -> str:
        name = self.id.capitalize()
        paths = self.table.openapi(name, self.resources) if self.table else "".join(self.openapi_item(resource) for resource in self.resources)
        text = with_components(read("openapi.yaml"), paths, self.table.prefix if self.table else "TABLE")
        return insert(text, r"(?=\ncomponents:\n)", paths)

    def openapi_item(self, resource: Resource) -> str:
        schema = "{ type: object, required: [message], properties: { message: { type: string } }, additionalProperties: false }"
        several = f"{{ type: array, items: {schema}, minItems: {len(self.upstreams)}, maxItems: {len(self.upstreams)} }}"
        name = self.id.capitalize() + resource.suffix
        item = f"\n  {resource.route.replace('+}', '}')}:\n    summary: Say here what it is for.\n"
        if resource.parameters:
            item += "    parameters:\n" + "".join(
                f'      - {{ name: {parameter}, in: path, required: true, example: a-{parameter}, schema: {{ $ref: "#/components/schemas/PathSegment" }} }}\n'
                for parameter in resource.parameters
            )
        not_found = '"404": { $ref: "#/components/responses/NotFound" }'
        for method in resource.methods:
            status = METHODS[method][2]
            anchor = f" &get{name}" if method == "GET" else ""
            item += f"    {method.lower()}:{anchor}\n      operationId: {method.lower()}{name}\n"
            if method in WITH_BODY:
                item += f"      requestBody:\n        required: true\n        content: {{ application/json: {{ schema: {schema} }} }}\n"
            if self.upstreams and resource.parameters:
                item += "      # A parameter such as `..`, which would lead out of an upstream's path.\n      x-refuses: [400]\n"
            shared = "[*every, *body]" if method in WITH_BODY else "*every"
            item += f'      responses:\n        <<: {shared}\n        "{status}":\n          description: Say here what it is.\n          headers: *unstored\n'
            if status != 204:
                media = "text/plain: { schema: { type: string } }" if self.stream and not self.upstreams else (
                    f"application/json: {{ schema: {several if len(self.upstreams) > 1 else schema} }}"
                )
                item += f"          content: {{ {media} }}\n"
            if resource.parameters:
                item += f"        {not_found}\n"
            if self.upstreams:
                item += '        "502": { $ref: "#/components/responses/BadGateway" }\n'
                item += '        "503": { $ref: "#/components/responses/Unavailable" }\n'
            if method == "GET":
                item += head_of(f"get{name}")
        options = f"{{ <<: *options, {not_found} }}" if resource.parameters else "*options"
        return item + f"    options: {{ operationId: options{name}, responses: {options} }}\n"


def struct(name: str, of: str, derives: str, strict: str = "") -> str:
    return f"\n/// The JSON body of {of}.\n#[derive({derives})]\n{strict}struct {name} {{\n    message: String,\n}}\n"


def components(prefix: str) -> dict[tuple[str, str], str]:
    """The parts of a contract that `make new` can write, by group and name."""
    groups = re.findall(r"^([\w-]+):\n((?: .*\n)+)", read("testbed/new/components.yaml").replace("TABLE", prefix), re.MULTILINE)
    entry = r"^    ([\w.-]+):.*\n(?:     .*\n)*"
    return {(group, found[1]): found[0] for group, text in groups for found in re.finditer(entry, text, re.MULTILINE)}


# The group of parts that others have by YAML's merge key, and where it begins in a contract.
SHARED = "x-shared"
SHARED_HEAD = f"{SHARED}: # What others have by YAML's merge key, `<<`, or as a whole. /docs/openapi.json has it in their places.\n"


def used(text: str) -> list[tuple[str, str]]:
    """The group and the name of each component, and of each shared part, that `text` refers to."""
    named = re.findall(r"#/components/(\w+)/([\w.-]+)", text)
    return named + [(SHARED, name) for name in re.findall(r"(?<=[ \[])\*(\w+)", text)]


def with_components(openapi: str, paths: str, prefix: str) -> str:
    """`openapi` with what `paths` refers to, and it lacks."""
    known, needed, found = components(prefix), [], [paths]
    there = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)*)", openapi[openapi.index("\ncomponents:\n"):], re.MULTILINE))
    shared = re.search(rf"^{SHARED}:.*\n(?:  .*\n)*", openapi, re.MULTILINE)
    there[SHARED] = re.sub("(?m)^  ", "    ", shared[0]) if shared else ""
    for text in found:
        for group, name in used(text):
            is_there = re.search(rf"^    {re.escape(name)}:", there.get(group, ""), re.MULTILINE)
            if (group, name) in known and (group, name) not in needed and not is_there:
                needed.append((group, name))
                found.append(known[group, name])
    for group in dict.fromkeys(group for group, _ in known):
        missing = "".join(text for key, text in known.items() if key in needed and key[0] == group)
        if missing and group == SHARED:
            missing = re.sub("(?m)^  ", "", missing)
            if shared:
                openapi = insert(openapi, re.escape(shared[0]), missing, after=True)
            else:
                openapi = insert(openapi, r"(?<=\n)(?=paths:\n)", f"{SHARED_HEAD}{missing}\n")
        elif missing and group not in there:
            openapi = insert(openapi, r"(?<=\ncomponents:\n)", f"  {group}:\n{missing}\n")
        elif missing:
            openapi = insert(openapi, rf"(?<=\n  {group}:\n)", missing)
    return openapi


def local(route: str) -> str:
    """The route as the local router writes it: API Gateway's `{name+}` is its `{*name}`."""
    return re.sub(r"\{(\w+)\+\}", r"{*\1}", route)


def pretty(value: object, indent: str = "") -> str:
    """The value as JSON, in which what fits stands in one line."""
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    first, last, space = "{} " if isinstance(value, dict) else ("[", "]", "")
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    values = list(value.values() if isinstance(value, dict) else value)

    def items(inner: str) -> list[str]:
        return [name + pretty(item, inner) for name, item in zip(names, values, strict=True)]

    line = f"{first}{space}{', '.join(items(''))}{space}{last}"
    if len(indent) + len(line) <= WIDTH and "\n" not in line:
        return line
    return first + ",".join(f"\n{indent}  {item}" for item in items(indent + "  ")) + f"\n{indent}{last}"


def is_pretty(text: str) -> bool:
    try:
        return text == pretty(json.loads(text)) + "\n"
    except ValueError:
        return False


def read(file: str) -> str:
    return (ROOT / file).read_text()


def router() -> dict[str, str]:
    """The function of each route."""
    return tomllib.loads(read(ROUTES))["watch"]["router"]


def insert(text: str, place: str, what: str, after: bool = False) -> str:
    """Returns `text` with `what` inserted at the only match of `place`."""
    found = list(re.finditer(place, text))
    if len(found) != 1:
        raise Refused(f"{place!r} does not match exactly one place for {what.strip()!r}: add it by hand.")
    at = found[0].end() if after else found[0].start()
    return text[:at] + what + text[at:]


def append(text: str, place: str, item: str) -> str:
    """Returns `text` with `item` at the end of the list after `place`."""
    is_empty = re.search(rf"{place}\[\]", text)
    return insert(text, rf"{place}\[[^\]]*(?=\])", item if is_empty else f", {item}", after=True)


def write_all(files: dict[str, str], folder: Path = ROOT) -> None:
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)


def write(endpoint: Endpoint) -> None:
    """Writes all of its files, or none."""
    files = endpoint.files()
    before = {file: (ROOT / file).read_text() for file in [*files, "Cargo.lock"] if (ROOT / file).exists()}
    try:
        write_all(files)
        command = ["cargo", "fmt", "--package", f"{endpoint.name}-function"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    except BaseException as error:
        for folder in ("functions", "events"):
            shutil.rmtree(ROOT / folder / endpoint.name, ignore_errors=True)
        write_all(before)
        raise Refused(f"The endpoint cannot be written: {error!r}.") from error


def main(*wanted: str) -> None:
    endpoint = Endpoint(*wanted)
    endpoint.check()
    write(endpoint)
    print(f"""
functions/{endpoint.name}/src/main.rs   its code; events/{endpoint.name} has its test cases, which are replayed from all triggers
openapi.yaml                   its requests and answers, at {endpoint.routes().replace("`", "")}
template.yaml                  its memory, time-out and permissions, at {endpoint.id}Function; then `make budget`
{RESTART}""")


def run(main: Callable[..., None]) -> None:
    """Runs `main` with the arguments."""
    try:
        main(*sys.argv[1:])
    except Refused as refused:
        sys.exit(f"{refused}\nNothing was changed.")


if __name__ == "__main__":
    run(main)

"""`make new`: writes the boilerplate of a new endpoint: crate, route, template, contract, first payloads.

    new.py NAME [ROUTE] [METHODS]

It inserts text, so that existing files keep their comments and their order. Before it writes anything, it checks its
arguments and finds every place to insert.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# For each method: the name of the Rust function, and the status of its answer.
METHODS = {
    "GET": ("read", "OK", 200),
    "POST": ("create", "CREATED", 201),
    "PUT": ("replace", "OK", 200),
    "PATCH": ("change", "OK", 200),
    "DELETE": ("remove", "NO_CONTENT", 204),
}
WITH_BODY = ("POST", "PUT", "PATCH")

# Folders that cargo keeps where it puts the binaries, so no binary can have such a name.
CARGOS = ("build", "deps", "examples", "incremental", "test")


class Refused(Exception):
    """The endpoint cannot be written. The message says why."""


class Endpoint:
    def __init__(self, name: str, route: str, methods: str) -> None:
        self.name, self.route = name, route or f"/{name}"
        self.methods = [method.strip().upper() for method in (methods or "GET").split(",")]
        self.id = name.replace("-", "")
        # `{name+}` takes the rest of the path.
        self.parameters = re.findall(r"\{(.*?)\+?\}", self.route)

    def check(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name) or len(self.name) > 32:
            raise Refused(
                f"NAME={self.name}: a name has lower-case letters and digits, with single hyphens between them, begins "
                "with a letter, and has at most 32 characters; as in `make new NAME=shop-orders`."
            )
        if self.name in CARGOS:
            raise Refused(f"NAME={self.name}: cargo keeps a folder of its own under that name; choose another one.")
        name = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"
        segment = rf"[A-Za-z0-9._~-]+|\{{{name}\}}"
        is_route = re.fullmatch(rf"(/({segment}))*/({segment}|\{{{name}\+\}})", self.route)
        if not is_route or {".", ".."} & set(self.route.split("/")):
            raise Refused(
                f"ROUTE={self.route}: a route has segments of letters, digits and -._~, or {{parameters}} of lower-case "
                "letters and digits, with single underscores between them, of which the last may be {name+}; "
                "as in ROUTE='/shops/{shop}/orders'."
            )
        if len(set(self.parameters)) != len(self.parameters):
            raise Refused(f"ROUTE={self.route}: two parameters have the same name.")
        if unknown := [method for method in self.methods if method not in METHODS]:
            raise Refused(f"METHODS={','.join(unknown)}: an endpoint can have {', '.join(METHODS)}.")
        if len(set(self.methods)) != len(self.methods):
            raise Refused(f"METHODS={','.join(self.methods)}: a method appears twice.")
        for there in (f"functions/{self.name}", f"events/{self.name}", f"{self.name}/Cargo.toml"):
            if (ROOT / there).exists():
                raise Refused(f"NAME={self.name}: {there} already exists.")
        if re.search(rf"^  {self.id}Function:$", read("template.yaml"), re.MULTILINE):
            raise Refused(f"NAME={self.name}: template.yaml has a {self.id}Function already.")
        if re.search(rf"^      operationId: [a-z]+{self.id.capitalize()}$", read("openapi.yaml"), re.MULTILINE):
            raise Refused(f"NAME={self.name}: openapi.yaml has operations of {self.id.capitalize()} already.")
        router = tomllib.loads(read("Cargo.toml"))["workspace"]["metadata"]["lambda"]["watch"]["router"]
        for route in router:
            if re.sub(r"\{.*?\}", "{}", route) == re.sub(r"\{.*?\}", "{}", self.route):
                raise Refused(f"ROUTE={self.route}: {router[route]} is already served there.")

    def files(self) -> dict[str, str]:
        """The content of each new or changed file."""
        return {
            "Cargo.toml": self.cargo_toml(),
            "template.yaml": self.template(),
            "openapi.yaml": self.openapi(),
            f"functions/{self.name}/Cargo.toml": self.manifest(),
            f"functions/{self.name}/src/main.rs": self.main(),
            **{f"events/{self.name}/{case}": json.dumps(content, indent=2) + "\n" for case, content in self.events()},
        }

    def cargo_toml(self) -> str:
        return read("Cargo.toml").rstrip("\n") + f'\n"{local(self.route)}" = "{self.name}"\n'

    def manifest(self) -> str:
        manifest = read("functions/hello/Cargo.toml")
        manifest = re.sub(r"(?m)^\[package\.metadata.*\n(?:.+\n)*\n", "", manifest).replace('"hello', f'"{self.name}')
        return re.sub(r"description = .*", f'description = "`{self.route}`"', manifest)

    def main(self) -> str:
        has_body = any(method in WITH_BODY for method in self.methods)
        answers = self.methods != ["DELETE"]
        used = ["Problem", "Request", "Resource", "Response"] + ["body"] * has_body
        used += [method.lower() for method in self.methods[:1]] + ["http::StatusCode"] + ["json"] * answers
        used += ["path"] * bool(self.parameters)
        first, *others = [f"{method.lower()}({METHODS[method][0]})" for method in self.methods]
        at = f'.at("{self.route}")' if self.parameters else ""
        derives = ["Deserialize"] * has_body + ["Serialize"] * answers
        strict = "#[serde(deny_unknown_fields)]\n" if has_body else ""
        message = f"""
/// The JSON body of {"a request and " if has_body else ""}an answer.
#[derive({", ".join(derives)})]
{strict}struct Message {{
    message: String,
}}
"""
        serde = f"use serde::{{{', '.join(derives)}}};\n" if len(derives) > 1 else "".join(
            f"use serde::{name};\n" for name in derives
        )
        return f"""//! `{self.route}`: say here what it is for.

use std::process::ExitCode;

use handler::{{{", ".join(sorted(used, key=order))}}};
{serde}
fn main() -> ExitCode {{
    handler::run(endpoint())
}}

fn endpoint() -> Resource {{
    {first}{"".join("." + other for other in others)}{at}
}}
{message if derives else ""}{"".join(self.operation(method) for method in self.methods)}
#[cfg(test)]
mod tests {{
    #[tokio::test]
    async fn answers_its_events() {{
        testbed::replay("{self.name}", super::endpoint()).await;
    }}
}}
"""

    def operation(self, method: str) -> str:
        function, status, _ = METHODS[method]
        if method in WITH_BODY:
            checks = "".join(f'    path(&request, "{name}")?;\n' for name in self.parameters)
            body = f"{checks}    let message: Message = body(&request, 16 * 1024)?;\n"
            body += f"    json(StatusCode::{status}, &message)\n"
        elif method == "DELETE":
            checks = "".join(f'    path(&request, "{name}")?;\n' for name in self.parameters)
            body = f"{checks}    let mut response = Response::default();\n"
            body += f"    *response.status_mut() = StatusCode::{status};\n    Ok(response)\n"
        elif self.parameters:
            # No variables, because a parameter can have the name of a keyword or of a function.
            values = [f'path(&request, "{name}")?' for name in self.parameters]
            told = f'[{", ".join(values)}].join(" ")' if len(values) > 1 else f"{values[0]}.into()"
            body = f"    let message = {told};\n    json(StatusCode::{status}, &Message {{ message }})\n"
        else:
            body = f'    json(StatusCode::{status}, &Message {{ message: "{self.name}".into() }})\n'
        request = "request" if "&request" in body else "_request"
        return f"\nasync fn {function}({request}: Request) -> Result<Response, Problem> {{\n{body}}}\n"

    def events(self) -> list[tuple[str, object]]:
        plain = json.loads(read("events/hello/plain.http-api.json"))
        path = re.sub(r"\{(.*?)\+?\}", r"a-\1", self.route)
        files = []
        for number, method in enumerate(self.methods):
            event = json.loads(json.dumps(plain))
            event["routeKey"] = event["requestContext"]["routeKey"] = f"ANY {self.route}"
            event["rawPath"] = event["requestContext"]["http"]["path"] = path
            event["requestContext"]["http"]["method"] = method
            if self.parameters:
                event["pathParameters"] = {name: f"a-{name}" for name in self.parameters}
            sent = {"message": "hello"}
            told = {"message": " ".join(f"a-{name}" for name in self.parameters) or self.name}
            if method in WITH_BODY:
                event["headers"]["content-type"] = "application/json"
                event["body"] = json.dumps(sent)
            answer = {
                "status": METHODS[method][2],
                "headers": {
                    "content-type": None if method == "DELETE" else "application/json",
                    "cache-control": "no-store",
                    "x-content-type-options": "nosniff",
                    "x-request-id": "{request_id}",
                },
                "body": "" if method == "DELETE" else sent if method in WITH_BODY else told,
            }
            case = "plain" if number == 0 else method.lower()
            files += [(f"{case}.http-api.json", event), (f"{case}.answer.json", answer)]
        return files

    def template(self) -> str:
        text = read("template.yaml")
        block = f"""  {self.id}Function:
    Type: AWS::Serverless::Function
    Metadata: {{ BuildMethod: rust-cargolambda }}
    Properties:
      FunctionName: !Sub ${{AWS::StackName}}-{self.name}
      CodeUri: functions/{self.name}
      Role: !GetAtt {self.id}Role.Arn
      VersionDescription: !Ref LogLevel
      LoggingConfig: {{ LogGroup: !Ref {self.id}Logs }}
      DeploymentPreference:
        Alarms: !If [IsProd, [!Ref {self.id}Errors], [!Ref AWS::NoValue]]
      Events:
        Any: {{ Type: HttpApi, Properties: {{ ApiId: !Ref Api, Path: "{self.route}", Method: ANY }} }}
        Options: {{ Type: HttpApi, Properties: {{ ApiId: !Ref Api, Path: "{self.route}", Method: OPTIONS }} }}

"""
        text = insert(text, r"(?=  # The resources that every function has\.\n)", block)
        secured = "{ x-amazon-apigateway-any-method: { security: !If [HasJwt, [{ jwt: [] }], !Ref AWS::NoValue] } }"
        text = insert(text, r"(?=      FailOnWarnings: true\n)", f'          "{self.route}": {secured}\n')
        for loop in ("Functions", "Urls"):
            text = insert(text, rf"(?<=  Fn::ForEach::{loop}:\n    - Name\n    - \[)[^\]]*(?=\])", f", {self.name}", after=True)
        text = insert(text, r"(?=        - !If \[HasManagedInstances, !Ref fetchoninstancesLogs,)", f"        - !Ref {self.id}Logs\n")
        text = insert(text, r"(?<=\\\")(?=\)\n\n  WhichRequestsFailedQuery:)", f'\n            OR \\"${{AWS::StackName}}-{self.name}\\"')
        if self.route != f"/{self.name}":
            text = insert(text, r"(?<=\nMappings:\n)(  #.*\n)*  Functions:\n", f"    {self.name}:\n      Path: {json.dumps(self.route)}\n", after=True)
        allowed = [method for method in self.methods if method not in listed(text, "AllowMethods")]
        text = insert(text, r"(?<=AllowMethods: \[)[^\]]*(?=\])", "".join(f", {method}" for method in allowed), after=True)
        if any(method in WITH_BODY for method in self.methods) and "content-type" not in listed(text, "AllowHeaders"):
            text = insert(text, r"(?<=AllowHeaders: \[)[^\]]*(?=\])", ", content-type", after=True)
        return text

    def openapi(self) -> str:
        schema = "{ type: object, required: [message], properties: { message: { type: string } }, additionalProperties: false }"
        response = 'headers: { x-request-id: { $ref: "#/components/headers/x-request-id" } }'
        item = f"  {self.route.replace('+}', '}')}:\n    summary: Say here what it is for.\n"
        if self.parameters:
            item += "    parameters:\n" + "".join(
                f"      - name: {name}\n        in: path\n        required: true\n"
                "        schema: { type: string, minLength: 1, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f\\ufffd]+$' }\n"
                for name in self.parameters
            )
        operations = [method for method in self.methods] + ["HEAD"] * ("GET" in self.methods)
        for method in operations:
            _, _, status = METHODS["GET" if method == "HEAD" else method]
            item += f"    {method.lower()}:\n      operationId: {method.lower()}{self.id.capitalize()}\n"
            if method in WITH_BODY:
                item += f"      requestBody:\n        required: true\n        content:\n          application/json:\n            schema: {schema}\n"
            item += f'      responses:\n        "{status}":\n          description: Say here what it is.\n          {response}\n'
            if status != 204:
                item += f"          content:\n            application/json:\n              schema: {schema}\n"
            item += '        "400": { $ref: "#/components/responses/BadRequest" }\n'
            if self.parameters:
                item += '        "404": { $ref: "#/components/responses/NotFound" }\n'
            if method in WITH_BODY:
                item += '        "413": { $ref: "#/components/responses/ContentTooLarge" }\n'
                item += '        "415": { $ref: "#/components/responses/UnsupportedMediaType" }\n'
                item += '        "422": { $ref: "#/components/responses/UnprocessableContent" }\n'
            item += '        "500": { $ref: "#/components/responses/InternalError" }\n'
            item += '        "504": { $ref: "#/components/responses/GatewayTimeout" }\n'
        item += f"    options:\n      operationId: options{self.id.capitalize()}\n      responses:\n"
        item += '        "204": { $ref: "#/components/responses/Methods" }\n'
        item += '        "400": { $ref: "#/components/responses/BadRequest" }\n'
        if self.parameters:
            item += '        "404": { $ref: "#/components/responses/NotFound" }\n'
        return insert(read("openapi.yaml"), r"(?=\ncomponents:\n)", "\n" + item)


def order(name: str) -> tuple:
    """The order in which rustfmt sorts imports."""
    return (name[0].islower(), name)


def local(route: str) -> str:
    """The route as the local router writes it: API Gateway's `{name+}` is its `{*name}`."""
    return re.sub(r"\{(\w+)\+\}", r"{*\1}", route)


def read(file: str) -> str:
    return (ROOT / file).read_text()


def listed(text: str, name: str) -> list[str]:
    return re.search(rf"{name}: \[([^\]]*)\]", text)[1].split(", ")


def insert(text: str, place: str, what: str, after: bool = False) -> str:
    """Returns `text` with `what` inserted at the only match of `place`."""
    found = list(re.finditer(place, text))
    if len(found) != 1:
        raise Refused(f"{place!r} does not match exactly one place for {what.strip()!r}: add it by hand.")
    at = found[0].end() if after else found[0].start()
    return text[:at] + what + text[at:]


def write(endpoint: Endpoint) -> None:
    """Writes all of its files, or none."""
    files = endpoint.files()
    before = {file: (ROOT / file).read_text() for file in [*files, "Cargo.lock"] if (ROOT / file).exists()}
    try:
        for file, content in files.items():
            (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / file).write_text(content)
        command = ["cargo", "fmt", "--package", f"{endpoint.name}-function"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    except BaseException as error:
        for folder in ("functions", "events"):
            shutil.rmtree(ROOT / folder / endpoint.name, ignore_errors=True)
        for file, content in before.items():
            (ROOT / file).write_text(content)
        raise Refused(f"The endpoint cannot be written: {error!r}.") from error


def main(name: str, route: str = "", methods: str = "") -> None:
    endpoint = Endpoint(name, route, methods)
    endpoint.check()
    write(endpoint)
    print(f"""
functions/{name}/src/main.rs   its code; events/{name} has its test cases, which are replayed from all triggers
openapi.yaml                   its requests and answers, at {endpoint.route}
template.yaml                  its memory, time-out and permissions, at {endpoint.id}Function; then `make budget`""")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Refused as refused:
        sys.exit(f"{refused}\nNothing was changed.")

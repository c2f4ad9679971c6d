"""What `make new … TABLE=parcels` adds to an endpoint: a table, and the code, cases and contract of a caller's own items in it.

new.py inserts it. The texts are in testbed/new, for all methods; what the endpoint does not have is left out.
"""

import re
from pathlib import Path

from emulator import tables

FOLDER = Path(__file__).resolve().parent / "new"

# For each path: the methods that it can have, and for each the function of main.rs and the actions on the table.
LIST = {
    "GET": ("list", ["Query"]),
    # An Idempotency-Key is taken, completed or freed.
    "POST": ("create", ["DeleteItem", "PutItem", "UpdateItem"]),
}
ITEM = {
    "GET": ("show", ["GetItem"]),
    "PUT": ("replace", ["GetItem", "PutItem"]),
    "PATCH": ("change", ["GetItem", "PutItem"]),
    "DELETE": ("remove", ["DeleteItem", "GetItem"]),
}
# The types of main.rs that only these functions need.
TYPES = {"NewMessage": {"create", "replace"}, "Change": {"change"}}

ID = "019a8b3c4d5e6f708192a3b4c5d6"
JSON = {"content-type": "application/json"}


# What a main.rs imports, if it uses it, in the order of rustfmt.
NAMES = {
    "data": ["Item", "Table", "idempotent"],
    "handler": ["Problem", "Request", "Resource", "Response", "Routes", "Text", "body", "claim", "delete", "get", "http::StatusCode", "json"]
    + ["patch", "path", "post", "put", "routes", "stream"],
    "serde": ["Deserialize", "Serialize"],
    "tokio": ["try_join"],
    "upstream": ["Upstream"],
}


class Table:
    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = "".join(word.capitalize() for word in name.split("-"))
        self.id = f"{self.prefix}Table"
        self.variable = f"{name.replace('-', '_').upper()}_TABLE"

    def split(self, route: str, methods: str, item: str, item_methods: str) -> tuple[str, str, str]:
        """The methods of the list, the items' path and their methods. Without `item_methods`, `methods` are those of both: POST
        is the list's, GET is both's, and the others are the items'."""
        item = item or f"{route}/{{id}}"
        if item_methods:
            return methods, item, item_methods
        given = [method.strip().upper() for method in (methods or "GET,POST,PATCH,DELETE").split(",")]
        own = [method for method in given if method in ITEM]
        listed = [method for method in given if method not in own or method == "GET"]
        # A space: without any, it would be GET.
        return ",".join(listed) or " ", item, ",".join(own) or " "

    def refused(self, resources: list, template: str) -> str | None:
        """Why there can be no such endpoint. `resources` are the list and its items."""
        listed, item = resources
        if self.id in tables(template) or re.search(rf"^  {self.id}:$", template, re.MULTILINE):
            return f"template.yaml has a {self.id} already. docs/endpoints.md says how another endpoint uses it."
        if listed.parameters or not re.fullmatch(rf"{re.escape(listed.route)}/\{{\w+\}}", item.route):
            return f"its items are a caller's, at a path as ROUTE=/parcels and ITEM='/parcels/{{id}}', not {listed.route} and {item.route}."
        for resource, known in ((listed, LIST), (item, ITEM)):
            if resource.methods == [""] or not set(resource.methods) <= known.keys():
                return f"{resource.route} can have {', '.join(known)}, and has {', '.join(filter(None, resource.methods)) or 'none'}."
        return None

    def actions(self, resources: list) -> list[str]:
        used = {action for of, known in zip(resources, (LIST, ITEM), strict=True) for method in of.methods for action in known[method][1]}
        return [f"dynamodb:{action}" for action in sorted(used)]

    def main(self, name: str, routes: str, resources: list) -> str:
        listed, item = resources
        known = list(zip(resources, (LIST, ITEM), strict=True))
        chains = [".".join(f"{method.lower()}({functions[method][0]})" for method in of.methods) for of, functions in known]
        chains[0] = chains[0].replace("(create)", "(idempotent(&MESSAGES, create))")
        text = filled(
            "table.rs",
            ROUTES=routes,
            VARIABLE=self.variable,
            RESOURCES=", ".join(f'{chain}.at("{resource.route}")' for chain, resource in zip(chains, resources, strict=True)),
            PARAMETER=item.parameters[0],
            NAME=name,
            TABLE=self.prefix,
        )
        left_out = {functions[method][0] for of, functions in known for method in functions.keys() - {*of.methods}}
        left_out |= {name for name, users in TYPES.items() if users <= left_out}
        blocks = [block for block in text.split("\n\n") if not re.search(rf"\b(async fn|struct) ({'|'.join(left_out) or '!'})\b", block)]
        code = re.sub(rf".*::<({'|'.join(left_out)})>.*\n", "", "\n\n".join(blocks))
        return code.replace("USES\n", uses(code))

    def policy(self, endpoint: str, resources: list) -> str:
        actions = ", ".join(self.actions(resources))
        return part("policy", ENDPOINT=endpoint, POLICY="Table", CONDITION="", KIND="table", ACTIONS=actions, RESOURCE=f"!GetAtt {self.id}.Arn")

    def settings(self, endpoint: str) -> tuple[str, str]:
        """The lines of the function's block that are for its table."""
        return (
            f"    DependsOn: {endpoint}TablePolicy\n    Metadata: {{ BuildMethod: rust-cargolambda }}\n",
            f"""      # TLS is limited by the CPU, and more memory brings more CPU.
      MemorySize: 256
      VersionDescription: !Ref LogLevel
      Environment: {{ Variables: {{ {self.variable}: !Ref {self.id} }} }}
""",
        )

    def openapi(self, endpoint: str, resources: list) -> str:
        """The paths."""
        listed, item = resources
        paths = filled("paths.yaml", ENDPOINT=endpoint, TABLE=self.prefix, ROUTE=listed.route, ITEM=item.route, PARAMETER=item.parameters[0])
        kept = []
        for path, resource in zip(paths.split("\n\n"), resources, strict=True):
            head, *operations = re.split(r"^(?=    [a-z]+: (?:&\w+\n|\{)|    [a-z]+:\n      operationId: )", path.rstrip("\n") + "\n", flags=re.MULTILINE)
            kept.append("\n" + head)
            for operation in operations:
                method = operation.split(":")[0].strip()
                if method == "options" or method.upper() in resource.methods:
                    kept.append(operation)
                if method == "get" and "GET" in resource.methods:
                    kept.append(head_of(re.search(r"operationId: (\w+)", operation)[1]))
        return "".join(kept)

    def events(self, resources: list) -> list[tuple[str, dict]]:
        """The cases: a file for each path, with items of the table in the emulated AWS."""
        listed, item = resources
        message, sent = {"id": ID, "message": "hello"}, {"message": "hello"}
        before = {"items": {self.id: [{"pk": "ada", "sk": f"message#{ID}", "version": 3, **message}]}}

        def after(*items: dict) -> dict:
            return {"items_after": {self.id: list(items)}}

        created = answer(201, tag(1), body_pattern='^\\{"id":"[0-9a-f]{28}","message":"hello"\\}$')
        there, new = {"version": 3}, {"pk": "ada", "version": 1, **sent}
        key = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
        fault = {"detail": "must be a string of 1 to 1000 characters", "pointer": "#/message"}
        create = request(method="POST", body=sent) | created | after(there, new)
        create["cases"] = {
            "with-key": request(headers=key) | created | after(there, new, {"sk": "idempotency"}),
            "faults": request(body={"message": ""}) | problem(422, "unprocessable-content", errors=[fault]),
        }
        of_list = {"GET": answer(200, JSON | {"cache-control": "no-store"}, body=[message]), "POST": create}

        def write(method: str) -> dict:
            body = {} if method == "DELETE" else {"body": {"message": "later"}}
            done = answer(200, tag(4), body=message | {"message": "later"}) | after({"pk": "ada", "message": "later", "version": 4})
            if method == "DELETE":
                done = answer(204) | after()
            return request(method=method, headers={"if-match": '"3"'}, **body) | done | {"cases": {
                "other-version": request(headers={"if-match": '"2"'}) | problem(412, "precondition-failed"),
                "without-version": request(headers={}) | problem(428, "precondition-required"),
            }}

        not_modified = request(headers={"if-none-match": '"3"'}) | answer(304, {"etag": '"3"', "content-type": None})
        of_item = {
            "GET": answer(200, tag(3), body=message) | {"cases": {"not-modified": not_modified}},
            **{method: write(method) for method in ("PUT", "PATCH", "DELETE")},
        }
        unauthorized = problem(401, "unauthorized", detail="This needs a token.")
        unauthorized["answer"] = {"status": 401, "headers": {"www-authenticate": "Bearer"}} | unauthorized["answer"]
        of_another = request(claims={"sub": "bob"}) | problem(404, "not-found")
        paths = [
            ("plain", listed, listed.route, of_list, {"without-token": request(claims={}) | unauthorized}),
            ("item", item, f"{item.route.rpartition('/')[0]}/{ID}", of_item, {"of-another": of_another}),
        ]
        files = []
        for name, resource, path, made, refused in paths:
            cases = {method.lower(): made[method] for method in resource.methods}
            shared = {"path": path, "claims": {"sub": "ada"}}
            # The others have what it sends: only GET sends nothing, and each list has a plain case.
            first = cases.pop("get", None) or (cases.pop("post") if name == "plain" else None)
            if first is None:
                next(iter(cases.values()))["cases"] |= refused
                content = before | {"request": shared, "cases": cases}
            else:
                shared |= first.pop("request", {})
                content = before | {"request": shared} | first | {"cases": first.get("cases", {}) | refused | cases}
            files.append((f"{name}.json", content))
        return files


def request(**members: object) -> dict:
    return {"request": members}


def answer(status: int, headers: dict | None = None, **body: object) -> dict:
    return {"answer": {"status": status, "headers": headers or {"content-type": None, "cache-control": "no-store"}, **body}}


def tag(version: int) -> dict:
    return JSON | {"cache-control": "private, no-cache", "etag": f'"{version}"'}


def problem(status: int, name: str, **members: object) -> dict:
    return {"answer": {"status": status, "problem": {"type": name, **members}}}


def head_of(get: str) -> str:
    """The operation HEAD beside this one."""
    return f"    head: {{ <<: *{get}, operationId: head{get.removeprefix('get')} }}\n"


def filled(file: str, **values: str) -> str:
    """A text of `FOLDER` with its words in capitals replaced."""
    return re.sub("|".join(values) or "$.", lambda found: values[found[0]], (FOLDER / file).read_text())


def part(name: str, **values: str) -> str:
    """A part of template.yaml, with its words in capitals replaced."""
    return re.search(rf"(?m)^{name}:\n((?:  .*\n|\n)+)", filled("template.yaml", **values))[1]


def uses(code: str) -> str:
    """The lines that import what `code` uses."""
    code, lines = re.sub(r'"[^"]*"|//.*', "", code), ""
    for crate, names in NAMES.items():
        used = [name for name in names if re.search(rf"(?<![.\w]){name.removeprefix('http::')}\b", code)]
        listed = ", ".join(used)
        lines += f"use {crate}::{listed if len(used) == 1 else '{' + listed + '}'};\n" * bool(used)
    return lines

"""`make standalone`: writes a template for `cargo lambda new`: the smallest service on the shared crates, in a workspace of its own.

Its endpoint and its case are those of `make new`; its versions, profile and settings are this workspace's.
"""

import json
import re
import shutil
import tomllib

from new import ROOT, Endpoint, read, write_all

FOLDER = ROOT / "target/standalone"
NAME = "service"
# In the global settings of template.yaml.
SETTINGS = ("Runtime", "Handler", "MemorySize", "Timeout", "Tracing")


def files() -> dict[str, str]:
    """The content of each file."""
    endpoint = Endpoint(NAME)
    return {
        "CargoLambda.toml": CONFIGURATION, ".gitignore": "/target\n", "Cargo.toml": manifest(endpoint), "Makefile": MAKEFILE, "README.md": README,
        "rustfmt.toml": read("rustfmt.toml"), "template.yaml": template(endpoint), "src/main.rs": endpoint.main().replace("testbed::", "replay::"), **endpoint.cases(),
    }


CONFIGURATION = """[template]
disable_default_prompts = true
render_files = ["Cargo.toml", "README.md", "template.yaml"]
ignore_files = ["CargoLambda.toml"]

[template.prompts.repository]
message = "Which git repository has the crates lambda-endpoint-…?"
default = "https://git.example.com/template"
"""

MAKEFILE = """run: ## serve it on http://localhost:9000
	cargo lambda watch

test: ## replay events/
	cargo test

build: ## the zip, in target/lambda
	cargo lambda build --release --output-format zip

deploy: ## into your AWS account
	sam build
	sam deploy --guided --capabilities CAPABILITY_IAM
"""

README = f"""# {{{{project_name}}}}

    make run       # serve it: curl localhost:9000/{NAME}
    make test      # replay events/ as each trigger of Lambda sends them
    make build     # the zip
    make deploy    # into your AWS account, with the SAM CLI

`src/main.rs` has the endpoint, `events/{NAME}` a file for each request and the answer that it must get, and `template.yaml` what runs on AWS.
"""


def manifest(endpoint: Endpoint) -> str:
    workspace = tomllib.loads(read("Cargo.toml"))["workspace"]
    package, versions = workspace["package"], workspace["dependencies"]
    ours = {name: f'{versions[name]["package"]} = {{ git = "{{{{repository}}}}", tag = "v{package["version"]}" }}\n' for name in ("handler", "replay")}
    needed = tomllib.loads(endpoint.manifest())["dependencies"]
    others = "".join(f"{name} = {inline(versions[name])}\n" for name in needed if name not in ours)
    profile = re.search(r"(?m)^\[profile\.release\]\n(?:.+\n)+", read("Cargo.toml"))[0]
    profile = re.sub(r"(?m)^#.*\n", "", profile)
    return f"""[package]
name = "{{{{project_name}}}}"
version = "0.1.0"
edition = "{package["edition"]}"
publish = false

[dependencies]
{ours["handler"]}{others}
[dev-dependencies]
{ours["replay"]}tokio = {inline(versions["tokio"] | {"features": ["macros"]})}

{profile}"""


def inline(dependency: str | dict) -> str:
    if isinstance(dependency, str):
        return json.dumps(dependency)
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in dependency.items()) + " }"


def template(endpoint: Endpoint) -> str:
    common = re.search(r"(?m)^Globals:\n  Function:\n((?:    .*\n)+)", read("template.yaml"))[1]
    settings = "".join(f"      {name}: {re.search(rf'(?m)^    {name}: (.*)', common)[1]}\n" for name in SETTINGS)
    route = endpoint.resources[0].route
    return f"""AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Description: {{{{project_name}}}}, an HTTP endpoint on AWS Lambda.

Resources:
  Function:
    Type: AWS::Serverless::Function
    Metadata: {{ BuildMethod: rust-cargolambda }}
    Properties:
      CodeUri: .
{settings}      LoggingConfig: {{ LogFormat: JSON }}
      Events:
        Any: {{ Type: HttpApi, Properties: {{ Path: "{route}", Method: ANY }} }}

Outputs:
  Url:
    Value: !Sub ${{ServerlessHttpApi.ApiEndpoint}}{route}
"""


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_all(files(), FOLDER)
    print(f"cargo lambda new my-service --template {FOLDER.relative_to(ROOT)}")

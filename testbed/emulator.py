"""An emulated AWS with the tables, secrets, queues and buckets of template.yaml that functions/*/Cargo.toml have permissions on.

    emulator.py --needed                      fails if no function needs it, nor a caller's token
    emulator.py --run FOLDER COMMAND...       runs COMMAND, beside it if it is needed: `make run`. Its data is kept in FOLDER
    emulator.py --accounts                    for tests: makes them in each account whose number it reads, and writes a line

What a Condition of template.yaml can leave out is not made. A resource has its logical id for a name, a bucket
in lower case.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REGION = "us-east-1"
STACK = "local"
# The property that holds a resource's name.
NAMES = {"AWS::DynamoDB::Table": "TableName", "AWS::S3::Bucket": "BucketName", "AWS::SecretsManager::Secret": "Name", "AWS::SQS::Queue": "QueueName"}
# The loop over the tables in template.yaml, before the names of those.
TABLES = "  Fn::ForEach::Tables:\n    - Name\n    - "
# What settings.py adds to each function: its variables, and which of its routes need a token.
LOCAL = "LOCAL_ENDPOINTS"


def tables(template: str) -> list[str]:
    """The logical ids of the tables in the loop of template.yaml."""
    found = re.search(re.escape(TABLES) + r"\[(.+)\]\n", template)
    return [f"{name}Table" for name in found[1].split(", ")] if found else []


def declarations() -> dict[str, dict]:
    """What each function declares in its Cargo.toml, under [package.metadata.endpoint], by its name."""
    manifests = {file.parent.name: tomllib.loads(file.read_text()) for file in sorted(ROOT.glob("functions/*/Cargo.toml"))}
    return {name: manifest["package"].get("metadata", {}).get("endpoint", {}) for name, manifest in manifests.items()}


def resources() -> dict[str, set[str]]:
    """The resources that each function needs. This reads text, as `make run` has no parser of YAML before it needs one."""
    template = (ROOT / "template.yaml").read_text()
    blocks = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\s*\n|  *#.*\n)+)", template, re.MULTILINE))
    made = set(tables(template)) | {
        name
        for name, block in blocks.items()
        if re.search(rf"^    Type: ({'|'.join(NAMES)})$", block, re.MULTILINE) and not re.search("^    Condition:", block, re.MULTILINE)
    }
    functions = {name: {it.partition("/")[0] for it in declared.get("permissions", {})} & made for name, declared in declarations().items()}
    return {name: needed for name, needed in functions.items() if needed}


def is_needed() -> bool:
    """Whether a function has resources, or openapi.yaml has an operation that names a security scheme."""
    return bool(resources()) or re.search(r"(?m)^ {6}security: *(\[ *\{ *\w|\n +- *\w)", (ROOT / "openapi.yaml").read_text()) is not None


def parsed(file: str) -> dict:
    """A file of YAML, with CloudFormation's short functions written out."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: Loader, name: str, node: yaml.Node) -> dict:
        if isinstance(node, yaml.ScalarNode):
            value = loader.construct_scalar(node)
            value = value.split(".", 1) if name == "GetAtt" else value
        elif isinstance(node, yaml.SequenceNode):
            value = loader.construct_sequence(node, deep=True)
        else:
            value = loader.construct_mapping(node, deep=True)
        return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}

    Loader.add_multi_constructor("!", function)
    return yaml.load((ROOT / file).read_text(), Loader)


def walk(node: object) -> Iterator[dict]:
    """Yields every map in `node`, including `node` itself."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from walk(child)


def references(node: object) -> set[str]:
    """The logical ids and parameters that `node` refers to, at any depth."""
    found = set()
    for mapping in walk(node):
        found |= {mapping["Ref"]} if "Ref" in mapping else set()
        found |= {mapping["Fn::GetAtt"][0]} if "Fn::GetAtt" in mapping else set()
        found |= set(re.findall(r"\$\{(\w+)", json.dumps(mapping.get("Fn::Sub", ""))))
    return found


def stack(template: dict, needed: set[str]) -> tuple[dict, dict[str, dict[str, str]]]:
    """The part of `template` that makes these resources, and what they refer to. Its outputs are the variables of functions that
    name them; the second value says which variable of which function each is."""
    everything = {name: it for name, it in template["Resources"].items() if isinstance(it, dict)}
    variable, names, repeated = template["Resources"].get("Fn::ForEach::Tables", ["", [], {}])
    everything |= {key.replace(f"&{{{variable}}}", name): it for name in names for key, it in repeated.items()}
    made: dict[str, dict] = {}
    waiting = set(needed)
    while waiting:
        name = waiting.pop()
        made[name] = dict(everything[name])
        if own := NAMES.get(made[name]["Type"]):
            made[name]["Properties"] = {**made[name].get("Properties", {}), own: name.lower() if own == "BucketName" else name}
        waiting |= (references(made[name]) & everything.keys()) - made.keys()
    variables: dict[str, dict[str, str]] = {}
    outputs = {}
    for resource in everything.values():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        function = resource["Properties"]["CodeUri"].removeprefix("functions/")
        for variable, value in resource["Properties"].get("Environment", {}).get("Variables", {}).items():
            named = references(value) & everything.keys()
            if named and named <= made.keys():
                output = f"Variable{len(outputs)}"
                outputs[output] = {"Value": value}
                variables.setdefault(function, {})[variable] = output
    parts = {name: template[name] for name in ("Mappings", "Conditions") if name in template}
    return {**parts, "Parameters": template.get("Parameters", {}), "Resources": made, "Outputs": outputs}, variables


def protected(spec: dict) -> dict[str, list]:
    """For each function, the patterns of its paths that need a token, with the methods that need none."""
    router = tomllib.loads((ROOT / "CargoLambda.toml").read_text())["watch"]["router"]
    found: dict[str, list] = {}
    for route, function in router.items():
        item = spec["paths"].get(route.replace("{*", "{"), {})
        security = {
            method.upper(): operation.get("security", spec.get("security", []))
            for method, operation in item.items()
            if isinstance(operation, dict) and "responses" in operation
        }
        # `{}` in the list allows a request without a token, and so does an empty list.
        is_open = {method for method, ways in security.items() if not ways or {} in ways}
        if security.keys() - is_open:
            pattern = re.sub(r"\\\{\\\*\w+\\\}", ".+", re.escape(route))
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
            found.setdefault(function, []).append([pattern, sorted({"OPTIONS"} | is_open)])
    return found


class Emulator:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def call(self, service: str, account: str, body: bytes, **headers: str) -> bytes:
        """Sends a request. The emulator takes the account from its credentials, and checks no signature."""
        scope = f"{account}/20260101/{REGION}/{service}/aws4_request"
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        with urlopen(Request(self.endpoint, body, headers), timeout=60) as answer:
            return answer.read()

    def cloudformation(self, account: str, action: str, **parameters: str) -> ElementTree.Element:
        body = urlencode({"Action": action, "StackName": STACK, **parameters}).encode()
        text = self.call("cloudformation", account, body).decode()
        return ElementTree.fromstring(re.sub(' xmlns="[^"]+"', "", text, count=1))

    def make(self, account: str, template: dict) -> dict[str, str]:
        """Makes or updates the stack in `account`. Returns its outputs."""
        for action, refusal in (("CreateStack", "AlreadyExists"), ("UpdateStack", "No updates")):
            try:
                self.cloudformation(account, action, TemplateBody=json.dumps(template))
                break
            except HTTPError as error:
                if refusal not in (said := error.read().decode()):
                    sys.exit(f"The local AWS does not take the resources of template.yaml: {said}")
        while (described := self.cloudformation(account, "DescribeStacks")).findtext(".//StackStatus", "").endswith("_IN_PROGRESS"):
            time.sleep(0.05)
        status = described.findtext(".//StackStatus")
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            events = self.cloudformation(account, "DescribeStackEvents").iter("member")
            failed = (event for event in events if event.findtext("ResourceStatus", "").endswith("_FAILED"))
            told = [f"{event.findtext('LogicalResourceId')}: {event.findtext('ResourceStatusReason')}" for event in failed]
            sys.exit("\n".join([f"The local AWS cannot make the resources of template.yaml ({status}).", *told]))
        return {output.findtext("OutputKey", ""): output.findtext("OutputValue", "") for output in described.iter("member")}

    def variables(self, account: str) -> dict[str, dict[str, str]]:
        """Makes the resources in `account`. Returns the variables of each function that needs any."""
        needed = resources()
        template, variables = stack(parsed("template.yaml"), set().union(*needed.values()))
        outputs = self.make(account, template)
        client = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": account,
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": REGION,
            # A busy laptop is slower than AWS.
            "AWS_OPERATION_TIMEOUT_MS": "60000",
        }
        own = {function: {name: outputs[output] for name, output in of.items()} for function, of in variables.items()}
        return {function: {**client, **own.get(function, {})} for function in sorted(needed.keys() | own.keys())}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def emulator(folder: Path, program: str = __file__, /, **settings: str) -> Iterator[Emulator]:
    """Starts ministack by this program, with these settings. It ends with this process, however that ends."""
    if not find_spec("ministack"):
        sys.exit("The local AWS is not installed: `make .venv/local` installs it.")
    folder.mkdir(parents=True, exist_ok=True)
    own = {"GATEWAY_PORT": str(free_port()), "BIND_HOST": "127.0.0.1", "TMPDIR": str(folder), "STATE_DIR": str(folder / "state")}
    settings = own | {"IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"} | settings
    # Many a name in the environment would be a setting of ministack, such as SERVICES, and LOG_LEVEL of the functions.
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ} | settings
    log = folder / "ministack.log"
    with log.open("wb") as output:
        # Its own session: Ctrl-C is for the command, and the emulator ends after it.
        running = subprocess.Popen(
            [sys.executable, program, "--serve"], env=env, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    endpoint = f"http://127.0.0.1:{settings['GATEWAY_PORT']}"
    try:
        while True:
            try:
                urlopen(f"{endpoint}/_ministack/ready", timeout=60).read()
                break
            except (URLError, ConnectionError):
                if running.poll() is not None:
                    sys.exit(f"The local AWS ended:\n{log.read_text()[-2000:]}")
                time.sleep(0.05)
        yield Emulator(endpoint)
    finally:
        # And the functions that it started.
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)
        running.wait()


def serve() -> None:
    """ministack, until the end of the input."""
    from threading import Thread

    from ministack import app

    def end() -> None:
        os.read(0, 1)  # nobody writes
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=end, daemon=True).start()
    del sys.argv[1:]
    app.main()


def end_of(command: list[str], env: Mapping[str, str]) -> int:
    """Runs it until it ends, or until this process is to end: `cargo lambda watch` goes on when its terminal is closed."""
    running, is_over = None, False

    def end(*_: object) -> None:
        nonlocal is_over
        is_over = True
        if running:
            running.terminate()

    signal.signal(signal.SIGINT, lambda *_: None)
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, end)
    running = subprocess.Popen(command, env=env)
    if is_over:
        running.terminate()
    return running.wait()


def run(folder: Path, command: list[str]) -> int:
    local: dict[str, dict] = {function: {"protected": routes} for function, routes in protected(parsed("openapi.yaml")).items()}
    if local:
        print('\nA caller has a token: curl -H "authorization: Bearer $(make token SUB=ada)" …', flush=True)

    with ExitStack() as beside:
        if needed := resources():
            aws = beside.enter_context(emulator(folder, PERSIST_STATE="1"))
            for function, variables in aws.variables("000000000000").items():
                local.setdefault(function, {})["variables"] = variables
            made = " ".join(sorted(set().union(*needed.values())))
            print(f"\nlocal AWS: {aws.endpoint} has {made}, and keeps their data in {os.path.relpath(folder)}\n", flush=True)
        # `python3` is that of .venv, in which the tokens' library is.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return end_of(command, os.environ | {LOCAL: json.dumps(local), "PATH": path})


def accounts() -> None:
    with tempfile.TemporaryDirectory() as folder, emulator(Path(folder)) as aws:
        for account in sys.stdin:
            print(json.dumps(aws.variables(account.strip())), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--needed"]:
            sys.exit(not is_needed())
        case ["--run", folder, *command]:
            sys.exit(run(Path(folder).absolute(), command) if is_needed() else end_of(command, os.environ))
        case ["--accounts"]:
            accounts()
        case ["--serve"]:
            serve()
        case _:
            sys.exit(__doc__)

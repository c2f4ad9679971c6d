"""The emulated AWS, and the SAM CLI that uses it."""

import io
import json
import os
import shlex
import subprocess
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from harness import REGION, ROOT, emulator_environment, loopback_only


# This machine's, because the emulator runs the functions here.
ARCHITECTURE = f"Architecture={os.environ.get('ARCHITECTURE', 'x86_64')}"


class Aws:
    def __init__(self, endpoint: str, scratch: Path) -> None:
        self.endpoint = loopback_only(endpoint)
        self.scratch = scratch
        self.build_dir = ROOT / "target" / "sam" / "build"
        # Without a recent check on record, SAM asks PyPI for its newest version.
        (scratch / "sam").mkdir()
        (scratch / "sam" / "metadata.json").write_text(json.dumps({"lastVersionCheck": time.time()}))

    def client(self, service: str):
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def sam(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = emulator_environment(self.endpoint) | {"__SAM_CLI_APP_DIR": str(self.scratch / "sam"), "SAM_CLI_POLL_DELAY": "0.5"}
        if arguments[0] == "build":
            # Compile and link as `make deploy` does, or cargo would compile everything again.
            env.pop("RUSTC_WORKSPACE_WRAPPER", None)
            link = subprocess.check_output(["make", "--silent", "--no-print-directory", "link"], cwd=ROOT, text=True)
            env |= dict(assignment.split("=", 1) for assignment in shlex.split(link))
        else:  # cargo may have to download; nothing else may leave this machine
            env |= {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"}
        started = time.monotonic()
        done = subprocess.run(
            ["sam", *arguments, "--config-file", str(ROOT / "samconfig.toml")],
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        print(f"$ sam {' '.join(arguments)}\n{done.stdout}[{time.monotonic() - started:.1f} s]")
        if check:
            assert done.returncode == 0, f"sam {arguments[0]}: exit {done.returncode}\n{done.stdout}"
        return done

    def deploy(
        self, stack: str, *overrides: str, env: str = "default", template: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        # Overrides on the command line replace all of samconfig.toml's, so the caller passes every one.
        return self.sam(
            "deploy",
            *("--config-env", env, "--stack-name", stack, "--no-confirm-changeset"),
            *("--template-file", str(template or self.build_dir / "template.yaml")),
            *("--parameter-overrides", ARCHITECTURE, *overrides),
            check=check,
        )

    def delete(self, stack: str, env: str = "default") -> None:
        self.sam("delete", "--config-env", env, "--stack-name", stack, "--no-prompts")

    def outputs(self, stack: str) -> dict[str, str]:
        described = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}

    def reachable(self, url: str) -> str:
        """Turns an output's URL into one that this machine can call. The emulator takes the API's id from the host or
        the path, and a resolver may not know the names below `localhost`."""
        parts = urlsplit(loopback_only(url))
        api_id = parts.hostname.split(".")[0]
        return f"{self.endpoint}/_aws/execute-api/{api_id}/$default{parts.path}"

    def create_function(self, name: str, executable: Path, **more: object) -> str:
        """Creates a function from one executable, without a stack. Returns its ARN."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            info = zipfile.ZipInfo("bootstrap")
            info.external_attr = 0o755 << 16
            archive.writestr(info, executable.read_bytes())
        created = self.client("lambda").create_function(
            FunctionName=name, Runtime="provided.al2023", Handler="bootstrap", Role=f"arn:aws:iam::000000000000:role/{name}",
            Code={"ZipFile": packed.getvalue()}, **more,
        )
        return created["FunctionArn"]

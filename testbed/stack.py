"""The commands of `make` that query or change a stack on AWS, before and after its deployment.

    stack.py preflight|url|logs|rollback STAGE [NAME]

Names and regions come from samconfig.toml.
"""

import json
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, TokenRetrievalError

ROOT = Path(__file__).resolve().parents[1]
LOG_IN = "log in, as with `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
# How much later than others CloudWatch may show an event.
LATE_MS = 10_000
# The fields of a log line that `logs` shows, if the line has them.
SHOWN = ("status", "method", "route", "duration_ms", "problem", "error", "cache_status", "attempts", "request_id")


class Stack:
    def __init__(self, stage: str, name: str | None) -> None:
        tables = tomllib.loads((ROOT / "samconfig.toml").read_text())
        table = tables.get("default" if stage == "dev" else stage)
        if not isinstance(table, dict):
            sys.exit(f"STAGE={stage}: samconfig.toml has no table for it; docs/deploying.md says how to add one.")
        settings = table["global"]["parameters"]
        self.stage, self.name, self.region = stage, name or settings["stack_name"], settings["region"]
        # The versions that answered before the latest deployment.
        self.before = ROOT / "target" / f"before-{self.name}.json"

    def client(self, service: str):
        config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 2})
        return boto3.client(service, region_name=self.region, config=config)

    def aliases(self) -> dict[str, str]:
        """The version that answers, by function."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.name)
        names = pages.search("StackResourceSummaries[?ResourceType=='AWS::Lambda::Function'].PhysicalResourceId")
        functions = self.client("lambda")
        return {name: functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"] for name in names}

    def preflight(self) -> None:
        """Prints where a deployment goes, and records the versions that answer there now."""
        account = self.client("sts").get_caller_identity()["Account"]
        try:
            change, aliases = "updates", self.aliases()
        except ClientError as error:
            if "does not exist" not in str(error):
                raise
            change, aliases = "creates", {}
        print(f"account {account}, region {self.region}, stage {self.stage}: {change} the stack {self.name}")
        self.before.parent.mkdir(exist_ok=True)
        self.before.write_text(json.dumps(aliases))

    def url(self) -> None:
        outputs = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]["Outputs"]
        print(next(output["OutputValue"] for output in outputs if output["OutputKey"] == "ApiUrl"))

    def logs(self) -> None:
        """Follows the functions' log lines, from one minute ago, until it is interrupted."""
        groups = [f"/aws/lambda/{name}" for name in self.aliases()]
        for events in followed(self.client("logs"), groups, int(time.time() * 1000) - 60_000):
            for group, message in events:
                print(line(group.removeprefix(f"/aws/lambda/{self.name}-"), message), flush=True)
            time.sleep(2)

    def rollback(self) -> None:
        """Returns to the versions that answered before the latest deployment from this folder."""
        if not self.before.exists():
            sys.exit(f"The earlier versions of {self.name} are not known: it was not deployed from this folder.")
        functions, now = self.client("lambda"), self.aliases()
        for name, version in json.loads(self.before.read_text()).items():
            if name in now and now[name] != version:
                functions.update_alias(
                    FunctionName=name, Name="live", FunctionVersion=version, RoutingConfig={"AdditionalVersionWeights": {}}
                )
                print(f"{name}: version {version} answers again, instead of {now[name]}")


def followed(logs, groups: list[str], since: int) -> Iterator[list[tuple[str, str]]]:
    """Yields the new events of each poll, oldest first: group and message. `since` is in milliseconds since 1970.

    Streams do not become visible in the order of their events, so a poll begins some time before the latest event. The
    ids of the events from then on tell which of them are new, even if their messages are equal.
    """
    begins = dict.fromkeys(groups, since)
    seen: dict[str, dict[str, int]] = {group: {} for group in groups}
    while True:
        found = []
        for group, known in seen.items():
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=begins[group])
            for event in (event for page in pages for event in page["events"] if event["eventId"] not in known):
                known[event["eventId"]] = event["timestamp"]
                found.append((event["timestamp"], group, event["message"]))
            begins[group] = max([since, *(timestamp - LATE_MS for timestamp in known.values())])
            seen[group] = {id: timestamp for id, timestamp in known.items() if timestamp >= begins[group]}
        yield [(group, message) for _, group, message in sorted(found, key=lambda event: event[0])]


def line(function: str, message: str) -> str:
    """Formats a log line for people. A line that is not JSON stays as it is."""
    event = None
    with suppress(ValueError):
        event = json.loads(message)
    if not isinstance(event, dict) or "message" not in event:
        return f"{function}  {message.rstrip()}"
    said = [] if event["message"] == "invocation" else [event["message"]]
    said += [f"{name}={event[name]}" for name in SHOWN if name in event]
    return f"{event.get('timestamp', '')[11:23]} {event.get('level', ''):5} {function:12} {' '.join(map(str, said))}"


def main(command: str, stage: str, name: str | None = None) -> None:
    try:
        getattr(Stack(stage, name), command)()
    except (NoCredentialsError, TokenRetrievalError) as error:
        sys.exit(f"There are no AWS credentials ({error}): {LOG_IN}.")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"The call to AWS failed: {error}. If it is about credentials, {LOG_IN}.")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])

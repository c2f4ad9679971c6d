"""`make own`: makes a clone of this repository a team's own, in one commit.

    own.py NAME [KEEP]

NAME is the service's: of its stacks, of its metrics' namespace, of its contract. The endpoints that declare themselves as
examples go, except those in KEEP, and so does what testbed/ownership calls original.
"""

import json
import re
import subprocess
import tomllib

import remove
from emulator import declarations
from new import ROOT, Refused, check_form, read, run, write_all
from ownership import VERSION, owned
from update import git, refuse_uncommitted

README = """# {title}

Say here what {title} is for, who runs it, and who may call it.

    make run       # serve it on http://localhost:9000, rebuilt when its code changes
    make test      # prove that everything works: tests, compiled functions, a deployed stack in a local AWS
    make new NAME=orders METHODS=GET,POST     # add an endpoint; `make rename` and `make remove` are its inverse
    make deploy    # into your AWS account: docs/deploying.md
    make update    # take over what is new in the repository that this began as: docs/updating.md

`make` lists the others, and `make doctor` the tools that this machine lacks.

| to | see |
| --- | --- |
| write an endpoint: a body, a table, a setting, a case | [docs/endpoints.md](docs/endpoints.md) |
| know what a request, an answer and a problem can be | [docs/requests.md](docs/requests.md), [docs/streams.md](docs/streams.md), [docs/axum.md](docs/axum.md) |
| call another service | [docs/upstream.md](docs/upstream.md) |
| say who may call | [docs/callers.md](docs/callers.md) |
| keep items in a table | [docs/data.md](docs/data.md) |
| test | [docs/testing.md](docs/testing.md) |
| deploy, and go back | [docs/deploying.md](docs/deploying.md) |
| look into a failure | [docs/failures.md](docs/failures.md), [docs/observability.md](docs/observability.md) |
| make a red gate green | [docs/gates.md](docs/gates.md) |

`hello`, `time`, `fetch` and `parcels` on these pages are the examples that this repository began with.

## What is whose

The functions, their [events](events), [template.yaml](template.yaml), [openapi.yaml](openapi.yaml), [samconfig.toml](samconfig.toml) and the pages at
the top are yours. [testbed/ownership](testbed/ownership) says which files `make update` replaces: do not change those.

What came with this repository is under MIT or Apache-2.0, as you choose ([LICENSE-MIT](LICENSE-MIT), [LICENSE-APACHE](LICENSE-APACHE)). Your own
functions are under the licence that you give them.
"""

CHANGELOG = """# Changelog

The format follows [Keep a Changelog](https://keepachangelog.com).

## Unreleased
"""


def examples() -> list[str]:
    """The endpoints that declare that they are here to be looked at."""
    return [name for name, declared in declarations().items() if declared.get("example")]


def check(name: str, keep: list[str]) -> None:
    # With `-prod` and a function's name of 32 characters, Lambda's 64 are not exceeded.
    check_form("NAME", name, 24)
    if (ROOT / VERSION).exists():
        raise Refused(f"This repository is a team's own already: {VERSION} is there. `make remove` removes an endpoint.")
    if unknown := sorted(set(keep) - set(examples())):
        raise Refused(f"KEEP={','.join(unknown)}: the examples are {', '.join(examples())}.")
    refuse_uncommitted()


def named(title: str, name: str) -> dict[str, str]:
    """The files that have the service's name, with this one."""
    namespace = title.replace(" ", "")
    config, template, samconfig = read(".cargo/config.toml"), read("template.yaml"), read("samconfig.toml")
    openapi = re.sub(r"(?m)^  license:\n(?:    .*\n)+", "", read("openapi.yaml"))
    was = tomllib.loads(config)["env"]["METRICS_NAMESPACE"]
    stack = tomllib.loads(samconfig)["prod"]["global"]["parameters"]["stack_name"].removesuffix("-prod")
    template = re.sub(r"(?m)^Description: .*", f"Description: {title}, HTTP endpoints on AWS Lambda.", template)
    template = re.sub(rf"(?<=Namespace: ){was}\b|(?<=\{{){was}(?=,)", namespace, template)
    return {
        ".cargo/config.toml": config.replace(f'"{was}"', f'"{namespace}"'),
        "template.yaml": template,
        "samconfig.toml": re.sub(rf"\b{re.escape(stack)}(?![a-z])", name, samconfig),
        "openapi.yaml": re.sub(r"(?m)^  title: .*", f"  title: {title}", openapi),
        "README.md": README.format(title=title),
        "CHANGELOG.md": CHANGELOG,
    }


def main(name: str, keep: str = "") -> None:
    kept = [example.strip() for example in keep.split(",") if example.strip()]
    check(name, kept)
    gone, commit = [example for example in examples() if example not in kept], git("rev-parse", "HEAD").strip()
    try:
        for example in gone:
            remove.remove(example)
        for example in kept:
            manifest = f"functions/{example}/Cargo.toml"
            # Without a table that is then empty.
            text = re.sub(r"(?m)^example = true.*\n", "", read(manifest))
            (ROOT / manifest).write_text(re.sub(r"(?m)^\[package\.metadata\.endpoint\]\n\n", "", text))
        git("rm", "--quiet", "--", *(file for file in git("ls-files").splitlines() if owned(ROOT, file) == "original"))
        title = name.replace("-", " ").title()
        write_all(named(title, name))
        # Nothing, if this is no clone.
        cloned = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, text=True, capture_output=True, check=False).stdout.strip()
        (ROOT / VERSION).write_text(json.dumps({"from": cloned, "commit": commit}, indent=2) + "\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"Make this repository that of {title}")
    except BaseException as error:
        git("reset", "--quiet", "--hard", commit)
        git("clean", "--quiet", "--force", "-d", "functions", "events", "testbed")
        raise Refused(f"It cannot be done: {error!r}.") from error
    theirs = [file for file in git("ls-files").splitlines() if owned(ROOT, file) == "theirs"]
    print(f"""
This is {title}, in one commit, {git("rev-parse", "--short", "HEAD").strip()}:
  stacks             {name}-dev and {name}-prod, in samconfig.toml: look at its region and tags
  metrics            namespace {title.replace(" ", "")}, in .cargo/config.toml and template.yaml
  contract           openapi.yaml, of "{title}"; say there under which licence it is
  endpoints          {", ".join(sorted(folder.name for folder in (ROOT / "events").iterdir())) or "none"}; without {", ".join(gone) or "none"}
  pages              README.md and CHANGELOG.md are yours to write; docs/ says how to do things
  yours              {len(theirs)} files; `make update` replaces the others: testbed/ownership
Next: make new NAME=orders METHODS=GET,POST && make run""")


if __name__ == "__main__":
    run(main)

"""`make remove` and `make rename`: take an endpoint out of this repository, or give it another name.

    remove.py NAME
    remove.py NAME TO

What belongs to an endpoint is found by what refers to it: the functions of template.yaml with its code, what only they
refer to (policies, tables, parameters, conditions), its routes, what only these refer to in openapi.yaml, and its folders. So
`make remove` is the inverse of `make new`. A path whose first segment is the endpoint's name changes with the name.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable

from emulator import TABLES, tables
from new import RESTART, ROOT, ROUTES, SHARED, Refused, check_name, components, is_pretty, pretty, read, router, run, used, write_all
from ownership import owned

# What every endpoint has in the contract, and `make new` does not write: it stays, even if nothing has it.
BASIC = {name for _, name in used("".join(components("TABLE").values()))}

# The loops over all functions stay, even without a name in them.
LOOPS = ("Functions", "Urls")


def sections(text: str) -> list[str]:
    return re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)


def entries(section: str, indent: int = 2) -> list[list[str]]:
    """The name and the text of each entry of a section, with the comments before it. The first has no name: it is the
    section's head."""
    found, comments = [["", ""]], ""
    for line in section.splitlines(keepends=True):
        if re.match(rf" {{{indent}}}#", line):
            comments += line
            continue
        if key := re.match(rf" {{{indent}}}\"?([^\s#\"-][^\s\"]*)\"?:", line):
            found.append([key[1], ""])
        found[-1][1] += comments + line
        comments = ""
    found[-1][1] += comments
    return found


def joined(found: list[list[str]], between: str) -> str:
    """The text of a section that ends with `between`, as it did before its last entry was removed."""
    return "".join(text for _, text in found).rstrip("\n") + between


def code(text: str) -> str:
    """`text` without comments, and without the groups in which the console shows parameters."""
    return re.sub(r"(?m)(^|\s)#.*|^        Parameters: \[.*", "", text)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", code(text)))


class Endpoint:
    def __init__(self, name: str) -> None:
        self.name, self.id = name, name.replace("-", "")
        if not (ROOT / "events" / name).is_dir() or not name:
            there = ", ".join(sorted(folder.name for folder in (ROOT / "events").iterdir()))
            raise Refused(f"NAME={name}: there is no such endpoint; there are {there}.")
        self.template = {re.match(r"\w*", section)[0]: entries(section) for section in sections(read("template.yaml"))}
        self.ends = {re.match(r"\w*", section)[0]: re.search(r"\n*\Z", section)[0] for section in sections(read("template.yaml"))}
        # A function can be deployed more than once, each time under a name of its own.
        self.blocks = {
            found: text for found, text in self.template["Resources"] if re.search(rf"^      CodeUri: functions/{name}$", text, re.MULTILINE)
        }
        self.functions = [re.search(r"FunctionName: !Sub \$\{AWS::StackName\}-(\S+)", text)[1] for text in self.blocks.values()]
        self.ids = [function.replace("-", "") for function in self.functions]
        self.routes = [route for route, function in router().items() if function == name]
        self.paths = {route.replace("{*", "{") for route in self.routes}

    def remove(self) -> dict[str, str]:
        """The content of each changed file."""
        routes = re.sub(rf'(?m)^"/.*" = "{self.name}"\n', "", read(ROUTES))
        files = {ROUTES: routes, "openapi.yaml": self.without_paths(), "template.yaml": self.without_functions()}
        ours = "|".join(map(re.escape, self.ids))
        if left := sorted(set(re.findall(rf"\b(?:{ours})(?:Function|Role|Logs)\b", code(files["template.yaml"])))):
            raise Refused(f"template.yaml needs {', '.join(left)} elsewhere: remove first what refers to it.")
        return files

    def without_functions(self) -> str:
        kept, gone = self.template, ""
        roles = {f"{own}Role" for own in self.ids}
        own_urls = {f"{own}{end}" for own in self.ids for end in ("Url", "FunctionUrl")}
        for section in ("Resources", "Outputs"):
            for entry in list(kept[section]):
                name, text = entry
                # The names of a loop, or the roles of a policy.
                found = re.search(r"(?m)^(?:    - |      Roles: )\[(.*)\]$", text)
                listed = items(found[1]) if found else []
                others = [item for item in listed if item not in self.functions and not words(item) & roles]
                is_left = others or not listed or name.split("::")[-1] in LOOPS
                if not is_left or name in self.blocks or name in own_urls or section == "Outputs" and words(text) & own_urls:
                    gone += text
                    kept[section].remove(entry)
                elif others != listed:
                    entry[1] = text[:found.start(1)] + ", ".join(others) + text[found.end(1):]
        for entry in kept["Mappings"]:
            for function in self.functions:
                entry[1] = re.sub(rf"(?m)^    {function}:.*\n(?:      .*\n)*", "", entry[1])
        routes = {path for text in self.blocks.values() for path in re.findall(r'\bPath: "?([^",\s]+)', text)}
        for entry in kept["Resources"]:
            if entry[0] == "Api":
                for route in routes:
                    entry[1] = re.sub(rf'(?m)^          "?{re.escape(route)}"?:.*\n(?:            .*\n)*', "", entry[1])
            for own, function in zip(self.ids, self.functions, strict=True):
                for line in re.findall(rf"(?m)^        - .*!Ref {own}Logs\b.*\n", entry[1]):
                    entry[1] = entry[1].replace(line, "")
                    gone += line
                shown = re.escape(f'\\"${{AWS::StackName}}-{function}\\"')
                # The first has no OR before it.
                entry[1] = re.sub(rf"(?<=FunctionName=\(){shown}(\s+OR )?|\s+OR {shown}", "", entry[1])
        self.without_what_nothing_needs(gone)
        return "".join(joined(found, self.ends[section]) for section, found in kept.items())

    def without_what_nothing_needs(self, gone: str) -> None:
        """Removes what only the removed text referred to."""
        kept, candidates, is_changed = self.template, words(gone), True
        while is_changed:
            is_changed = self.without_a_table(candidates)
            for section in ("Resources", "Parameters", "Conditions"):
                for entry in list(kept[section]):
                    others = "".join(text for found in kept.values() for name, text in found if name != entry[0])
                    if entry[0] in candidates and entry[0] not in words(others):
                        kept[section].remove(entry)
                        candidates |= words(entry[1])
                        is_changed = True
        there = {name for name, _ in kept["Parameters"]}
        for entry in kept["Metadata"]:
            for label, names in re.findall(r"(      - Label: .*\n)        Parameters: \[(.*)\]\n", entry[1]):
                others = ", ".join(name for name in items(names) if name in there)
                group = f"{label}        Parameters: [{others}]\n" if others else ""
                entry[1] = entry[1].replace(f"{label}        Parameters: [{names}]\n", group)

    def without_a_table(self, candidates: set[str]) -> bool:
        """Removes one of these from the loop over the tables, if nothing refers to it. Returns whether there was one."""
        kept = self.template
        for entry in kept["Resources"]:
            others = words("".join(text for found in kept.values() for _, text in found))
            for table in tables(entry[1]):
                if table in candidates and table not in others:
                    names = [name.removesuffix("Table") for name in tables(entry[1]) if name != table]
                    entry[1] = re.sub(re.escape(TABLES) + r"\[.*\]", f"{TABLES}[{', '.join(names)}]", entry[1])
                    if not names:
                        kept["Resources"].remove(entry)
                    return True
        return False

    def without_paths(self) -> str:
        """openapi.yaml without the paths of the endpoint and what only they refer to."""
        kept, gone = sections(read("openapi.yaml")), []

        def without(text: str, is_unused: Callable[[str, str], bool], indent: int = 2) -> str:
            found = entries(text, indent)
            left = [entry for entry in found if not is_unused(*entry)]
            gone.extend(text for name, text in found if is_unused(name, text))
            if left == found:
                return text
            # OpenAPI takes no group without an entry.
            return "" if len(left) == 1 and text[:6] != "paths:" else joined(left, re.search(r"\n*\Z", text)[0])

        def is_unneeded(key: tuple[str, str], text: str) -> bool:
            # What an endpoint has not used yet stays: handler's problems.
            stays = key[1] in BASIC or "application/problem+json" in text
            return key in named and (key[1] in made or not stays)

        made = {name for _, name in components("TABLE")}
        kept = [without(section, lambda name, _: name in self.paths) if section.startswith("paths:") else section for section in kept]
        while True:
            before = "".join(kept)
            named = set(used("".join(gone))) - set(used(before))
            for number, section in enumerate(kept):
                if section.startswith(f"{SHARED}:"):
                    kept[number] = without(section, lambda name, _: (SHARED, name) in named)
                if section.startswith("components:"):
                    kept[number] = "".join(
                        without(text, lambda name, it: is_unneeded((group, name), it), 4) for group, text in entries(section)
                    )
            if "".join(kept) == before:
                return before

    def rename(self, to: str) -> dict[str, str]:
        check_name("TO", to)
        new_id = to.replace("-", "")
        path = (rf"(?<![\w/.-])/{self.name}(?![\w-])", f"/{to}")
        if any(re.sub(*path, route) != route and re.sub(*path, route) in router() for route in self.routes):
            raise Refused(f"TO={to}: another endpoint has the path /{to}.")
        made = set(re.findall(r'^(?:      |    - )"&\{Name\}(\w+)"', read("template.yaml"), re.MULTILINE)) | {"Function", "FunctionUrl", "Streams", "Url"}
        ids = {f"{own}{suffix}": f"{new_id}{own[len(self.id):]}{suffix}" for own in self.ids for suffix in made}
        # Policies, as `make new` names them.
        ids |= {
            name: new_id + name[len(self.id):] for name, text in self.template["Resources"]
            if re.match(rf"{self.id}[A-Z]", name) and "Type: AWS::IAM::Policy" in text
        }
        names = {function: to + function.removeprefix(self.name) for function in self.functions if function.startswith(self.name)}
        template = re.sub(rf"\b({'|'.join(map(re.escape, ids))})\b", lambda found: ids[found[0]], read("template.yaml"))
        for function, name in names.items():
            template = re.sub(rf"(?<=\$\{{AWS::StackName\}}-){function}(?![\w-])", name, template)
            template = re.sub(rf"(?m)^    {function}:", f"    {name}:", template)
            template = re.sub(r"(?m)^    - \[.*\]$", lambda found: re.sub(rf"(?<=[\[ ]){function}(?=[,\]])", name, found[0]), template)
        template = template.replace(f"functions/{self.name}\n", f"functions/{to}\n")
        template = template.replace(f"      PolicyName: {self.id}-", f"      PolicyName: {new_id}-")
        openapi = read("openapi.yaml")
        changes = [
            (rf"((?:operationId: |[&*])[a-z]+){self.id.capitalize()}(?![a-z])", rf"\g<1>{new_id.capitalize()}"),
            # Where it leads to itself, by a relative URL.
            (rf"(location: .*\bconst: ){self.name}(?![\w-])", rf"\g<1>{to}"),
        ]
        for there in self.paths:
            block = rf"(?m)^  \"?{re.escape(there)}\"?:.*\n(?:(?:    .*)?\n)*"
            for change in changes:
                openapi = re.sub(block, lambda found: re.sub(*change, found[0]), openapi)
        own = [
            # The kind of a table's items is in the keys of those that there are.
            path, (rf'(?<!_TABLE", )"{self.name}(?=["/])(?!":)', f'"{to}'), (rf"\b{self.name}-function\b", f"{to}-function"),
            (rf"\b(CARGO_BIN_EXE_|functions/|events/){self.name}(?![\w-])", rf"\g<1>{to}"),
        ]
        files = {
            ROUTES: re.sub(*path, re.sub(rf'(?m)^("/.*" = )"{self.name}"$', rf'\g<1>"{to}"', read(ROUTES))),
            "template.yaml": re.sub(*path, template),
            "openapi.yaml": re.sub(*path, openapi),
        }
        for folder in ("functions", "events"):
            for file in sorted((ROOT / folder / self.name).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    try:
                        text = file.read_text()
                    except UnicodeDecodeError:
                        continue
                    is_made = file.suffix == ".json" and is_pretty(text)
                    for change in own:
                        text = re.sub(*change, text)
                    # What fits into a line depends on the name.
                    text = pretty(json.loads(text)) + "\n" if is_made else text
                    files[str(file.relative_to(ROOT)).replace(f"{folder}/{self.name}/", f"{folder}/{to}/", 1)] = text
        return files


def items(text: str) -> list[str]:
    """The items of a list in one line, which may be lists."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [item.strip() for item in found if item.strip()]


def lock() -> None:
    """Cargo.lock follows the workspace. Without the index of the registry, the next build does that."""
    subprocess.run(["cargo", "update", "--workspace", "--offline", "--quiet"], cwd=ROOT, stderr=subprocess.DEVNULL, check=False)


def retained(template: str) -> set[str]:
    """The resources that outlive a stack, or their place in it."""
    return {*re.findall(r"^  (\w+):\n(?:    .*\n)*?    DeletionPolicy:.*\bRetain", template, re.MULTILINE), *tables(template)}


def remove(name: str) -> str:
    """Removes it, and returns what is still to say."""
    files = Endpoint(name).remove()
    left = retained(read("template.yaml")) - retained(files["template.yaml"])
    write_all(files)
    for folder in ("functions", "events"):
        shutil.rmtree(ROOT / folder / name, ignore_errors=True)
    lock()
    if not left:
        return ""
    return f"Where its DeletionPolicy is Retain, a stack that is deployed leaves {', '.join(sorted(left))} in your account, with the data.\n"


def rename(name: str, to: str) -> None:
    files = Endpoint(name).rename(to)
    for folder in ("functions", "events"):
        (ROOT / folder / name).rename(ROOT / folder / to)
    write_all(files)
    lock()
    subprocess.run(["cargo", "fmt", "--package", f"{to}-function"], cwd=ROOT, check=True)


def main(name: str, to: str | None = None) -> None:
    if to is None:
        left = remove(name)
        print(f"functions/{name} and events/{name} are gone, with what only they needed in CargoLambda.toml, template.yaml and openapi.yaml.")
        print(left, end="")
    else:
        rename(name, to)
        print(f"{name} is {to} in its folders, CargoLambda.toml, template.yaml and openapi.yaml. A deployment replaces the function.")
    command = ["git", "grep", "--untracked", "-lE", rf"(functions|events)/{name}\b"]
    found = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False).stdout.split()
    # Nobody edits a file of ours.
    if files := [file for file in found if owned(ROOT, file) == "theirs"]:
        print(f"Look at {', '.join(files)}, which name its folders.")
    print(RESTART)


if __name__ == "__main__":
    run(main)

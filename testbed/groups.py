"""`make build`: prints which packages can be built together, a line for each group, as arguments for Cargo.

Cargo compiles the dependencies of one command once, and links its functions side by side. But it gives each crate the
features that any package of the command asks for (https://doc.rust-lang.org/cargo/reference/features.html#feature-unification),
so that a small function would get what only a large one needs. Together are therefore only functions that ask for the
same features of every crate that they share.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# By crate, with its version.
Features = dict[str, str]


def grouped(functions: dict[str, Features]) -> list[list[str]]:
    """Groups functions by the features of their crates. Those with the most crates come first: they take longest."""
    groups: list[tuple[list[str], Features]] = []
    for name, crates in sorted(functions.items(), key=lambda function: -len(function[1])):
        for names, others in groups:
            if all(others.get(crate, own) == own for crate, own in crates.items()):
                names.append(name)
                others.update(crates)
                break
        else:
            groups.append(([name], dict(crates)))
    return [names for names, _ in groups]


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def features(packages: list[str], target: str, kinds: str = "normal") -> Features:
    """Returns the features of each crate that is linked when these packages are built together; `kinds` are those of their dependencies."""
    # Procedural macros are not part of a function.
    edges = ["--edges", f"{kinds},no-proc-macro", "--target", target]
    selected = [f"--package={package}" for package in packages]
    tree = cargo("tree", "--quiet", *selected, *edges, "--prefix", "none", "--format", "{p}\t{f}")
    return dict(line.removesuffix(" (*)").split("\t") for line in tree.splitlines() if line)


def main(target: str, *functions: str) -> None:
    metadata = json.loads(cargo("metadata", "--quiet", "--no-deps", "--format-version", "1"))
    binaries = {
        target["name"]: package["name"]
        for package in metadata["packages"]
        for target in package["targets"]
        if "bin" in target["kind"]
    }
    if missing := [function for function in functions if function not in binaries]:
        sys.exit(f"events/ has a folder for {', '.join(missing)}, but no package has a binary of that name.")
    packages = [binaries[function] for function in functions]
    with ThreadPoolExecutor() as pool:
        all_features = pool.map(lambda package: features([package], target), packages)
    for group in grouped(dict(zip(packages, all_features, strict=True))):
        print(*(f"--package={package}" for package in group))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`make update`: brings what is new in the repository that this one began as (testbed/own.py), in one commit.

    update.py [FROM] [VERSION]
    update.py --to COMMIT FROM [VERSION]

FROM is an address or a path for git; if empty, where the clone came from. VERSION is a tag, a branch or a commit; if
empty, what FROM has as its HEAD. That version is fetched, and its own update.py does the rest, with `--to`, in the current directory:
what testbed/ownership calls ours is replaced, if it is as it came. Then the migrations run that are new, and `make check`.

A change of what a team must have in its own files comes with a migration, in testbed/migrations, which runs once, in the order of names. Its
first line says what it does. `migrate(root)` changes the files below `root`, a `pathlib.Path`, and leaves them as they are if they have the
change already. A test of it stands in testbed/deploy/test_update.py.
"""

import io
import json
import re
import runpy
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from new import Refused, run
from ownership import VERSION, owner

# The file may be that of another version, elsewhere.
ROOT = Path.cwd()
MIGRATIONS = "testbed/migrations/"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise Refused(f"`git {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def refuse_uncommitted() -> None:
    if uncommitted := git("status", "--porcelain"):
        raise Refused(f"There are changes that are not committed:\n{uncommitted}Commit or stash them first, so that one commit has all of this.")


def content(commit: str, file: str) -> bytes | None:
    done = subprocess.run(["git", "show", f"{commit}:{file}"], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def changed(base: str, new: str) -> tuple[set[str], set[str], set[str]]:
    """The files of ours that change, those that both sides changed, and those that only the team changed."""
    owners = (ROOT / "testbed/ownership").read_text(), (content(new, "testbed/ownership") or b"").decode()

    def is_ours(file: str) -> bool:
        folder = re.match(r"(?:functions|events)/([^/]+)/", file)
        # An endpoint of ours, such as the reference, that the team removed.
        if folder and content(base, f"functions/{folder[1]}/Cargo.toml") and not (ROOT / "functions" / folder[1]).exists():
            return False
        return (owner(owners[1], file) or owner(owners[0], file)) == "ours" and file != VERSION

    def differing(one: str, other: str, *kinds: str) -> set[str]:
        return set(filter(None, git("diff", "--name-only", "--no-renames", "-z", *kinds, one, other).split("\0")))

    there, here = differing(base, new), differing(base, "HEAD")
    # A file that only the team has is theirs, wherever it is.
    edited = differing(base, "HEAD", "--diff-filter=a") - there
    changes = {file for file in (there | edited) & differing("HEAD", new) if is_ours(file)}
    return changes - here, changes & here & there, changes & edited


def locked(new: str) -> str:
    """Cargo.lock with our versions, and with the team's of what only they have. Cargo drops what nobody needs."""

    def packages(text: str) -> dict[str, str]:
        blocks = re.findall(r"(?m)^\[\[package\]\]\n(?:.+\n)+", text)
        return {block: re.search(r'name = "(.*)"', block)[1] for block in blocks}

    text = (content(new, "Cargo.lock") or b"").decode()
    known = set(packages(text).values())
    return text + "".join(f"\n{block}" for block, name in packages((ROOT / "Cargo.lock").read_text()).items() if name not in known)


def told(base: str, new: str) -> str:
    """What CHANGELOG.md has more than before."""
    lines = git("diff", "--unified=0", base, new, "--", "CHANGELOG.md").splitlines()
    return "\n".join(line[1:] for line in lines if line.startswith("+") and not line.startswith("+++"))


def migrate(base: str) -> list[str]:
    """Runs the migrations that are new since `base`, and returns what each did."""
    done = []
    for file in sorted((ROOT / MIGRATIONS).glob("[0-9]*.py")):
        if content(base, f"{MIGRATIONS}{file.name}") is None:
            migration = runpy.run_path(str(file))
            migration["migrate"](ROOT)
            done.append(f"{file.stem}: {migration['__doc__'].splitlines()[0]}")
    return done


def fetch(source: str = "", version: str = "") -> int:
    """Fetches the version, and has its update.py do the rest. Returns the exit status of that."""
    if not (ROOT / VERSION).exists():
        raise Refused("This repository is nobody's own yet: `make own` makes it so.")
    refuse_uncommitted()
    began = json.loads((ROOT / VERSION).read_text())
    source, base = source or began["from"], began["commit"]
    if not source:
        raise Refused("Nobody knows where this repository came from: say it, as in `make update UPDATE_FROM=https://…`.")
    git("fetch", "--quiet", "--no-tags", str(Path(source).expanduser()) if Path(source).exists() else source, version or "HEAD")
    new = git("rev-parse", "FETCH_HEAD").strip()
    if new == base:
        print("There is nothing new.")
        return 0
    git("cat-file", "-e", f"{base}^{{commit}}")
    tools = subprocess.run(["git", "archive", "--format=zip", new, "testbed"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(tools)).extractall(folder)
        return subprocess.run([sys.executable, f"{folder}/testbed/update.py", "--to", new, source, version], cwd=ROOT).returncode


def update(new: str, source: str, version: str = "") -> None:
    """Updates to the commit `new`, which is there. The version before calls this: keep its arguments."""
    began = json.loads((ROOT / VERSION).read_text())
    base = began["commit"]
    changes, conflicts, edited = changed(base, new)
    if conflicts:
        raise Refused(
            "These files are ours, and have changed both here and there. Undo the change here (`git checkout "
            f"{base[:12]} -- FILE`), and make it in a file of yours: docs/updating.md says which.\n  " + "\n  ".join(sorted(conflicts))
        )
    lock = locked(new)
    if changes:
        git("restore", f"--source={new}", "--staged", "--worktree", "--", *changes)
    (ROOT / "Cargo.lock").write_text(lock)
    (ROOT / VERSION).write_text(json.dumps({"from": began["from"] or source, "commit": new}, indent=2) + "\n")
    done = migrate(base)
    # Cargo.lock follows the workspace; without a network, the next build does that.
    subprocess.run(["cargo", "update", "--workspace", "--offline", "--quiet"], cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
    print("What is new, from its changelog:\n" + (told(base, new) or "(nothing)"))
    print("".join(f"\nmigrated   {line}" for line in done), end="")
    print("".join(f"\nkept       {file}, which is ours and which you changed: docs/updating.md" for file in sorted(edited)), end="")
    print(f"\n{len(changes)} files of ours changed.", flush=True)
    if subprocess.run(["make", "--no-print-directory", "check"], cwd=ROOT, check=False).returncode:
        raise SystemExit("`make check` fails: see above. Nothing is committed; `git reset --hard && git clean -d --force` goes back.")
    git("add", "--all")
    git("commit", "--quiet", "--message", f"Update to {version or new[:12]}")
    print("That is one commit. Next: make test")


def main(*arguments: str) -> None:
    if arguments[:1] == ("--to",):
        update(*arguments[1:])
    else:
        sys.exit(fetch(*arguments))


if __name__ == "__main__":
    run(main)

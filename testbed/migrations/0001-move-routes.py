"""Moves the routes of `make run` from Cargo.toml, which is ours, to CargoLambda.toml, which is the team's."""

import re

HEAD = "# The routes of `make run` and `cargo lambda watch`, the same as template.yaml's.\n[watch.router]\n"


def migrate(root):
    manifest = root / "Cargo.toml"
    text = manifest.read_text()
    # What a team has written below the routes stays.
    if found := re.search(r"\n*(?:^# The routes of `make run`.*\n)?^\[workspace\.metadata\.lambda\.watch\.router\]\n((?:.*=.*\n)*)", text, re.MULTILINE):
        (root / "CargoLambda.toml").write_text(HEAD + found[1])
        manifest.write_text(text[:found.start()] + "\n" + text[found.end():])

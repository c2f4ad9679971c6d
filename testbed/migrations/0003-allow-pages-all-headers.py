"""Lets pages of the allowed origins use all methods and headers, in template.yaml: `make new` no longer adds those of an endpoint."""

import re

ALL = {"AllowMethods": '["*"]', "AllowHeaders": '[authorization, "*"]', "ExposeHeaders": '["*"]'}


def migrate(root):
    template = root / "template.yaml"
    # Of the API: those of a function URL are indented more.
    template.write_text(re.sub(rf"(?m)^ {{10}}({'|'.join(ALL)}): \[.*\]$", lambda found: f"{' ' * 10}{found[1]}: {ALL[found[1]]}", template.read_text()))

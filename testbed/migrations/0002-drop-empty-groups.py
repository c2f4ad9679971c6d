"""Drops groups of components without an entry from openapi.yaml, which OpenAPI does not take: `make remove` left them."""

import re


def migrate(root):
    contract = root / "openapi.yaml"
    head, components, groups = contract.read_text().partition("\ncomponents:\n")
    contract.write_text(head + components + re.sub(r"(?m)^  \w+:\n+(?=  \w|\Z)", "", groups))

"""What docs/ shows of `parcels` is what it has."""

import json
import re

from harness import ROOT

ENDPOINTS, DATA = ((ROOT / f"docs/{page}.md").read_text() for page in ("endpoints", "data"))


def test_the_page_of_endpoints_shows_its_code() -> None:
    code = (ROOT / "functions/parcels/src/main.rs").read_text()
    parts = re.findall(r"```rust\n(.*?)```", ENDPOINTS, re.DOTALL)[0].split("\n\n")
    assert len(parts) == 2 and all(part.strip("\n") in code for part in parts)


def test_the_page_of_endpoints_shows_its_problem() -> None:
    case = json.loads((ROOT / "events/parcels/item.json").read_text())["cases"]["patch-faults"]
    shown = re.findall(r"```json\n(.*?)```", ENDPOINTS, re.DOTALL)[0]
    assert json.loads(shown) | {"instance": "urn:uuid:{request_id}"} == case["answer"]["body"]


def test_the_page_about_tables_shows_its_declarations() -> None:
    """Its Rust code is compiled and run with the documentation of the crate data."""
    sources = "".join((ROOT / file).read_text() for file in ("template.yaml", "functions/parcels/Cargo.toml"))
    shown = re.findall(r"```(?:yaml|toml)\n(.*?)```", DATA, re.DOTALL)
    assert len(shown) == 2 and [block for block in shown if block not in sources] == []

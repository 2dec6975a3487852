"""What is made from the operators' schemas is current, and true."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import jsonschema
import pytest
from lxml import etree

from penstock.flow.json_form import write_json
from penstock.flow.xml import read_xml, write_xml

ROOT = Path(__file__).resolve().parents[3]
FLOWS = sorted([*ROOT.glob("examples/*/*.xml"), *ROOT.glob("src/penstock/demo/*/*.xml")])


def flows() -> list[Path]:
    return [path for path in FLOWS if "urn:penstock:flow:1" in path.read_text(encoding="utf-8")]


def test_generated_files_are_current() -> None:
    generated = runpy.run_path(str(ROOT / "scripts" / "reference.py"))["generated"]()
    stale = [path for path, text in generated.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run: python scripts/reference.py"


def built_in_only() -> list[Path]:
    """An XSD cannot know the attributes of a user's own class."""
    return [path for path in flows() if " class=" not in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", built_in_only(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_xsd_accepts_every_flow_we_ship(path: Path) -> None:
    schema = etree.XMLSchema(etree.parse(ROOT / "schemas" / "flow.xsd"))
    document = etree.parse(path)
    schema.assertValid(document)
    flow = read_xml(path.read_bytes(), str(path)).flow
    assert flow is not None
    schema.assertValid(etree.fromstring(write_xml(flow).encode()))


@pytest.mark.parametrize("path", flows(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_json_schema_accepts_every_flow_we_ship(path: Path) -> None:
    schema = json.loads((ROOT / "schemas" / "flow.json").read_text(encoding="utf-8"))
    flow = read_xml(path.read_bytes(), str(path)).flow
    assert flow is not None
    jsonschema.Draft202012Validator(schema).validate(json.loads(write_json(flow)))


def test_the_schemas_refuse_what_the_check_refuses() -> None:
    xsd = etree.XMLSchema(etree.parse(ROOT / "schemas" / "flow.xsd"))
    text = '<flow xmlns="urn:penstock:flow:1" name="f"><node name="n"><input name="x" type="csv" {}/></node></flow>'
    assert xsd.validate(etree.fromstring(text.format('path="p"')))
    assert not xsd.validate(etree.fromstring(text.format('pth="p"')))
    schema = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas" / "flow.json").read_text(encoding="utf-8")))
    step = {"kind": "input", "name": "x", "type": "csv"}
    document = {"penstock": "flow/1", "name": "f", "nodes": [{"name": "n", "steps": [step]}]}
    assert not schema.is_valid(document)
    step["attrs"] = {"path": "p"}  # type: ignore[assignment]
    assert schema.is_valid(document)
    step["attrs"] = {"path": "p", "sepp": ";"}  # type: ignore[assignment]
    assert not schema.is_valid(document)


def test_the_language_page_shows_flows_that_are_read() -> None:
    page = (ROOT / "docs" / "reference" / "flow.md").read_text(encoding="utf-8")
    for block in re.findall(r"```xml\n(.*?)```", page, re.DOTALL):
        text = block if block.startswith("<flow") else f'<flow xmlns="urn:penstock:flow:1" name="f">{block}</flow>'
        assert read_xml(text.encode(), "flow.md").problems == []

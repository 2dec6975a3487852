"""Write what is made from the operators' own schemas: `python scripts/reference.py` (a test says when it is due).

schemas/flow.json and schemas/flow.xsd for canvases and editors, schemas/worker.json for launchers,
docs/reference/operators.md for people.
"""

from __future__ import annotations

from pathlib import Path

from penstock.engines import schema as worker_schema
from penstock.flow.schema_files import json_schema, xsd_schema
from penstock.operators.describe import Attribute, Description, descriptions

ROOT = Path(__file__).resolve().parents[1]
TITLES = {"input": "Inputs", "process": "Processes", "output": "Outputs"}


def generated() -> dict[str, str]:
    """Path below the repository -> its text."""
    return {
        "schemas/flow.json": json_schema(),
        "schemas/flow.xsd": xsd_schema(),
        "schemas/worker.json": worker_schema.text(),
        "docs/reference/operators.md": operators_page(),
    }


def operators_page() -> str:
    """One section an operator: what it does, its attributes, an example."""
    found = list(descriptions())
    lines = [
        "# The operators",
        "",
        "Made from the operators themselves by `python scripts/reference.py`; `penstock operators NAME` shows it too.",
        "How they fit into a flow: [flow.md](flow.md).",
        "",
    ]
    for kind, title in TITLES.items():
        named = ", ".join(f"[{d.type}](#{kind}-{d.type})" for d in found if d.kind == kind)
        lines.append(f"- {title}: {named}")
    for kind, title in TITLES.items():
        lines += ["", f"## {title}"]
        for each in found:
            if each.kind == kind:
                lines += section(each)
    return "\n".join(lines) + "\n"


def section(operator: Description) -> list[str]:
    rows = [f"| {_cell(a.name)} | {_type(a)} | {_default(a)} | {_cell(a.description)} |" for a in operator.attributes]
    return [
        "",
        f"### {operator.kind} {operator.type}",
        "",
        operator.text,
        "",
        "| attribute | type | default | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
        "```xml",
        operator.example,
        "```",
    ]


def _type(attribute: Attribute) -> str:
    choices = ", ".join(f"`{c}`" for c in attribute.choices)
    text = ", or the element's text" if attribute.is_text else ""
    return _cell(f"{attribute.type} {choices}".strip() + text)


def _default(attribute: Attribute) -> str:
    if attribute.required:
        return "**required**"
    return _cell(f"`{attribute.default}`") if attribute.default else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    for path, text in generated().items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()

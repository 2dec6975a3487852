"""schemas/flow.json and schemas/flow.xsd, made from the installed operators.

They serve canvases and editors; the semantic pass stays the authority. An XSD can only give each kind of step the
union of all attributes; the JSON Schema tells them apart by `type`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from penstock.flow.checks.nodes import ATTRIBUTES
from penstock.flow.json_form import VERSION
from penstock.flow.values import PARAM_TYPES
from penstock.flow.xml import FLOW, STEP_KINDS
from penstock.operators.describe import Attribute, Description, descriptions

_NAME = "[A-Za-z_][A-Za-z0-9_]*"


# --- JSON Schema --------------------------------------------------------------------------------------------


def json_schema() -> str:
    """The schema of the canvas form: one shape of `attrs` an operator."""
    found = list(descriptions())
    steps = [_step_rule(each) for each in found]
    scalar = {"type": ["string", "number", "boolean"]}
    value = {"anyOf": [scalar, {"type": "array", "items": scalar}]}
    comments = {"type": "array", "items": {"type": "string"}}
    coordinate = {"type": ["number", "string"]}
    settings = {
        "anyOf": [
            {"type": "object", "additionalProperties": scalar},
            {
                "type": "array",
                "items": _object(
                    {"name": {"type": "string"}, "key": {"type": "string"}, "value": scalar, "comments": comments},
                    ["value"],
                ),
            },
        ]
    }
    param = {
        "name": {"type": "string", "pattern": f"^{_NAME}$"},
        "type": {"enum": [*PARAM_TYPES]},
        "default": scalar,
        "description": {"type": "string"},
        "comments": comments,
    }
    step = {
        "kind": {"enum": [*STEP_KINDS]},
        "name": {"type": "string", "pattern": f"^{_NAME}$"},
        "type": {"type": "string"},
        "class": {"type": "string", "pattern": "^[^:]+:[^:]+$"},
        "attrs": {"type": "object", "additionalProperties": value},
        "text": {"type": "string"},
        "x": coordinate,
        "y": coordinate,
        "comments": comments,
    }
    argument = {"anyOf": [scalar, _object({"text": scalar, "comments": comments}, ["text"])]}
    node = {
        "name": {"type": "string", "pattern": f"^{_NAME}$"},
        "engine": {"type": "string"},
        "after": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "attrs": {"type": "object", "properties": dict.fromkeys(ATTRIBUTES, scalar), "additionalProperties": False},
        "conf": settings,
        "env": settings,
        "args": {"type": "array", "items": argument},
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
        "x": coordinate,
        "y": coordinate,
        "comments": comments,
        "last_comments": comments,
    }
    flow = {
        "penstock": {"const": VERSION},
        "name": {"type": "string", "pattern": f"^{_NAME}$"},
        "description": {"type": "string"},
        "params": {"type": "array", "items": _object(param, ["name"])},
        "nodes": {"type": "array", "items": _object(node, ["name"])},
        "comments": comments,
        "last_comments": comments,
        "after_comments": comments,
    }
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": FLOW,
        "title": "A penstock flow, in the form a canvas keeps",
        **_object(flow, ["penstock", "name", "nodes"]),
        "$defs": {"step": {**_object(step, ["kind", "name"]), "allOf": steps}},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _step_rule(operator: Description) -> dict[str, Any]:
    """If a step is of this kind and type, its attributes are these; where it reads a node, only from and columns."""
    attributes = {a.name: _value(a) for a in operator.attributes}
    required = [a.name for a in operator.attributes if a.required and not a.is_text]
    fits = {"type": "object", "properties": attributes, "required": required, "additionalProperties": False}
    return {
        "if": {
            "properties": {"kind": {"const": operator.kind}, "type": {"const": operator.type}},
            "required": ["type"],
        },
        "then": {"properties": {"attrs": fits}, **({"required": ["attrs"]} if required else {})},
    }


def _value(attribute: Attribute) -> dict[str, Any]:
    """A `${...}` may stand anywhere, so types and choices are told, not enforced."""
    found: dict[str, Any] = {"title": attribute.type, "description": attribute.description}
    if attribute.default:
        found["default"] = attribute.default
    if attribute.choices:
        found["examples"] = [*attribute.choices]
    return found


# --- XSD ----------------------------------------------------------------------------------------------------


def xsd_schema() -> str:
    """The XSD: elements, and for each kind of step the union of its operators' attributes."""
    found = list(descriptions())
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<!-- For editors, made from the installed operators. The authority is `penstock flow check`. -->",
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="urn:penstock:flow:1"',
        f'           targetNamespace="{FLOW}" elementFormDefault="qualified">',
        *_element("flow", ["param", "node"], [("name", True, "", ()), ("description", False, "", ())]),
        *_element(
            "param",
            [],
            [
                ("name", True, "", ()),
                ("type", False, "what it may be", PARAM_TYPES),
                ("default", False, "without one, it must be given", ()),
                ("description", False, "", ()),
            ],
        ),
        *_element(
            "node",
            ["conf", "env", "arg", *STEP_KINDS],
            [
                ("name", True, "", ()),
                ("engine", False, "what computes", ("local", "command")),
                *((a, False, "", ()) for a in ATTRIBUTES),
            ],
            canvas=True,
        ),
        *_element("conf", [], [("key", True, "", ()), ("value", True, "", ())]),
        *_element("env", [], [("name", True, "", ()), ("value", True, "", ())]),
        '  <xs:element name="arg" type="xs:string"/>',
    ]
    for kind in STEP_KINDS:
        operators = [d for d in found if d.kind == kind]
        own = [("name", True, "", ()), ("type", False, "the built-in operator", tuple(d.type for d in operators))]
        own += [("class", False, "the user's own: package.module:Class", ())]
        own += [("from", False, "NODE.OUTPUT", ())] if kind == "input" else []
        lines += _element(kind, [], [*own, *_union(operators)], canvas=True, text=True)
    return "\n".join([*lines, "</xs:schema>"]) + "\n"


#: An attribute: name, whether it must be there, what it means, what it may be (if that is a list).
Row = tuple[str, bool, str, tuple[str, ...]]


def _union(operators: Iterable[Description]) -> list[Row]:
    """Every attribute once, with what it means in each operator."""
    told: dict[str, list[tuple[str, Attribute]]] = {}
    for operator in operators:
        for attribute in operator.attributes:
            told.setdefault(attribute.name, []).append((operator.type, attribute))
    rows: list[Row] = []
    for name in sorted(told):
        meanings: dict[str, list[str]] = {}
        for type_, attribute in told[name]:
            meanings.setdefault(attribute.description, []).append(type_)
        text = "; ".join(f"{', '.join(types)}: {said}" for said, types in meanings.items() if said)
        choices = dict.fromkeys(choice for _, attribute in told[name] for choice in attribute.choices)
        listed = all(attribute.choices for _, attribute in told[name])
        rows.append((name, False, text, tuple(choices) if listed else ()))
    return rows


def _element(
    name: str, children: list[str], attributes: list[Row], canvas: bool = False, text: bool = False
) -> list[str]:
    mixed = ' mixed="true"' if text else ""
    lines = [f'  <xs:element name="{name}">', f"    <xs:complexType{mixed}>"]
    if children:
        lines.append('      <xs:choice minOccurs="0" maxOccurs="unbounded">')
        lines += [f'        <xs:element ref="{child}"/>' for child in children]
        lines.append("      </xs:choice>")
    for attribute, required, said, choices in attributes:
        head = f'      <xs:attribute name="{attribute}"' + (' use="required"' if required else "")
        body = []
        if said:
            body.append(f"        <xs:annotation><xs:documentation>{escape(said)}</xs:documentation></xs:annotation>")
        if choices:
            # The union with a plain string lets ${...} and plugins' types pass; editors still complete the choices.
            body += ["        <xs:simpleType><xs:union>", '          <xs:simpleType><xs:restriction base="xs:string">']
            body += [f"            <xs:enumeration value={quoteattr(choice)}/>" for choice in choices]
            body += ["          </xs:restriction></xs:simpleType>"]
            body += ['          <xs:simpleType><xs:restriction base="xs:string"/></xs:simpleType>']
            body += ["        </xs:union></xs:simpleType>"]
        else:
            head += ' type="xs:string"'
        lines += [f"{head}>", *body, "      </xs:attribute>"] if body else [f"{head}/>"]
    if canvas:
        lines.append('      <xs:anyAttribute namespace="##other" processContents="lax"/>')
    return [*lines, "    </xs:complexType>", "  </xs:element>"]

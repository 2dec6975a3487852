"""What an operator takes, told from its class: the one source of listings, reference pages and schema files."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock.operators.base import Form, Operator, Reference
from penstock.operators.catalog import installed, operator

KINDS = ("input", "process", "output")


@dataclass(frozen=True)
class Attribute:
    """One attribute as a flow writes it. `default` None: required. `choices`: all it may be, where that is a list."""

    name: str
    type: str
    default: str | None
    description: str
    choices: tuple[str, ...] = ()
    is_text: bool = False  # may stand as the element's text

    @property
    def required(self) -> bool:
        return self.default is None


@dataclass(frozen=True)
class Description:
    """One operator."""

    kind: str
    type: str
    text: str
    attributes: tuple[Attribute, ...]
    example: str
    engines: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first sentence."""
        return " ".join(self.text.partition("\n\n")[0].split())

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "type": self.type,
            "description": self.text,
            "engines": list(self.engines),
            "attributes": [
                {
                    "name": a.name,
                    "type": a.type,
                    "required": a.required,
                    "default": a.default,
                    "description": a.description,
                    "choices": list(a.choices),
                }
                for a in self.attributes
            ],
            "example": self.example,
        }


def describe(cls: type[Operator]) -> Description:
    """Everything a user may want to know of an operator."""
    return Description(
        kind=getattr(cls, "kind", "process"),
        type=cls.type,
        text=inspect.cleandoc(cls.__doc__ or ""),
        attributes=tuple(_attribute(cls, name, info) for name, info in cls.model_fields.items()),
        example=inspect.cleandoc(cls.example),
        engines=tuple(sorted(cls.engines)),
    )


def descriptions() -> Iterator[Description]:
    """All installed operators: inputs, processes, outputs, each by name."""
    for kind, type_ in sorted(installed(), key=lambda key: (KINDS.index(key[0]) if key[0] in KINDS else 9, key[1])):
        yield describe(operator(kind, type_))


def _attribute(cls: type[Operator], name: str, info: FieldInfo) -> Attribute:
    choices = tuple(_choices(info.annotation))
    default = None if info.is_required() else _shown(info.get_default(call_default_factory=True))
    is_text = name == cls.text_field
    return Attribute(info.alias or name, _type(info, choices), default, info.description or "", choices, is_text)


def _shown(value: Any) -> str:
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value))
    return str(value)


def _type(info: FieldInfo, choices: tuple[str, ...]) -> str:
    """In a reader's words, not Python's."""
    several = get_origin(info.annotation) is tuple
    for marker in info.metadata:
        if isinstance(marker, Reference):
            thing = {"frame": "step", "model": "model", "any": "step or model"}[marker.accepts]
            thing = f"{thing}s" if several else thing
            return f"{thing}, path or models:/" if marker.or_location else thing
        if isinstance(marker, Form):
            return {"path": "path", "column": "column", "names": "names", "sql": "SQL"}.get(marker.kind, marker.kind)
    if choices:
        return "one of"
    plain = _plain(info.annotation)
    return f"{plain}s" if several else plain


def _plain(annotation: Any) -> str:
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    for part in (annotation, *get_args(annotation)):
        if part in names:
            return names[part]
        for inner in get_args(part):
            if inner in names:
                return names[inner]
    return "text"


def _choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _choices(part)

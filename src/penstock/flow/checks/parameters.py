"""Pydantic's findings about typed parameters, said as a colleague would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from penstock.errors import did_you_mean


@dataclass(frozen=True)
class Wrong:
    """One parameter that is not right: its name as the user writes it, and what is wrong, to follow that name."""

    kind: Literal["unknown", "missing", "value"]
    attribute: str
    message: str = ""
    hint: str = ""


@cache
def attributes(model: type[BaseModel]) -> Mapping[str, str]:
    """The names a user writes -> the fields they fill."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def explain(error: ValidationError, model: type[BaseModel], given: Mapping[str, str]) -> list[Wrong]:
    """One `Wrong` a fault: a required parameter that was merely misspelt is the misspelling alone."""
    names = attributes(model)
    fields = {field: name for name, field in names.items()}
    unknown: list[Wrong] = []
    missing: list[Wrong] = []
    values: dict[str, Wrong] = {}
    for detail in error.errors(include_url=False):
        where = str(detail["loc"][0]) if detail["loc"] else ""
        attribute = fields.get(where, where)
        if detail["type"] == "extra_forbidden":
            free = [name for name in names if name not in given]
            hint = did_you_mean(attribute, free) or did_you_mean(attribute, names, f"it takes {_listed(names)}")
            unknown.append(Wrong("unknown", attribute, hint=hint))
        elif detail["type"] == "missing":
            said = model.model_fields[names[attribute]].description or ""
            missing.append(Wrong("missing", attribute, hint=f"{attribute}: {said}" if said else ""))
        elif attribute not in values:
            values[attribute] = _value(detail, attribute, model, names, given)
    meant = {wrong.hint for wrong in unknown}
    missing = [wrong for wrong in missing if f"did you mean '{wrong.attribute}'?" not in meant]
    return [*unknown, *missing, *values.values()]


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(names) if names else "no attributes"


def _value(
    detail: ErrorDetails, attribute: str, model: type[BaseModel], names: Mapping[str, str], given: Mapping[str, str]
) -> Wrong:
    shown = given.get(attribute, detail["input"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        choices = _choices(model, names.get(attribute, attribute))
        hint = did_you_mean(str(shown), choices, f"it is one of {', '.join(choices)}" if choices else "")
        return Wrong("value", attribute, f"is '{shown}', which it cannot be", hint)
    if not attribute:
        return Wrong("value", "", _said(detail))
    return Wrong("value", attribute, f"is '{shown}', {_expectation(kind, context, detail)}")


_EXPECTED = {
    "int_parsing": "not a whole number",
    "int_type": "not a whole number",
    "int_from_float": "not a whole number",
    "int_parsing_size": "a number that is too large",
    "float_parsing": "not a number",
    "float_type": "not a number",
    "finite_number": "not a finite number",
    "bool_parsing": "neither true nor false",
    "bool_type": "neither true nor false",
    "date_from_datetime_parsing": "not a date (YYYY-MM-DD)",
}
_BOUNDS = {
    "greater_than": ("gt", "but must be greater than"),
    "greater_than_equal": ("ge", "but must be at least"),
    "less_than": ("lt", "but must be less than"),
    "less_than_equal": ("le", "but must be at most"),
    "string_too_short": ("min_length", "but its length must be at least"),
    "string_too_long": ("max_length", "but its length must be at most"),
    "too_short": ("min_length", "but it needs at least this many:"),
    "too_long": ("max_length", "but it takes at most this many:"),
}


def _expectation(kind: str, context: Mapping[str, Any], detail: ErrorDetails) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {context[key]}"
    if kind == "string_pattern_mismatch":
        return f"which does not look like {context['pattern']}"
    return _said(detail)


def _said(detail: ErrorDetails) -> str:
    """What the operator's own validator says, without pydantic's prefix."""
    reason = detail.get("ctx", {}).get("error")
    return str(reason) if reason is not None else detail["msg"][:1].lower() + detail["msg"][1:]


def _choices(model: type[BaseModel], field: str) -> list[str]:
    found = model.model_fields.get(field)
    pending = [found.annotation] if found else []
    choices: list[str] = []
    while pending:
        annotation = pending.pop(0)
        if get_origin(annotation) is Literal:
            choices += [str(a) for a in get_args(annotation)]
        else:
            pending += get_args(annotation)
    return choices

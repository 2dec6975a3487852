"""What operators' checks say about columns: unknown ones, wrong types, names taken twice.

Each function is pure and returns every fault it finds; where a schema is open or a type unknown it stays silent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.data.schema import Info, Schema
from penstock.errors import did_you_mean
from penstock.operators.base import Fault

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s,"]+))\s*')


def frame(info: Info) -> Schema:
    """The schema of what arrives; a model has no columns (flow refuses it where a frame is meant)."""
    return info if isinstance(info, Schema) else Schema.unknown()


def unknown(names: Iterable[str], schema: Schema, field: str) -> list[Fault]:
    """OPER101 for each name that is not a column."""
    if schema.open:
        return []
    known = schema.names
    return [
        Fault(
            "OPER101",
            f"{field}: there is no column '{name}'",
            did_you_mean(name, known, f"the columns are {listed(known)}"),
        )
        for name in dict.fromkeys(names)
        if name not in schema
    ]


def typed(names: Iterable[str], schema: Schema, field: str, wanted: str) -> list[Fault]:
    """OPER102 for each known column whose type is not `wanted`: "number", "string", "ordered" or "hashable"."""
    found = []
    for name in dict.fromkeys(names):
        column = schema.get(name)
        if column is not None and column.type is not None and not is_a(column.type, wanted):
            said = f"{field}: column '{name}' is {column.type}, not {_WANTED[wanted]}"
            found.append(Fault("OPER102", said, _hint(column.type, wanted)))
    return found


_WANTED = {
    "number": "a number",
    "string": "a string",
    "ordered": "something that can be put in order",
    "hashable": "something that can be hashed",
    "time": "a date, timestamp, number or string",
}


def _hint(type_: pa.DataType, wanted: str) -> str:
    import pyarrow as pa

    if wanted == "number" and (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
        return "if it holds numbers, derive one with cast(... as float)"
    if wanted == "hashable" and pa.types.is_floating(type_):
        return "floats have no canonical bytes: name an integer, string, date or timestamp column"
    return ""


def is_a(type_: pa.DataType, wanted: str) -> bool:
    """Whether a column of this Arrow type can serve as `wanted`."""
    import pyarrow as pa

    t = pa.types
    if t.is_dictionary(type_):
        type_ = type_.value_type
    text = t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_)
    number = t.is_integer(type_) or t.is_floating(type_) or t.is_decimal(type_)
    if wanted == "number":
        return bool(number or t.is_null(type_))
    if wanted == "string":
        return bool(text or t.is_null(type_))
    temporal = t.is_date(type_) or t.is_timestamp(type_)
    if wanted == "time":
        return bool(temporal or text or t.is_integer(type_) or t.is_floating(type_) or t.is_null(type_))
    if wanted == "hashable":
        binary = t.is_binary(type_) or t.is_large_binary(type_)
        return bool(text or binary or temporal or t.is_integer(type_) or t.is_boolean(type_))
    return not (t.is_nested(type_) or t.is_null(type_))


def repeated(names: Iterable[str], field: str) -> list[Fault]:
    """OPER103 for each name that stands more than once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    return [Fault("OPER103", f"{field}: '{name}' is named twice", "give one of them another name") for name in twice]


def listed(names: Sequence[str], most: int = 8) -> str:
    """`a, b, c`; a long list ends in `and N more`."""
    if not names:
        return "none"
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def comma_list(text: str) -> tuple[list[tuple[str, str]], str]:
    """`a desc, "b c"` as [("a", "desc"), ("b c", "")]; the second value is what could not be read ("" = all was)."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text) or not found:
        match = _NAME.match(text, at)
        if match is None:
            return found, text[at:].strip() or text
        name = match[1].replace('""', '"') if match[1] is not None else match[2]
        end = text.find(",", match.end())
        end = len(text) if end < 0 else end
        found.append((name, text[match.end() : end].strip()))
        at = end + 1
    return found, ""


def same_roles(out: Iterable[str], schema: Schema) -> Mapping[str, str]:
    """The roles of the columns that kept their names."""
    return {name: column.role for name in out if (column := schema.get(name)) is not None and column.role}

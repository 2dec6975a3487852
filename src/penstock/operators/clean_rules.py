"""The little languages of `clean`: `fill="a=0, b='none'"` and `clip="price:0:1000"`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from penstock.data.schema import Column
from penstock.operators.base import Fault
from penstock.operators.column_checks import is_a

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_NAME = r'(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<name>[^\s,"=:]+))'
_FILL = re.compile(rf"\s*{_NAME}\s*=\s*(?:'(?P<text>(?:[^']|'')*)'|(?P<word>[^\s,']+))\s*(?:,|$)")
_CLIP = re.compile(rf"\s*{_NAME}\s*:(?P<low>[^:,\s]*):(?P<high>[^:,\s]*)\s*,?")

Value = bool | int | float | str


@dataclass(frozen=True)
class Fill:
    """What stands for null in a column; a date is the string it was written as."""

    column: str
    value: Value

    def value_for(self, dtype: pl.DataType) -> Value | date | datetime:
        """The value as the column's type holds it; the check has said that it can."""
        import polars as pl

        if isinstance(self.value, str) and dtype == pl.Date:
            return date.fromisoformat(self.value)
        if isinstance(self.value, str) and isinstance(dtype, pl.Datetime):
            return datetime.fromisoformat(self.value)
        return self.value


@dataclass(frozen=True)
class Clip:
    """A range; None where it is open."""

    column: str
    low: int | float | None
    high: int | float | None


def fills_of(text: str) -> tuple[list[Fill], list[Fault]]:
    found: list[Fill] = []
    at = 0
    while at < len(text.rstrip()):
        match = _FILL.match(text, at)
        if match is None:
            said = f"fill: '{text[at:].strip()}' is not NAME=VALUE"
            return found, [Fault("OPER104", said, "write fill=\"a=0, b='none'\": strings stand in single quotes")]
        name = _name(match)
        word = match["word"]
        value = match["text"].replace("''", "'") if word is None else _literal(word)
        if value is None:
            said = f"fill: '{word}' for column '{name}' is neither a number nor true nor false"
            return found, [Fault("OPER104", said, f"a string stands in single quotes: {name}='{word}'")]
        found.append(Fill(name, value))
        at = match.end()
    return found, []


def clips_of(text: str) -> tuple[list[Clip], list[Fault]]:
    found: list[Clip] = []
    at = 0
    while at < len(text.rstrip()):
        match = _CLIP.match(text, at)
        bounds = [_bound(match[side]) for side in ("low", "high")] if match else []
        if match is None or any(bound is False for bound in bounds):
            said = f"clip: '{(match[0] if match else text[at:]).strip()}' is not NAME:LOW:HIGH"
            return found, [Fault("OPER104", said, 'write clip="price:0:1000", or "price:0:" for a lower bound alone')]
        low, high = (None if bound is False else bound for bound in bounds)
        found.append(Clip(_name(match), low, high))
        at = match.end()
    return found, []


def fill_faults(fill: Fill, column: Column | None) -> list[Fault]:
    """OPER102 where the column's type cannot hold the value."""
    import pyarrow as pa

    if column is None or column.type is None or pa.types.is_null(column.type):
        return []
    type_, value = column.type, fill.value
    if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
        kind = date if pa.types.is_date(type_) else datetime
        try:
            fits = isinstance(value, str) and kind.fromisoformat(value) is not None
        except ValueError:
            fits = False
    elif pa.types.is_boolean(type_):
        fits = isinstance(value, bool)
    elif pa.types.is_integer(type_):
        fits = isinstance(value, int) and not isinstance(value, bool) and _holds(type_, value)
    elif is_a(type_, "number"):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str) and is_a(type_, "string")
    if fits:
        return []
    shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
    hint = "a date is written '2026-01-31'" if isinstance(value, str) and not is_a(type_, "number") else ""
    return [Fault("OPER102", f"fill: column '{column.name}' is {type_}, which cannot hold {shown}", hint)]


def clip_faults(clip: Clip, column: Column | None) -> list[Fault]:
    import pyarrow as pa

    if clip.low is not None and clip.high is not None and clip.low > clip.high:
        said = f"clip: the range of '{clip.column}' is empty: {clip.low} is more than {clip.high}"
        return [Fault("OPER104", said, "the lower bound comes first")]
    if column is None or column.type is None or not pa.types.is_integer(column.type):
        return []
    for bound in (clip.low, clip.high):
        if bound is not None and not (isinstance(bound, int) and _holds(column.type, bound)):
            said = f"clip: column '{column.name}' is {column.type}, which cannot hold {bound}"
            return [Fault("OPER102", said, "give whole bounds, or cast the column to float first")]
    return []


def _name(match: re.Match[str]) -> str:
    return match["quoted"].replace('""', '"') if match["quoted"] is not None else match["name"]


def _literal(word: str) -> Value | None:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    number = _bound(word)
    return None if number is False else number


def _bound(text: str) -> int | float | bool | None:
    """A number; None for an empty text, False for a text that is no number."""
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return False
    return number if math.isfinite(number) else False


def _holds(type_: pa.DataType, value: int) -> bool:
    import pyarrow as pa

    low = 0 if pa.types.is_unsigned_integer(type_) else -(2 ** (type_.bit_width - 1))
    return bool(low <= value < low + 2**type_.bit_width)

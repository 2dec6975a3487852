"""Reading the value of one attribute. Each reader takes the text and raises `ValueError` with what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PARTS = ("hour", "weekday", "day", "month", "hour_of_week")
UNITS = ("s", "ms", "us")
LARGEST_INDEX = (1 << 52) - 2


@dataclass(frozen=True)
class Parameter:
    """An attribute of a function. `values` says what may be written, for the docs and the XSD's annotations."""

    name: str
    read: Callable[[str], Any]
    values: str
    text: str
    required: bool = False
    default: str = ""
    code: str = "FEAT013"


@dataclass(frozen=True)
class Fit:
    """A value to be learnt from the data: what is learnt, and how."""

    kind: str  # "normalize", "quantile" or "dict"
    number: int = 0  # of quantiles, or the minimum count


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is not a finite number")
    return value


def positive(text: str) -> float:
    value = number(text)
    if value <= 0:
        raise ValueError(f"{text} is not greater than 0")
    return value


def whole(least: int, most: int = 1 << 31) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"'{text}' is not a whole number") from None
        if not least <= value <= most:
            raise ValueError(f"{text} is not between {least:,} and {most:,}")
        return value

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"'{text}' is not one of {', '.join(choices)}")
        return text

    return read


def flag(text: str) -> bool:
    return one_of("true", "false")(text) == "true"


def text(value: str) -> str:
    if not value:
        raise ValueError("it is empty")
    return value


def separator(value: str) -> str:
    return text({"\\t": "\t", "\\n": "\n"}.get(value, value))


def unknown_index(value: str) -> int | str:
    return value if value == "skip" else whole(0, LARGEST_INDEX)(value)


def time_zone(name: str) -> str:
    """A zone of the IANA database; the kernel resolves it again from its own copy."""
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"'{name}' is no time zone; write UTC or a name such as Europe/Rome") from None
    return name


def bounds(written: str) -> list[float] | Fit:
    """Ascending numbers, or `quantile:N`."""
    kind, colon, count = written.partition(":")
    if colon:
        if kind.strip() != "quantile":
            raise ValueError(f"'{written}' is neither a list of numbers nor quantile:N")
        return Fit("quantile", whole(2, 1_000_000)(count.strip()))
    found = [number(part) for part in written.replace(",", " ").split()]
    if not found:
        raise ValueError("there is no bound")
    for before, after in pairwise(found):
        if before == after:
            raise ValueError(f"{after:g} stands twice")
        if before > after:
            raise ValueError(f"{after:g} comes after {before:g}: bounds ascend")
    return [value + 0.0 for value in found]  # -0.0 becomes 0.0, so that equal plans have one fingerprint


def dictionary(written: str) -> str | Fit:
    """A dictionary's name, or `fit` / `fit:min_count=N`."""
    name, colon, options = written.partition(":")
    if name != "fit":
        return text(written)
    least = 1
    for option in options.replace(",", " ").split() if colon else ():
        key, _, value = option.partition("=")
        if key != "min_count":
            raise ValueError(f"'{key}' is no option of a fitted dictionary; write fit:min_count=5")
        least = whole(1)(value)
    return Fit("dict", least)

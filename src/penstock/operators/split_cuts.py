"""What a split's attributes say: its shares or dates, its ports, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

from penstock.operators.base import Fault
from penstock.operators.column_checks import repeated

if TYPE_CHECKING:
    import polars as pl


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}(:\d{2}(:\d{2}(\.\d{1,6})?)?)?)?")

#: The ports' names by the number of cuts.
DEFAULT_PORTS = {1: ("train", "test"), 2: ("train", "valid", "test")}


def dated(at: Sequence[str]) -> bool:
    """Whether the cuts are dates rather than shares."""
    return bool(at) and all(_DATE.fullmatch(text) for text in at)


def split_faults(by: str, column: str, at: Sequence[str], into: Sequence[str]) -> list[Fault]:
    """What is wrong with the attributes themselves."""
    faults = []
    if by in ("hash", "time") and not column:
        faults.append(Fault("OPER104", f"column: a split by {by} needs the column that decides"))
    if by in ("random", "order") and column:
        hint = 'write by="hash" to keep equal values together, by="time" to cut where the values say'
        faults.append(Fault("OPER104", f"column: a split by {by} looks at no column", hint))
    if not at:
        return [*faults, Fault("OPER104", "at: it holds no share", 'write at="0.8"')]
    if wrong := _at_faults(by, at):  # how many ports there should be is then anybody's guess
        return [*faults, *wrong]
    ports = into or DEFAULT_PORTS.get(len(at))
    if ports is None:
        said = f"into: {len(at)} cuts give {len(at) + 1} ports, which need names"
        faults.append(Fault("OPER104", said, 'write into="a b c d"'))
    elif len(ports) != len(at) + 1:
        said = f"into: {len(at)} cut{'s give' if len(at) > 1 else ' gives'} {len(at) + 1} ports, not {len(ports)}"
        faults.append(Fault("OPER104", said, "the last port takes the rest: name it, but give it no share"))
    faults += repeated(into, "into")
    faults += [
        Fault("OPER104", f"into: '{name}' is not a name", "letters, digits and _, not starting with a digit")
        for name in into
        if not (name.isidentifier() and name.isascii())
    ]
    return faults


def _at_faults(by: str, at: Sequence[str]) -> list[Fault]:
    if by == "time" and dated(at):
        try:
            moments = [datetime.fromisoformat(text) for text in at]
        except ValueError as error:
            return [Fault("OPER104", f"at: {error}", 'write a date as "2026-01-31"')]
        if any(a >= b for a, b in pairwise(moments)):
            return [Fault("OPER104", "at: the dates are out of order", "the earliest comes first")]
        return []
    shares = []
    for text in at:
        try:
            shares.append(Fraction(text))
        except (ValueError, ZeroDivisionError):
            wanted = "a share or a date" if by == "time" else "a share"
            return [Fault("OPER104", f"at: '{text}' is not {wanted}", 'write at="0.8"')]
    if any(not 0 < share < 1 for share in shares):
        return [Fault("OPER104", "at: shares lie between 0 and 1", 'write at="0.8"')]
    if sum(shares) >= 1:
        hint = "the last port takes the rest: leave its share away"
        return [Fault("OPER104", f"at: the shares add up to {float(sum(shares)):g}, so nothing is left", hint)]
    return []


def cumulative(at: Sequence[str]) -> list[Fraction]:
    """Exact sums of the shares as written: 0.7 + 0.1 is 0.8."""
    return [sum((Fraction(text) for text in at[: i + 1]), Fraction(0)) for i in range(len(at))]


def bound(share: Fraction) -> int:
    """hash < bound(share) says exactly hash / 2^64 < share."""
    return min(ceil(share * 2**64), 2**64 - 1)


def moment(text: str, dtype: pl.DataType) -> pl.Expr:
    """A date of `at` as a literal that the column can be compared with; times without a zone are UTC."""
    import polars as pl

    if not dtype.is_temporal():
        return pl.lit(text, dtype=pl.String)
    at = datetime.fromisoformat(text)
    if dtype == pl.Date:
        up = at.date() if at.time() == time() else at.date() + timedelta(days=1)
        return pl.lit(up, dtype=pl.Date)  # day < 2026-01-01T12 says day < 2026-01-02
    zone = getattr(dtype, "time_zone", None)
    literal = pl.lit(at, dtype=pl.Datetime("us"))
    literal = literal.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else literal
    return literal.cast(dtype)

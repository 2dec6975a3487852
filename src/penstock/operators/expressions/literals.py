"""Dates and timestamps as text: the one definition of how they are written."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

#: Rust and Python read these alike; they are also what a cast from string accepts.
DATE_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
TIMESTAMP_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?$"
)
EPOCH = datetime(1970, 1, 1)


def date_literal(text: str) -> date | None:
    """YYYY-MM-DD, or None."""
    if not re.match(DATE_PATTERN, text) or text.endswith("\n"):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def timestamp_literal(text: str) -> datetime | None:
    """YYYY-MM-DD[ HH:MM[:SS[.f]][Z|+HH:MM]] (a T for the space too) as naive UTC, cut to microseconds; or None."""
    if not re.match(TIMESTAMP_PATTERN, text) or text.endswith("\n"):
        return None
    offset = re.search(r"([+-])([0-9]{2}):([0-9]{2})$", text[10:])
    shift = timedelta()
    if offset:
        text = text[: -len(offset.group())]
        shift = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (-1 if offset[1] == "-" else 1)
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        found = datetime.fromisoformat(whole)
        return found + timedelta(microseconds=int(fraction[:6].ljust(6, "0"))) - shift
    except (ValueError, OverflowError):
        return None

"""Lists of names as attributes write them: `user_id, city "unit price"`.

Spaces or commas separate; a name that is no identifier stands in double quotes, in which `""` is one quote.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PART = re.compile(r'[\s,]*(?:(?P<quoted>"(?:[^"]|"")*")(?P<rest>[^\s,"]*)|(?P<plain>[^\s,"][^\s,]*)|(?P<open>"))')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Part(NamedTuple):
    """One part of a list: the name, whether it stood in quotes, and what followed the closing one (`"a b":int`)."""

    name: str
    quoted: bool
    rest: str


def parts(text: str) -> list[Part]:
    """The parts of a list. Raises ValueError on a quote that is never closed."""
    found, at = [], 0
    while match := _PART.match(text, at):
        if match["open"]:
            raise ValueError(f"the quote in {text[match.start('open') :][:40]} is never closed")
        quoted = match["quoted"] is not None
        found.append(Part(unquoted(match["quoted"]) if quoted else match["plain"], quoted, match["rest"] or ""))
        at = match.end()
    return found


def split_names(text: str) -> tuple[str, ...]:
    """The names of a list. Raises ValueError on a quote that is never closed or runs into the next name."""
    found = parts(text)
    for name, _, rest in found:
        if rest:
            raise ValueError(f"'{rest}' follows the closing quote of \"{name}\": put a space or a comma between")
    return tuple(part.name for part in found)


def unquoted(text: str) -> str:
    """A single name: as it stands, or out of its double quotes."""
    return text[1:-1].replace('""', '"') if _QUOTED.fullmatch(text) else text


def spelled(name: str) -> str:
    """A name as attributes and expressions write it: bare where it can be, else in double quotes."""
    return name if name.isidentifier() else '"' + name.replace('"', '""') + '"'

"""On which line of a TOML file a key stands; `tomllib` gives values alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def lines_of(text: str) -> dict[Path, int]:
    """Key paths to line numbers, for a document that `tomllib` has read. Array tables count: ("tokens", 0, "name")."""
    found: dict[Path, int] = {}
    table: Path = ()
    counted: dict[Path, int] = {}
    for number, statement in _statements(text):
        inside = tomllib.loads(statement)
        stripped = statement.lstrip()
        if stripped.startswith("[["):
            plain = next(_leaves(inside, arrays=False))
            at = counted[plain] = counted.get(plain, -1) + 1
            table = (*plain, at)
            found[table] = number
            found.setdefault(plain, number)
        elif stripped.startswith("["):
            table = next(_leaves(inside, arrays=False))
            _note(found, table, number)
        else:
            for path in _leaves(inside):
                _note(found, (*table, *path), number)
    return found


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a key, or of the nearest table around it; 0 for the file as a whole."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 0


def _note(found: dict[Path, int], path: Path, number: int) -> None:
    for length in range(1, len(path) + 1):
        found.setdefault(path[:length], number)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header or assignment with its first line; one that spans lines is whole once it can be read."""
    start, held = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not held and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start, held = (start, f"{held}\n{line}") if held else (number, line)
        try:
            tomllib.loads(held)
        except tomllib.TOMLDecodeError:
            continue
        yield start, held
        held = ""


def _leaves(value: Any, arrays: bool = True) -> Iterator[Path]:
    """Paths to what is no table, or to empty tables."""
    if isinstance(value, list) and not arrays and value:
        value = value[-1]
    if not isinstance(value, dict) or not value:
        yield ()
        return
    for key, inner in value.items():
        for path in _leaves(inner, arrays):
            yield (key, *path)

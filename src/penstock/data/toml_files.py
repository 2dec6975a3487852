"""TOML files as frozen settings: read once, checked by a Pydantic model, every problem with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.data.toml_lines import line_of, lines_of
from penstock.errors import Problem, ProblemsFound, did_you_mean

MOST_BYTES = 4 << 20
Location = tuple[str | int, ...]


class Part(BaseModel):
    """A table of such a file: nothing unknown in it, nothing of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=Part)


@dataclass(frozen=True)
class Codes:
    """The error codes of one kind of file, and the page that shows one."""

    unreadable: str
    unknown: str
    wrong: str
    missing: str
    page: str


@dataclass(frozen=True)
class TomlFile(Generic[M]):
    """A file that was read. `values`: as TOML gave them. Relative paths in it start at its folder."""

    path: Path
    document: M
    lines: Mapping[Location, int]
    values: Mapping[str, Any] = field(repr=False)

    def at(self, given: str) -> Path:
        return (self.path.parent / Path(given).expanduser()).absolute()

    def address(self, given: str) -> str:
        """A topic's address: the path of a `log:` starts at the file's folder."""
        if not given.startswith("log:"):
            return given
        path, mark, options = given.removeprefix("log:").partition("?")
        return f"log:{self.at(path)}{mark}{options}"

    def problem(self, path: Location, code: str, message: str, hint: str = "") -> Problem:
        return Problem(str(self.path), line_of(dict(self.lines), path), code, message, hint)


def read(path: Path, kind: type[M], codes: Codes) -> TomlFile[M]:
    """Read a file as a `kind`. Raises `ProblemsFound` with everything that is wrong with it."""
    path = path.absolute()
    try:
        data = path.read_bytes()
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has {len(data):,} bytes")
        text = data.decode()
        values = tomllib.loads(text)
    except (OSError, ValueError) as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else 0
        said = error.strerror if isinstance(error, OSError) else str(error)
        hint = f"{codes.page} shows one"
        raise ProblemsFound([Problem(str(path), line, codes.unreadable, f"it cannot be read: {said}", hint)]) from None
    lines = lines_of(text)
    try:
        document = kind.model_validate(values)
    except ValidationError as error:
        faults = {_place(fault["loc"]): fault for fault in error.errors()}
        raise ProblemsFound(
            Problem(str(path), line_of(dict(lines), at), *_told(kind, at, fault, codes)) for at, fault in faults.items()
        ) from None
    return TomlFile(path, document, lines, values)


def _place(location: Location) -> Location:
    """Where a fault is; a value that may be of two types has two faults in one place."""
    last = location[-1] if location else ""
    return location[:-1] if isinstance(last, str) and (last == "float" or last.startswith("literal[")) else location


def _told(kind: type[Part], at: Location, fault: Any, codes: Codes) -> tuple[str, str, str]:
    """Code, message, hint."""
    dotted = ".".join(str(step) for step in at)
    if fault["type"] == "extra_forbidden":
        known = sorted(_names(_part(kind, at[:-1])))
        hint = did_you_mean(str(at[-1]), known, f"known here: {', '.join(known)}" if known else "")
        return codes.unknown, f"'{dotted}' is no setting", hint
    if fault["type"] in ("missing", "too_short"):
        return codes.missing, f"'{dotted}' is missing", f"{codes.page} says what it is"
    said = fault["msg"].removeprefix("Value error, ")
    shown = f"{dotted} = {fault['input']!r}: " if dotted else ""
    return codes.wrong, f"{shown}{said[:1].lower()}{said[1:]}", ""


def _names(part: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in part.model_fields.items()] if part else []


def _part(kind: type[BaseModel], at: Location) -> type[BaseModel] | None:
    """The table at a place of the file; None where no table of settings is there."""
    found: Any = kind
    for step in at:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = next((f for name, f in found.model_fields.items() if step in (name, f.alias)), None)
            found = _inner(field.annotation) if field else None
        elif get_origin(found) in (Mapping, tuple):  # a name, or a place
            found = _inner(get_args(found)[1 if get_origin(found) is Mapping else 0])
        else:
            found = None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _inner(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(each for each in get_args(annotation) if each is not NoneType)
    return annotation

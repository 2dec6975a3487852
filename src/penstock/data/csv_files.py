"""CSV: what a flow says of its columns, what the first rows say, and the frame of them all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock import native
from penstock.data.names import parts
from penstock.data.paths import File, matching
from penstock.data.text_files import SAMPLE_ROWS, NativeFile, NativeReader, Rejecting, native_file, sentence, text_frame
from penstock.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

ARROW_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "uint": pa.uint64(),
}
#: The types a flow may name.
KINDS = ("int", "float", "str", "bool", "date", "timestamp")

_RANGE = re.compile(r"(.*?)(\d+)\.\.(.*?)(\d+)")


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written. `names` None: the header names the columns."""

    sep: str = ","
    quote: str = '"'
    header: bool = True
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None

    def native(self) -> dict[str, Any]:
        """The same for the reader in Rust."""
        return {
            "sep": ord(self.sep),
            "quote": ord(self.quote) if self.quote else None,
            "header": self.header,
            "encoding": self.encoding,
            "nulls": [list(null.encode()) for null in self.nulls],
            "names": None if self.names is None else list(self.names),
        }


#: (column or glob, type), as `types=` lists them.
Types = tuple[tuple[str, str], ...]


def separator(text: str) -> str:
    """The character that `sep` spells: itself, `\\t`, or `\\x01`. Raises ValueError where it is none."""
    text = "\t" if text == "\\t" else re.sub(r"^\\x([0-9a-fA-F]{2})$", lambda m: chr(int(m[1], 16)), text)
    if len(text) != 1 or ord(text) > 127 or text in "\r\n":
        raise ValueError("it is one ASCII character, \\t for a tab")
    return text


def spelled(sep: str) -> str:
    """A separator as an attribute spells it."""
    return "\\t" if sep == "\t" else sep if sep.isprintable() else f"\\x{ord(sep):02x}"


def expand_names(text: str) -> tuple[str, ...]:
    """`label I1..I3` -> label I1 I2 I3. Raises ValueError on a range that is none, or a name twice."""
    names: list[str] = []
    for part, quoted, rest in parts(text):
        if rest:
            raise ValueError(f"'{rest}' follows the closing quote of \"{part}\": put a space or a comma between")
        if quoted or ".." not in part:
            names.append(part)
            continue
        match = _RANGE.fullmatch(part)
        if match is None or match[1] != match[3] or int(match[2]) > int(match[4]):
            raise ValueError(f"'{part}' is not a range of names such as I1..I13")
        width = len(match[2]) if match[2].startswith("0") else 0
        names += [f"{match[1]}{number:0{width}}" for number in range(int(match[2]), int(match[4]) + 1)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"column '{name}' is named twice")
    return tuple(names)


def parse_types(text: str) -> Types:
    """`label:int I*:float`. Raises ValueError on a type that does not exist."""
    types = []
    for written, quoted, rest in parts(text):
        part = written + rest
        name, colon, kind = (written, rest[:1], rest[1:]) if quoted else written.rpartition(":")
        if not colon or not name:
            raise ValueError(f"'{part}' is not of the form column:type")
        if kind not in KINDS:
            raise ValueError(
                f"there is no type '{kind}' ({did_you_mean(kind, KINDS, 'types are ' + ', '.join(KINDS))})"
            )
        types.append((name, kind))
    return tuple(types)


def given_type(name: str, types: Types) -> str | None:
    """What `types` says of a column: its own name first, then the first glob that matches."""
    for pattern, kind in types:
        if pattern == name:
            return kind
    return next((kind for pattern, kind in types if matching(pattern, [name])), None)


def unknown_types(names: Sequence[str], types: Types) -> list[str]:
    """Entries of `types` that are meant for no column: a slip of the pen, most likely."""
    return [pattern for pattern, _ in types if not matching(pattern, names) and pattern not in names]


def columns(files: Sequence[File], dialect: Dialect, types: Types) -> list[tuple[str, str]]:
    """Names and types of the columns: what `types` says, else what the first rows of the first file (not empty) say.

    Raises `DataError` where that file cannot be read, has no columns, or names one twice.
    """
    first = first_with_rows(files)
    mtime = 0 if first.remote else Path(first.url).stat().st_mtime_ns
    sampled = _sample(first, dialect, mtime)
    if not sampled:
        hint = 'say names="..." to read an empty file with no rows'
        raise DataError(f"{first.url} is empty: there is no header to name its columns", hint, "DATA009")
    if any("\0" in name for name, _ in sampled):
        said = f"{first.url}:1: a column's name holds a NUL byte"
        raise DataError(said, "is it a CSV at all? look at its first bytes", "DATA009")
    return [(name, given_type(name, types) or kind) for name, kind in sampled]


def first_with_rows(files: Sequence[File]) -> File:
    """The first file that is not empty: a writer may leave parts without a byte."""
    return next((file for file in files if file.size_bytes), files[0])


@lru_cache(1024)
def _sample(file: File, dialect: Dialect, mtime_ns: int) -> list[tuple[str, str]]:
    try:
        sampled: list[tuple[str, str]] = native.csv_sample(native_file(file), dialect.native(), SAMPLE_ROWS)
    except ValueError as error:
        raise sentence(error, [file]) from error
    return sampled


def arrow_schema(columns: Sequence[tuple[str, str]]) -> pa.Schema:
    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in columns])


def scan(files: Sequence[File], dialect: Dialect, types: Types, rejecting: Rejecting, threads: int) -> pl.LazyFrame:
    """All rows of the files, in order; the columns are the first file's."""
    known = columns(files, dialect, types)

    def start(opened: list[NativeFile], wanted: list[bool]) -> NativeReader:
        reader: NativeReader = native.csv_reader(opened, dialect.native(), known, wanted, rejecting.on_error, threads)
        return reader

    return text_frame(files, arrow_schema(known), start, rejecting, "csv")

"""Names in a feature file: what each means where it stands, and what is repeated, missing or never used."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from penstock.data.schema import Schema
from penstock.errors import did_you_mean
from penstock.features.model import FeatureFile, Item
from penstock.features.types import UNKNOWN, ValueType, of_arrow
from penstock.operators.base import Fault

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WRITTEN = re.compile(r'[\s,]*(?:"((?:[^"]|"")*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Source:
    """Where an input comes from: a raw column, or the item of that index."""

    column: str = ""
    item: int = -1

    def as_json(self) -> dict[str, str | int]:
        return {"column": self.column} if self.item < 0 else {"item": self.item}


@dataclass(frozen=True)
class Named:
    """A declared item, with the type of its value."""

    item: Item
    type: ValueType
    weighted: bool = False


def split(written: str) -> tuple[str, ...]:
    """Names separated by spaces or commas; one that is no identifier stands in double quotes."""
    found, at = [], 0
    written = written.strip(" \t\r\n,")
    while at < len(written):
        match = _WRITTEN.match(written, at)
        if match is None:
            raise ValueError(f"the quote at character {at + 1} is not closed")
        found.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        at = match.end()
    return tuple(found)


class Scope:
    """What names mean at one place of the file: the items declared so far, else the raw columns."""

    def __init__(self, file: FeatureFile, schema: Schema) -> None:
        self.file = file
        self.schema = schema
        self.declared: dict[str, tuple[int, Named]] = {}
        self.used: set[str] = set()
        self._count = 0

    def declare(self, named: Named) -> None:
        # The first of a repeated name keeps it: the repetition is a fault already.
        self.declared.setdefault(named.item.name, (self._count, named))
        self._count += 1

    def source(self, name: str) -> Source:
        if name in self.declared:
            self.used.add(name)
            return Source(item=self.declared[name][0])
        return Source(column=name)

    def is_slot(self, name: str) -> bool:
        return name in self.declared and self.declared[name][1].item.kind == "slot"

    def weighted(self, name: str) -> bool:
        return name in self.declared and self.declared[name][1].weighted

    def type(self, name: str) -> ValueType:
        if name in self.declared:
            return self.declared[name][1].type
        column = self.schema.get(name)
        return of_arrow(column.type) if column else UNKNOWN

    def missing(self, name: str, by: Item) -> Iterator[Fault]:
        """A name that is neither declared earlier nor a raw column."""
        if name in self.declared or name in self.schema:
            return
        where = {"file": self.file.shown, "line": by.line}
        later = next((i for i in self.file.items[self._count + 1 :] if i.name == name), None)
        if later is not None and not _reads_column(later, name):
            yield Fault(
                "FEAT009",
                f"{by.kind} '{by.name}' reads '{name}', which is declared later, on line {later.line}",
                "a name means what stands above it: move that element up",
                **where,  # type: ignore[arg-type]
            )
        elif not self.schema.open:
            known = [*self.declared, *self.schema.names]
            hint = did_you_mean(name, known, f"the columns are: {', '.join(self.schema.names)}")
            message = f"{by.kind} '{by.name}' reads '{name}', which is neither a raw column nor declared above"
            yield Fault("FEAT010", message, hint, **where)  # type: ignore[arg-type]


def _reads_column(later: Item, name: str) -> bool:
    """Whether `later`, itself called `name`, reads the raw column `name`: then the column is meant everywhere above."""
    return bool(re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", _read_text(later)))


def _read_text(item: Item) -> str:
    return " ".join(item.attrs.get(key, "") for key in ("from", "expr", "weight"))


def repeated(file: FeatureFile) -> Iterator[Fault]:
    """Names and slot ids that stand twice, and names that are none."""
    lines: dict[str, int] = {}
    for item in file.items:
        yield from _one_name(file, f"{item.kind}", item.name, item.line, lines)
    lines = {}
    for dictionary in file.dictionaries:
        yield from _one_name(file, "dict", dictionary.name, dictionary.line, lines)
    ids: dict[str, Item] = {}
    for item in file.items:
        written = item.attrs.get("id", "").strip()
        if item.kind != "slot" or not written.isdecimal():
            continue
        first = ids.setdefault(str(int(written)), item)
        if first is not item:
            message = f"slot '{item.name}' has id {written}, as slot '{first.name}' on line {first.line} has"
            taken = {int(i.attrs["id"]) for i in file.items if i.attrs.get("id", "").strip().isdecimal()}
            free = next((i for i in range(1, 2048) if i not in taken), None)
            hint = f"ids are unique in a file; {free} is free" if free else "ids are unique in a file"
            yield Fault("FEAT007", message, hint, file=file.shown, line=item.line)


def taken_weights(file: FeatureFile, weighted: Collection[str]) -> Iterator[Fault]:
    """Outputs that are called as the weights of a slot are. `weighted`: the slots that have any."""
    columns = {f"{item.name}__weight": item for item in file.items if item.kind == "slot" and item.name in weighted}
    for item in file.items:
        slot = columns.get(item.name)
        if slot is None or item.kind == "define":
            continue
        message = f"{item.kind} '{item.name}' is called as the weights of slot '{slot.name}' on line {slot.line} are"
        yield Fault("FEAT008", message, "give one of the two another name", file=file.shown, line=item.line)


def _one_name(file: FeatureFile, kind: str, name: str, line: int, lines: dict[str, int]) -> Iterator[Fault]:
    if not name:
        return
    if not _NAME.fullmatch(name):
        hint = "names are letters, digits and _, and do not begin with a digit"
        yield Fault("FEAT008", f"'{name}' is no name for a {kind}", hint, file=file.shown, line=line)
    elif name in lines:
        message = f"{kind} '{name}' stands again: the name is taken on line {lines[name]}"
        yield Fault("FEAT008", message, "", file=file.shown, line=line)
    else:
        lines[name] = line


def dead(file: FeatureFile, used: set[str], dictionaries_used: set[str]) -> Iterator[Fault]:
    """Defines and dictionaries that nothing reads: a warning, because they do no harm."""
    for item in file.items:
        if item.kind == "define" and item.name and item.name not in used:
            message = f"define '{item.name}' is used by nothing"
            yield Fault("FEAT018", message, "delete it, or use it below", "warning", file.shown, item.line)
    for dictionary in file.dictionaries:
        if dictionary.name and dictionary.name not in dictionaries_used:
            message = f"dict '{dictionary.name}' is used by nothing"
            yield Fault("FEAT018", message, "delete it, or use it below", "warning", file.shown, dictionary.line)

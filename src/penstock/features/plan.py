"""The resolved plan: everything the kernel needs, nothing of where it came from.

A `Plan` is a document (the canonical JSON of which is fingerprinted) and the compiled dictionaries it names. It
travels as a folder, `features.plan` and `dictionaries/`, inside every model bundle; it never holds source code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa

from penstock import native
from penstock.data.frames import MappedBy, Source
from penstock.data.schema import Column, Schema
from penstock.errors import DataError, did_you_mean
from penstock.features import user_functions

if TYPE_CHECKING:
    import polars as pl

VERSION = "plan/1"
FILE = "features.plan"
DICTIONARIES = "dictionaries"

#: What mapped columns hold (in the plain form that checks compare).
KEYS = pa.list_(pa.uint64())
WEIGHTS = pa.list_(pa.float32())
DENSE = pa.float32()

Form = Literal["slots", "flat"]


class PlanError(DataError):
    """A plan that cannot be loaded or used as it is."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A feature plan, compiled on first use. Immutable, and safe to use from several threads.

    `document` is the resolved plan as JSON values; `dictionaries` maps each dictionary's name to its compiled file.
    """

    document: Mapping[str, Any]
    dictionaries: Mapping[str, Path]

    # --- what it is -----------------------------------------------------------------------------------------

    @cached_property
    def json(self) -> str:
        """The canonical JSON: keys sorted, no spaces, floats as short as they round-trip."""
        return json.dumps(self.document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hex. Two plans with one fingerprint map every row to the same bits."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """Defines, slots and denses in file order."""
        items: Sequence[Mapping[str, Any]] = self.document["items"]
        return items

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The raw columns it reads, in the order of first use."""
        found: dict[str, None] = {}
        for item in self.items:
            for source in (*item["from"], *([item["weight"]] if "weight" in item else [])):
                if "column" in source:
                    found[source["column"]] = None
        return tuple(found)

    @cached_property
    def slots(self) -> Mapping[str, int]:
        """Slot name -> slot id, in output order."""
        return {item["name"]: item["id"] for item in self.items if item["as"] == "slot"}

    @cached_property
    def weighted(self) -> tuple[str, ...]:
        """The slots that carry weights: their own, or those of the weighted slots that they cross."""
        found: set[int] = set()
        for index, item in enumerate(self.items):
            crosses = item["fn"] == "descartes" and any(source.get("item") in found for source in item["from"])
            if item["as"] == "slot" and ("weight" in item or crosses):
                found.add(index)
        return tuple(item["name"] for index, item in enumerate(self.items) if index in found)

    @cached_property
    def dense(self) -> tuple[str, ...]:
        """Dense names, in output order."""
        return tuple(item["name"] for item in self.items if item["as"] == "dense")

    def schema(self, keep: Iterable[Column] = (), form: Form = "slots") -> Schema:
        """The columns that `apply` gives: kept, slots (each with its weights), dense; with their roles."""
        kept = [Column(c.name, c.type, "kept") for c in keep]
        return Schema((*kept, *self._mapped(form)), plan=self.fingerprint)

    def _mapped(self, form: Form) -> Iterable[Column]:
        return mapped_columns(((name, name in self.weighted) for name in self.slots), self.dense, form)

    # --- what it does ---------------------------------------------------------------------------------------

    @cached_property
    def kernel(self) -> native.Plan:
        """The compiled plan. Raises `PlanError` where a dictionary or a user function is not what the plan says."""
        addresses = user_functions.addresses(self.document.get("functions", {}))
        opened = {name: _open(name, path, self.document["dicts"][name]) for name, path in self.dictionaries.items()}
        return native.Plan(self.json, opened, addresses)

    def apply(self, data: Any, keep: Sequence[str] = (), form: Form = "slots", threads: int = 0) -> Any:
        """Map a `pa.RecordBatch` or a `pl.DataFrame`; the result is of the kind that came. `threads=0`: every core.

        Raises `DataError` naming the row and the item where a row has no meaning under the plan.
        """
        self.require(data.schema.names if isinstance(data, pa.RecordBatch) else data.columns, keep)
        if isinstance(data, pa.RecordBatch):
            with _explained():
                return self.kernel.apply(data, list(keep), form, threads)
        features = self.map_frame(data, form, threads)
        return data.select(keep).hstack(features.get_columns()) if keep else features

    def map_frame(
        self, frame: pl.DataFrame, form: Form = "slots", threads: int = 0, first_row: int = 0
    ) -> pl.DataFrame:
        """The features of `frame`, without its own columns. `first_row` is the number of its first row in errors."""
        import polars as pl

        table = frame.select(self.columns).rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
        batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        if not self.columns:  # constants alone: the rows still count
            batches = [pa.RecordBatch.from_arrays([pa.nulls(frame.height)], names=[""])]
        with _explained(first_row):
            runs = [run for batch in batches for run in self.kernel.apply_in_runs(batch, form, threads)]
        return cast("pl.DataFrame", pl.from_arrow(pa.Table.from_batches(runs), rechunk=False))

    def map_source(self, source: Source, keep: Sequence[str], form: Form, threads: int) -> Iterator[pa.RecordBatch]:
        """The source's rows mapped as they are read: what `keep` names, then the features."""
        columns = tuple(dict.fromkeys((*keep, *self.columns)))
        mapped = source.map(columns, MappedBy(self.kernel, tuple(keep), form, threads))
        rows = 0
        while True:
            with _explained(rows):
                batch = next(mapped, None)
            if batch is None:
                return
            rows += batch.num_rows
            yield batch

    def require(self, columns: Iterable[str], keep: Iterable[str] = ()) -> None:
        """Raise `DataError` where a column the plan reads, or one to keep, is not there."""
        known = list(columns)
        missing = [name for name in dict.fromkeys((*self.columns, *keep)) if name not in known]
        if missing:
            hint = did_you_mean(missing[0], known, f"the columns are: {', '.join(known)}")
            listed = ", ".join(f"'{name}'" for name in missing)
            raise DataError(f"the feature plan '{self.name}' reads {listed}, not among the columns", hint, "FEAT028")

    def apply_row(
        self, row: Mapping[str, object]
    ) -> list[tuple[str, list[int] | None, list[float] | None, float | None]]:
        """Map one row: (name, keys, weights, dense) an output, in order. A column left out is null."""
        with _explained():
            keys, weights, dense = self.kernel.apply_row(dict(row))
        slots = [(name, keys[i], weights[i], None) for i, name in enumerate(self.slots)]
        return [*slots, *((name, None, None, number) for name, number in zip(self.dense, dense, strict=True))]

    def explain_row(self, row: Mapping[str, object]) -> list[tuple[str, int, str, float]]:
        """(slot, key, what the key stands for, weight) of one row, in output order."""
        with _explained():
            return list(self.kernel.explain_row(dict(row)))

    # --- how it travels -------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the plan into `folder` (created if absent): the document last, so that a torn folder does not load."""
        (folder / DICTIONARIES).mkdir(parents=True, exist_ok=True)
        for name, source in self.dictionaries.items():
            target = folder / DICTIONARIES / f"{name}.dict"
            if not target.exists() or not target.samefile(source):
                shutil.copyfile(source, target)
        (folder / FILE).write_text(self.json + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Plan:
        """Read a plan that `save` wrote. Raises `PlanError`; user functions are looked up on first use."""
        try:
            document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PlanError(f"there is no feature plan in {folder}", f"{FILE} is missing", "FEAT026") from None
        except (OSError, ValueError) as error:
            raise PlanError(f"the feature plan in {folder} cannot be read: {error}", code="FEAT026") from None
        if not isinstance(document, dict) or document.get("penstock") != VERSION:
            said = document.get("penstock") if isinstance(document, dict) else None
            hint = f"this Penstock reads {VERSION}, the file says {said!r}"
            raise PlanError(f"the feature plan in {folder} is of another version", hint, "FEAT026")
        dictionaries = {name: folder / DICTIONARIES / f"{name}.dict" for name in document.get("dicts", {})}
        for name, path in dictionaries.items():
            if not path.is_file():
                raise PlanError(f"the feature plan in {folder} lacks its dictionary '{name}'", f"{path}", "FEAT026")
        return Plan(document, dictionaries)


def mapped_columns(slots: Iterable[tuple[str, bool]], dense: Iterable[str], form: Form = "slots") -> list[Column]:
    """The output columns of (slot, is it weighted) and dense names, with types and roles."""
    if form == "flat":
        return [Column("keys", KEYS, "slot"), Column("weights", WEIGHTS, "slot"), Column("dense", WEIGHTS, "dense")]
    columns = []
    for name, weighted in slots:
        columns.append(Column(name, KEYS, "slot"))
        if weighted:
            columns.append(Column(f"{name}__weight", WEIGHTS, "slot"))
    return columns + [Column(name, DENSE, "dense") for name in dense]


@contextmanager
def _explained(first_row: int = 0) -> Iterator[None]:
    """The kernel's errors as a person reads them; rows count from 1."""
    try:
        yield
    except DataError:
        raise
    except native.RowError as error:
        raise DataError(f"row {first_row + error.row + 1:,}: '{error.item}' {error.reason}", code="FEAT025") from None
    except ValueError as error:
        raise DataError(f"the rows do not fit the feature plan: {error}", code="FEAT012") from None


def _open(name: str, path: Path, expected: Mapping[str, Any]) -> native.Dictionary:
    try:
        opened = native.Dictionary.open(str(path))
    except (OSError, ValueError) as error:
        raise PlanError(f"dictionary '{name}' cannot be opened: {error}", f"{path}", "FEAT026") from None
    if opened.sha256 != expected["sha256"]:
        raise PlanError(f"dictionary '{name}' is not the one the plan was made with", f"{path}", "FEAT026")
    return opened

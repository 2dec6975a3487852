"""Records as rows that a model learns from: read as JSON lines, mapped by the model's own plan, encoded; in batches.

What cannot be read or mapped is put aside with its offset and the reason, and the loop goes on.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock import native
from penstock.training.bundle import Bundle
from penstock.training.deep.batches import Rows
from penstock.training.live.places import BAD, SAMPLE, SKIPPED, Marks
from penstock.training.matrices import Encoder, Matrix
from penstock.training.online_scorer import scaled

Floats = npt.NDArray[np.float64]
#: What a sample says beside its features (the record of the sample topic).
OWN = {
    "_id": pa.string(), "_kind": pa.string(), "_time_ms": pa.int64(), "_emit_ms": pa.int64(),
    "_label": pa.float64(), "_weight": pa.float64(),
}  # fmt: skip
IMPRESSION = "impression"
#: Of a sample, and of a key in it. What is larger is a mistake, and one such step can leave a model beyond repair.
LARGEST_WEIGHT = 1e6
#: Of a record that is put aside; of the file that they are put into, which then only counts on; lines of a run's log.
SHOWN_BYTES, QUARANTINE_BYTES, LOGGED = 2_000, 64 << 20, 1_000
_log = logging.getLogger("penstock.online")


@dataclass(frozen=True)
class Chunk:
    """Samples in order, and the records that they came from. `rows` has their labels and signed weights, f32.

    impressions: bool [rows]; emit_ms: i64 [rows]; records: of which `rows.count` are samples.
    """

    rows: Rows
    impressions: npt.NDArray[np.bool_]
    emit_ms: npt.NDArray[np.int64]
    records: Marks

    def split(self, samples: int) -> tuple[Chunk, Chunk]:
        """The first `samples` with the records before the next one, and the rest."""
        through = self.records.through(samples)
        rest = self.rows.count - samples
        parts = ((slice(0, samples), samples, slice(0, through)), (slice(samples, None), rest, slice(through, None)))
        first, last = (
            Chunk(self.rows.slice(rows.start, count), self.impressions[rows], self.emit_ms[rows], self.records[records])
            for rows, count, records in parts
        )
        return first, last


@dataclass(frozen=True)
class Thinning:
    """The lag policy's: while samples are more than `most_s` behind, those whose id says so stay, weighing 1 / keep.

    An id's samples stay or go together: a correction is never learnt without what it corrects.
    """

    most_s: float
    keep: float


class Mapper:
    """Values of records in, `Chunk`s out. `types`: raw column -> type, learnt from the first rows where it is not
    known. Threads may not share one."""

    def __init__(
        self, bundle: Bundle, encoder: Encoder, means: Floats, scales: Floats, *, types: Mapping[str, str],
        threads: int, quarantine: Path | None, thinning: Thinning | None,
    ) -> None:  # fmt: skip
        self.bundle, self.encoder, self.means, self.scales = bundle, encoder, means, scales
        self.threads, self.quarantine, self.thinning = threads, quarantine, thinning
        self.types = {name: types.get(name) or bundle.types.get(name, "") for name in bundle.columns}
        self._logged = 0

    def chunk(self, marks: Marks, values: Sequence[bytes], now_ms: int) -> Chunk:
        """The samples among `values`, one for each of `marks`."""
        at = np.flatnonzero(marks.fates == SAMPLE)
        batch, bad = self._read([values[i] for i in at.tolist()])
        return self._encoded(batch, marks, at, bad, lambda i: values[i], now_ms)

    def rows(self, batch: pa.RecordBatch, marks: Marks) -> Chunk:
        """Rows that are read already: raw columns, and those of `OWN` that are there."""
        for name, type_ in OWN.items():
            there = batch.schema.get_field_index(name)
            column = batch.column(there).cast(type_) if there >= 0 else pa.nulls(batch.num_rows, type_)
            batch = batch.set_column(there, name, column) if there >= 0 else batch.append_column(name, column)
        bad = _faults(batch)
        batch = _all_but(batch, bad)
        return self._encoded(batch, marks, np.arange(len(marks)), bad, lambda i: b"", 0)

    def _encoded(
        self, batch: pa.RecordBatch, marks: Marks, at: npt.NDArray[np.intp], bad: Sequence[tuple[int, str]],
        value: Callable[[int], bytes], now_ms: int,
    ) -> Chunk:  # fmt: skip
        """`batch`: the rows of the records `at`, but for `bad` ones of these. `value`: what stands in a record."""
        fates = marks.fates.copy()

        def put_aside(there: npt.NDArray[np.intp], faults: Sequence[tuple[int, str]]) -> npt.NDArray[np.bool_]:
            """Of the records `there`; which stay."""
            stays = np.ones(len(there), bool)
            for row, reason in faults:
                stays[row] = False
                fates[there[row]] = BAD
                self._put_aside(marks, int(there[row]), value, reason)
            return stays

        held = at[put_aside(at, bad)]
        weights = self._thinned(batch, now_ms)
        kept = weights > 0
        fates[held[~kept]] = SKIPPED
        batch, weights, held = _of(batch, kept), weights[kept], held[kept]
        mapped, faults = self._mapped(batch)
        kept = put_aside(held, faults)
        batch, weights, held = _of(batch, kept), weights[kept], held[kept]
        matrix = self._matrix(mapped)
        kept = put_aside(held, _overweight(matrix))
        if not kept.all():
            batch, weights, matrix = _of(batch, kept), weights[kept], self._matrix(_of(mapped, kept))
        return self._chunk(batch, matrix, weights, Marks(marks.partitions, marks.offsets, marks.times_ms, fates))

    def _matrix(self, mapped: pa.RecordBatch) -> Matrix:
        return self.encoder.encode(mapped.select(list(self.encoder.layout.columns)))

    def _chunk(self, raw: pa.RecordBatch, matrix: Matrix, thinned: Floats, records: Marks) -> Chunk:
        numbers = scaled(matrix.numbers, self.means, self.scales)
        labels = _numbers(raw, "_label", np.nan)
        weights = (_numbers(raw, "_weight", 1.0) * thinned).astype(np.float32)
        times = _whole(raw, "_time_ms")
        rows = Rows(
            0, self.encoder, Matrix(matrix.rows, numbers, matrix.slots), labels.astype(np.float32), weights,
            times // 1000,
        )  # fmt: skip
        kinds = pc.equal(pc.fill_null(raw.column("_kind"), IMPRESSION), IMPRESSION).to_numpy(zero_copy_only=False)
        emitted = _whole(raw, "_emit_ms")
        own = records.times_ms[records.fates == SAMPLE]
        return Chunk(rows, kinds, np.where(emitted > 0, emitted, own), records)

    # --- reading ---

    def _read(self, values: Sequence[bytes]) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
        """Rows, and (place, reason) of those that are none."""
        lines = b"\n".join(values)
        if lines.count(b"\n") != len(values) - 1 or b"" in values:
            # A line break in JSON is but a space; an empty line would be no record at all.
            lines = b"\n".join(v.replace(b"\r", b" ").replace(b"\n", b" ") or b"?" for v in values)
        schema = self._schema(lines)
        batches, bad = [], []
        if values:
            # Hosts log a list as the client sent it: as JSON text.
            reader = native.json_reader(
                [_file(lines)], schema, [True] * len(schema), "drop", "utf-8", self.threads, lists_in_text=True
            )
            for _, batch, faults in reader:
                batches.append(batch)
                bad += [(line - 1, f"{column}: {why}" if column else why) for line, column, why, _ in faults]
        # Views of text, as the reader gives them, cannot be filtered.
        table = pa.Table.from_batches(batches).cast(schema) if batches else schema.empty_table()
        rows = table.combine_chunks().to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema)
        if rows.num_rows + len(bad) != len(values):
            raise RuntimeError(f"{len(values)} records were read as {rows.num_rows} rows and {len(bad)} bad ones")
        wrong = _faults(rows)
        if wrong:
            there = np.delete(np.arange(len(values)), [line for line, _ in bad])
            bad += [(int(there[row]), why) for row, why in wrong]
            rows = _all_but(rows, wrong)
        return rows, sorted(bad)

    def _schema(self, lines: bytes) -> pa.Schema:
        unknown = [name for name, type_ in self.types.items() if not type_]
        if unknown and lines:
            found = native.json_sample(_file(lines), "utf-8", 10_000)
            for name in unknown:
                at = found.get_field_index(name)
                if at >= 0:
                    self.types[name] = str(found.field(at).type)
        fields = {name: arrow_type(type_) for name, type_ in self.types.items()}
        return pa.schema([*fields.items(), *OWN.items()])

    def _thinned(self, batch: pa.RecordBatch, now_ms: int) -> Floats:
        """1 a row; where the policy says so, 0 for what is left out and 1 / keep for what stays."""
        weights = np.ones(batch.num_rows)
        if self.thinning is None or not batch.num_rows:
            return weights
        late = now_ms - _whole(batch, "_emit_ms") > self.thinning.most_s * 1000
        drawn = native.hash_column(batch.column("_id"), 0).to_numpy(zero_copy_only=False)
        stays = drawn.astype(np.float64) < self.thinning.keep * 2.0**64
        return np.where(late, np.where(stays, 1 / self.thinning.keep, 0.0), weights)

    # --- mapping ---

    def _mapped(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
        """The model's columns of the rows that have a meaning, and (row, reason) of the others."""
        plan = self.bundle.plan
        if plan is None or not batch.num_rows:
            mapped = batch if plan is None else plan.apply(batch, self.bundle.beside, self.bundle.form, self.threads)
            return mapped, []
        mapped, faults = plan.kernel.apply(
            batch, list(self.bundle.beside), self.bundle.form, self.threads, on_error="drop"
        )
        return mapped, [(row, f"'{item}' {why}") for row, item, why in faults]

    def _put_aside(self, marks: Marks, at: int, value: Callable[[int], bytes], reason: str) -> None:
        partition, offset = int(marks.partitions[at]), int(marks.offsets[at])
        self._logged += 1
        if self._logged <= LOGGED:
            more = "; more are not logged" if self._logged == LOGGED else ""
            _log.warning("record %d of partition %d is put aside: %s%s", offset, partition, reason, more)
        if self.quarantine is not None:
            text = value(at)[:SHOWN_BYTES].decode("utf-8", "replace")
            told = {"partition": partition, "offset": offset, "reason": reason, "record": text}
            with self.quarantine.open("a", encoding="utf-8") as file:
                if file.tell() < QUARANTINE_BYTES:
                    file.write(json.dumps(told, ensure_ascii=False) + "\n")


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that a signature names; text where it names none that JSON could hold."""
    found = re.fullmatch(r"(?:large_|fixed_size_)?list(?:_view)?<\w+: (.+?)(?: not null)?>(?:\[\d+\])?", text)
    if found:
        return pa.list_(arrow_type(found[1]))
    if text.startswith("timestamp["):
        return pa.timestamp("us")
    if text.startswith("decimal"):
        return pa.float64()
    try:
        type_ = pa.type_for_alias(text)
    except ValueError:
        return pa.string()
    if pa.types.is_integer(type_):
        return pa.uint64() if pa.types.is_uint64(type_) else pa.int64()
    if pa.types.is_floating(type_):
        return pa.float64()
    return type_ if pa.types.is_boolean(type_) or pa.types.is_date(type_) else pa.string()


def _file(lines: bytes) -> tuple[str, Any]:
    return "samples", lambda: io.BytesIO(lines)


def _of(batch: pa.RecordBatch, kept: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    return batch if kept.all() else batch.filter(pa.array(kept))


def _all_but(batch: pa.RecordBatch, faults: Sequence[tuple[int, str]]) -> pa.RecordBatch:
    kept = np.ones(batch.num_rows, bool)
    kept[[row for row, _ in faults]] = False
    return _of(batch, kept)


def _faults(rows: pa.RecordBatch) -> list[tuple[int, str]]:
    labels, weights = _numbers(rows, "_label", np.nan), _numbers(rows, "_weight", 1.0)
    wrong_label = ~((labels == 0) | (labels == 1))
    wrong_weight = ~wrong_label & ~(np.abs(weights) <= LARGEST_WEIGHT)
    found = [(int(row), f"_label: {labels[row]:g} is neither 0 nor 1") for row in np.flatnonzero(wrong_label)]
    said = f"is no weight (from -{LARGEST_WEIGHT:,.0f} to {LARGEST_WEIGHT:,.0f})"
    return found + [(int(row), f"_weight: {weights[row]:g} {said}") for row in np.flatnonzero(wrong_weight)]


def _overweight(matrix: Matrix) -> list[tuple[int, str]]:
    """The rows in which a key weighs too much."""
    found: dict[int, str] = {}
    for keys in matrix.slots:
        if keys.values is not None:
            for place in np.flatnonzero(~(np.abs(keys.values) <= LARGEST_WEIGHT)):
                row = int(np.searchsorted(keys.offsets, place, side="right")) - 1
                found[row] = f"a key weighs {keys.values[place]:g}, more than {LARGEST_WEIGHT:,.0f}"
    return sorted(found.items())


def _numbers(rows: pa.RecordBatch, name: str, missing: float) -> Floats:
    return pc.fill_null(rows.column(name), missing).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _whole(rows: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    return pc.fill_null(rows.column(name), 0).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]

"""Files that are learnt from before the topic: Parquet with raw columns, or sample records as JSON lines.

They are one input with one partition, whose offsets count rows through the files in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.errors import DataError, RequestError
from penstock.training.live.places import SAMPLE, Marks
from penstock.training.live.samples import Chunk, Mapper
from penstock.training.live.settings import History

ROWS = 8_192


def files(pattern: str) -> list[Path]:
    """Raises `RequestError` (LIVE007) where there are none, or of both kinds."""
    found = sorted(Path(path) for path in glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207
    if not found:
        raise RequestError(f"history: there is no file {pattern}", "a file or a glob, beside the settings", "LIVE007")
    kinds = {path.suffix == ".parquet" for path in found}
    if len(kinds) > 1:
        raise RequestError(f"history: {pattern} names Parquet and other files", "name one kind", "LIVE007")
    return found


def chunks(history: History, pattern: str, mapper: Mapper, skip: int) -> Iterator[Chunk]:
    """The rows from number `skip` on."""
    at = 0
    for path in files(pattern):
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            if at + file.metadata.num_rows <= skip:
                at += file.metadata.num_rows
                continue
            for batch in file.iter_batches(ROWS):
                own = batch.slice(min(max(skip - at, 0), batch.num_rows))
                at += batch.num_rows
                if own.num_rows:
                    yield mapper.rows(_named(own, history, path), _marks(at - own.num_rows, own.num_rows))
            continue
        with path.open("rb") as lines:
            while values := [line.rstrip(b"\r\n") for line in islice(lines, ROWS)]:
                own_values = values[max(skip - at, 0) :]
                at += len(values)
                if own_values:
                    yield mapper.chunk(_marks(at - len(own_values), len(own_values)), own_values, 0)


def _named(batch: pa.RecordBatch, history: History, path: Path) -> pa.RecordBatch:
    names = {history.label: "_label", **({history.weight: "_weight"} if history.weight else {})}
    missing = [name for name in names if name not in batch.schema.names]
    if missing:
        hint = f"history.label and history.weight name columns; there are {', '.join(batch.schema.names[:20])}"
        raise DataError(f"{path}: there is no column '{missing[0]}'", hint, "LIVE007")
    for old, new in names.items():
        batch = batch.append_column(new, batch.column(old)) if new not in batch.schema.names else batch
    return batch


def _marks(first: int, rows: int) -> Marks:
    offsets = np.arange(first, first + rows, dtype=np.int64)
    return Marks(np.zeros(rows, np.int32), offsets, np.zeros(rows, np.int64), np.full(rows, SAMPLE, np.uint8))

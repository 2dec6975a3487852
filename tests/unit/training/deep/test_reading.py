"""Batches: the same ones from any row on, cut across what was read, in order or shuffled within blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from penstock.training.deep.batches import Rows
from penstock.training.deep.reading import Prefetched, Reading, seconds
from penstock.training.faults import LabelError
from penstock.training.inputs import Layout
from penstock.training.matrices import Encoder

ROWS = 1000


def frame(rows: int = ROWS) -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "id": np.arange(rows),
            "k": [[i, i + 1][: i % 3] for i in range(rows)],
            "x": np.arange(rows, dtype=np.float32),
            "label": np.arange(rows) % 2,
        },
        schema_overrides={"k": pl.List(pl.Int64)},
    )


def execute(size: int) -> Any:
    def run(given: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        for part in given.collect().iter_slices(size):
            yield from part.to_arrow().combine_chunks().to_batches()

    return run


def reading(size: int = 97, **options: Any) -> Reading:
    encoder = Encoder(Layout(numeric=("id", "x"), slots=(("k", ""),)))
    means, scales = np.zeros(2), np.ones(2)
    options.setdefault("batch", 64)
    # Numbers are clipped at 10: an id must come through whole.
    return Reading(options.pop("frame", frame()), execute(size), encoder, means, scales * ROWS, "label", **options)


def ids(batches: list[Rows]) -> list[int]:
    return [round(float(i) * ROWS) for rows in batches for i in rows.numbers[:, 0]]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_batches_are_of_one_size_however_the_rows_come(size: int) -> None:
    batches = list(reading(size).batches())
    assert [rows.count for rows in batches] == [64] * 15 + [40]
    assert [rows.first for rows in batches] == list(range(0, ROWS, 64))
    assert ids(batches) == list(range(ROWS))
    for rows in batches:
        bag = rows.bags["k"]
        assert bag.offsets[0] == 0 and bag.offsets[-1] == len(bag.keys)
        wanted = [key for i in range(rows.first, rows.first + rows.count) for key in [i, i + 1][: i % 3]]
        assert bag.keys.tolist() == wanted


@pytest.mark.parametrize("shuffle", [0, 128, 300])
@pytest.mark.parametrize("skip", [1, 64, 130, 640, 999])
def test_reading_on_from_any_row_gives_the_rest(shuffle: int, skip: int) -> None:
    whole = ids(list(reading(shuffle=shuffle).batches(2)))
    assert sorted(whole) == list(range(ROWS))
    assert ids(list(reading(shuffle=shuffle).batches(2, skip))) == whole[skip:]


def test_shuffling_stays_within_blocks_and_differs_between_epochs_and_seeds() -> None:
    first = ids(list(reading(shuffle=100).batches(1)))
    assert first != list(range(ROWS))
    assert all(set(first[at : at + 100]) == set(range(at, at + 100)) for at in range(0, ROWS, 100))
    assert first == ids(list(reading(13, shuffle=100).batches(1)))
    assert first != ids(list(reading(shuffle=100).batches(2)))
    assert first != ids(list(reading(shuffle=100, seed=1).batches(1)))


def test_labels_are_told_by_their_rows() -> None:
    wrong = frame().with_columns(label=pl.when(pl.col("id") == 700).then(3).otherwise(pl.col("label")))
    with pytest.raises(LabelError, match=r"3; labels are 0 and 1.*\(rows 679 and on\)"):
        list(reading(frame=wrong).batches())
    mixed = frame().with_columns(label=pl.when(pl.col("id") < 500).then(pl.col("label")).otherwise(-1))
    with pytest.raises(LabelError, match="mixes -1, 0 and 1"):
        list(reading(frame=mixed).batches())


def test_a_reader_that_fails_in_the_middle_fails_where_it_is_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with Prefetched(items, 2) as ahead, pytest.raises(OSError, match="the disk is gone"):
        list(ahead)
    assert not [t for t in threading.enumerate() if t.name == "penstock-reading"]


def test_a_reader_that_is_left_stops() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    with Prefetched(items, 2) as ahead:
        assert next(iter(ahead)) == 0
    assert not [t for t in threading.enumerate() if t.name == "penstock-reading"]
    assert len(made) < 10


def test_event_times_are_seconds() -> None:
    stamps = pa.array([1_500_000, None], pa.timestamp("us"))
    assert seconds(stamps).tolist() == [1, 0]
    assert seconds(pa.array([5, 7])).tolist() == [5, 7]
    assert seconds(pa.array([1], pa.date32())).tolist() == [86_400]

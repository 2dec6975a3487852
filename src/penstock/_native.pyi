"""What `penstock._native`, built from crates/penstock-python, offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, final, overload

import pyarrow as pa

# --- the feature kernel (crates/penstock-python/src/features.rs) ---------------------------------------------------

class RowError(ValueError):
    """A row has no meaning under the plan."""

    row: int
    item: str
    reason: str

@final
class Dictionary:
    """A compiled dictionary: an immutable map from strings to 1-based indices."""

    @staticmethod
    def compile(source: str | PathLike[str], target: str | PathLike[str]) -> None: ...
    @staticmethod
    def build(values: Sequence[str], target: str | PathLike[str]) -> None: ...
    @staticmethod
    def open(path: str | PathLike[str]) -> Dictionary: ...
    def __len__(self) -> int: ...
    def __contains__(self, value: str) -> bool: ...
    def get(self, value: str) -> int | None: ...
    def values(self) -> list[str]: ...
    def verify(self) -> bool: ...
    @property
    def sha256(self) -> str: ...
    @property
    def entries(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...

@final
class Plan:
    """A compiled feature plan: immutable, safe to use from several threads."""

    def __init__(
        self,
        json: str,
        dictionaries: Mapping[str, Dictionary] | None = None,
        functions: Mapping[str, int] | None = None,
    ) -> None: ...
    @property
    def columns(self) -> list[str]: ...
    @overload
    def apply(
        self,
        batch: pa.RecordBatch,
        keep: Sequence[str] = ...,
        form: str = "slots",
        threads: int = 0,
        on_error: Literal["fail"] = "fail",
    ) -> pa.RecordBatch: ...
    @overload
    def apply(
        self,
        batch: pa.RecordBatch,
        keep: Sequence[str] = ...,
        form: str = "slots",
        threads: int = 0,
        *,
        on_error: Literal["drop"],
    ) -> tuple[pa.RecordBatch, list[tuple[int, str, str]]]: ...
    def values(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch: ...
    def apply_row(
        self, row: Mapping[str, object]
    ) -> list[tuple[str, list[int] | None, list[float] | None, float | None]]: ...
    def explain_row(self, row: Mapping[str, object]) -> list[tuple[str, int, str, float]]: ...

def hash_column(array: pa.Array[Any], seed: int = 0) -> pa.UInt64Array: ...

# --- text formats (crates/penstock-python/src/data.rs) --------------------------------------------------------------

_File = tuple[str, Callable[[], Any] | None]

def csv_reader(
    files: Sequence[_File],
    options: Mapping[str, object],
    columns: Sequence[tuple[str, str]],
    wanted: Sequence[bool],
    on_error: str,
    threads: int,
) -> Iterator[tuple[int, pa.RecordBatch, list[tuple[int, str, str, str]]]]: ...
def csv_sample(file: _File, options: Mapping[str, object], rows: int) -> list[tuple[str, str]]: ...
def json_reader(
    files: Sequence[_File], schema: pa.Schema, wanted: Sequence[bool], on_error: str, encoding: str, threads: int
) -> Iterator[tuple[int, pa.RecordBatch, list[tuple[int, str, str, str]]]]: ...
def json_sample(file: _File, encoding: str, rows: int) -> pa.Schema: ...
def text_reader(
    files: Sequence[_File], on_error: str, encoding: str, threads: int
) -> Iterator[tuple[int, pa.RecordBatch, list[tuple[int, str, str, str]]]]: ...
def libsvm_reader(
    files: Sequence[_File], base: int, on_error: str, threads: int
) -> Iterator[tuple[int, pa.RecordBatch, list[tuple[int, str, str, str]]]]: ...
@final
class LibsvmWriter:
    """Turns batches of label f32, keys list<i64>, weights list<f32>, qid i64 into libsvm text."""

    def __init__(self) -> None: ...
    def lines(self, batch: pa.RecordBatch) -> bytes: ...

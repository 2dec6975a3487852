"""What `penstock._native`, built from crates/penstock-python, offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, final, overload

import numpy as np
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
    def apply_in_runs(self, batch: pa.RecordBatch, form: str, threads: int) -> list[pa.RecordBatch]: ...
    def values(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch: ...
    def apply_row(self, row: Mapping[str, object]) -> tuple[list[list[int]], list[list[float] | None], list[float]]: ...
    def explain_row(self, row: Mapping[str, object]) -> list[tuple[str, int, str, float]]: ...

def hash_column(array: pa.Array[Any], seed: int = 0) -> pa.UInt64Array: ...

# --- embedding tables (crates/penstock-python/src/tables.rs) --------------------------------------------------------

_Array = np.ndarray[Any, Any]
_Bag = tuple[int, _Array, _Array, _Array | None]
_Bytes = bytes
_Columns = tuple[bytes, bytes, bytes, bytes, bytes, bytes]

def simd_level() -> str: ...

@final
class Found:
    """The distinct keys of a batch that was pooled, and where their rows are."""

class Tables:
    def __init__(self, json: str) -> None: ...
    def lookup(self, slot: int, keys: _Array, out: _Array) -> int: ...
    def update(
        self,
        slot: int,
        keys: _Array,
        grads: _Array,
        event_time_s: int,
        occurrences: _Array | None = None,
        shows: _Array | None = None,
        clicks: _Array | None = None,
    ) -> dict[str, int]: ...
    def pool(
        self,
        bags: list[_Bag],
        pooling: str,
        out: _Array,
        lead: int = 0,
        leads: _Array | None = None,
        stride: int | None = None,
        keep: bool = False,
    ) -> Found | None: ...
    def stage(
        self,
        bags: list[_Bag],
        pooling: str,
        grads: _Array,
        lead: int = 0,
        leads: _Array | None = None,
        stride: int | None = None,
        found: Found | None = None,
    ) -> None: ...
    def scale_staged(self, factor: float) -> None: ...
    def staged_is_finite(self) -> bool: ...
    def staged_square_sum(self) -> float: ...
    def drop_staged(self) -> None: ...
    def step(self, event_time_s: int) -> dict[str, int]: ...
    def set_learning_rate(self, table: int, rate: float) -> None: ...
    def sweep(self, lines: int) -> int: ...
    @property
    def rows(self) -> list[int]: ...
    @property
    def bytes(self) -> list[int]: ...
    def export(self, table: int) -> tuple[_Bytes, _Bytes, _Bytes, _Bytes, _Bytes]: ...
    def rows_in(self, table: int, first: int, end: int) -> _Columns: ...
    def shape(self, table: int) -> tuple[str, list[tuple[str, int]], bool]: ...
    def put(
        self,
        table: int,
        keys: _Array,
        values: _Array,
        state: _Array,
        counts: _Array,
        last_seen_s: _Array,
        scores: _Array | None = None,
    ) -> None: ...

class ArtefactError(Exception):
    """Of a checkpoint or snapshot. `args`: the kind of fault, the message, and what belongs to it by name."""

    args: tuple[str, str, dict[str, str]]

@final
class Checkpoints:
    """A folder of checkpoints of one model's tables, written by this process alone."""

    def __init__(self, path: str, tables: Tables, plan: str) -> None: ...
    def prepare(
        self, name: str, sections: Sequence[tuple[str, _Bytes]], full: bool, copy_limit_bytes: int
    ) -> OpenCut: ...
    def resume(self) -> dict[str, _Bytes] | None: ...
    def prune(self) -> int: ...
    def sequences(self) -> list[int]: ...

@final
class OpenCut:
    def write(self, rows: int) -> bool: ...
    def commit(self) -> tuple[int, str, int | None, int]: ...
    def abort(self) -> None: ...

@final
class Checkpoint:
    """The newest cut in a folder, to look at."""

    def __init__(self, path: str) -> None: ...
    @property
    def facts(self) -> tuple[int, str, list[int]]: ...
    @property
    def plan(self) -> str: ...
    @property
    def slots(self) -> list[tuple[int, int, bool]]: ...
    @property
    def tables(self) -> list[tuple[str, int, str, int, str, list[tuple[str, int]], bool, int, int]]: ...
    def rows_in(self, table: int, first: int, end: int) -> _Columns: ...

def carry(path: str, tables: Tables, numbers: Sequence[tuple[int, int]]) -> list[int]: ...
def write_snapshot(folder: str, name: str, tables: Tables, plan: str, copy_limit_bytes: int) -> int: ...

@final
class Host:
    """A running serving host."""

    def __new__(cls, settings: str, markers: str | None = None, onnxruntime: str = "") -> Host: ...
    @property
    def addresses(self) -> tuple[str, str]: ...
    def apply(self, desired: str) -> str: ...
    def events(self) -> list[str]: ...
    def set_tokens(self, tokens: str) -> None: ...
    def reload_certificates(self) -> None: ...
    def drain(self, accept_s: float, finish_s: float) -> bool: ...

def inference_descriptors() -> bytes: ...

class ServedModel:
    """A bundle as the serving host opens and scores it."""

    def __new__(
        cls, folder: str, onnxruntime: str = "", functions: Mapping[str, int] | None = None, threads: int = 1
    ) -> ServedModel: ...
    @property
    def inputs(self) -> list[tuple[str, str, list[int]]]: ...
    @property
    def mapped(self) -> list[tuple[str, str, list[int]]]: ...
    @property
    def outputs(self) -> list[tuple[str, str, list[int]]]: ...
    @property
    def platform(self) -> str: ...
    def predict(
        self, tensors: Sequence[tuple[str, list[int], pa.Array]], broadcast: Sequence[str] = ()
    ) -> list[tuple[str, list[int], pa.Array]]: ...

class Snapshot:
    """A mapped serving snapshot; readers share it."""

    def __init__(self, path: str, threads: int) -> None: ...
    @property
    def plan(self) -> str: ...
    @property
    def tables(self) -> list[tuple[str, int, str, int]]: ...
    @property
    def slots(self) -> list[tuple[int, int, bool]]: ...
    def lookup(self, slot: int, keys: _Array, out: _Array) -> int: ...
    def pool(self, bags: Sequence[_Bag], pooling: str, out: _Array) -> None: ...
    def rows_in(self, table: int, first: int, end: int) -> _Columns: ...
    def verify(self) -> None: ...

# --- text formats (crates/penstock-python/src/data/) --------------------------------------------------------------

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

# --- training (crates/penstock-python/src/training.rs) -------------------------------------------------------------

@final
class Logistic:
    """A sparse logistic regression: fields are added, then it is fitted, again from where the last fit ended."""

    def __init__(self, rows: int, threads: int) -> None: ...
    def add_codes(self, codes: pa.Array, size: int, prior: pa.Array | None = None) -> None: ...
    def add_keys(self, offsets: pa.Array, keys: pa.Array, values: pa.Array | None = None) -> None: ...
    def fit(
        self,
        labels: pa.Array,
        sample: pa.Array,
        l1: float,
        l2: Sequence[float],
        tolerance: float = 1e-5,
        progress: Callable[[int, float], None] | None = None,
    ) -> float: ...
    @property
    def bias(self) -> float: ...
    def margins(self) -> pa.Array: ...
    def weights(self, field: int) -> pa.Array: ...
    def keys(self, field: int) -> pa.Array: ...

@final
class KeyTable:
    """Weights by 64-bit key."""

    def __init__(self, keys: pa.Array, weights: pa.Array) -> None: ...
    def add(self, offsets: pa.Array, keys: pa.Array, margins: pa.Array, values: pa.Array | None = None) -> pa.Array: ...

@final
class ParquetColumns:
    """Batches of a file's columns of numbers and lists of numbers.

    `stored`: greatest definition and repetition level, definition level of an empty list, and the chunks (offset,
    bytes, whether zstd) of each. NotImplementedError: the rest is another reader's.
    """

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        stored: Sequence[tuple[tuple[int, int, int], Sequence[tuple[int, int, bool]]]],
        rows: int,
        batch: int,
    ) -> None: ...
    def __iter__(self) -> ParquetColumns: ...
    def __next__(self) -> pa.RecordBatch: ...

_Slot = tuple[pa.Array, pa.Array, pa.Array | None]

@final
class Online:
    """A regression or factorisation machine that learns as rows come (crates/penstock-training/src/online)."""

    def __init__(
        self,
        *,
        slots: int,
        numbers: int,
        shared: bool,
        positions: bool,
        optimizer: str,
        rates: tuple[float, float, float, float],
        factors: tuple[int, float, float, float, float] | None,
        min_count: int,
        evict_after: int,
        batch: int,
        seed: int,
        threads: int,
    ) -> None: ...
    def learn(
        self, slots: Sequence[_Slot], numbers: pa.Array, labels: pa.Array, sample: pa.Array | None = None
    ) -> None: ...
    def finish(self) -> None: ...
    def begin_pass(self) -> None: ...
    def warm(self) -> None: ...
    def progress(self) -> tuple[int, float, float, float]: ...
    def margins(self, slots: Sequence[_Slot], numbers: pa.Array, rows: int, threads: int) -> pa.Array: ...
    def rows(self) -> tuple[pa.Array, pa.Array, pa.Array]: ...
    def put(self, fields: pa.Array, keys: pa.Array, values: pa.Array) -> None: ...
    @property
    def width(self) -> int: ...
    @property
    def keys(self) -> int: ...

def compact_keys(keys: pa.Array, threads: int) -> tuple[pa.Array, pa.Array]: ...
def fit_svm(
    offsets: pa.Array,
    columns: pa.Array,
    values: pa.Array,
    size: int,
    signs: pa.Array,
    costs: pa.Array,
    seed: int,
    tolerance: float,
    max_epochs: int,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[pa.Array, float, pa.Array]: ...
def platt(margins: pa.Array, signs: pa.Array, sample: pa.Array) -> tuple[float, float]: ...

_Sets = tuple[pa.Array, pa.Array, pa.Array]

def frequent_itemsets(
    offsets: pa.Array,
    items: pa.Array,
    size: int,
    min_count: int,
    max_length: int,
    max_sets: int,
    threads: int,
    confidence: float | None = None,
) -> tuple[_Sets, tuple[_Sets, _Sets, pa.Array, pa.Array] | None]: ...

# --- the on-disk log (crates/penstock-python/src/streams.rs) --------------------------------------------------------

class LogFault(Exception):
    """`args`: the kind of fault, the message, and a dict of what belongs to it."""

def key_partition(key: bytes, partitions: int) -> int: ...
@final
class Log:
    def __init__(
        self,
        path: str | PathLike[str],
        *,
        partitions: int | None,
        create: bool,
        segment_bytes: int,
        sync_ms: int | None,
        retention_ms: int | None,
        retention_bytes: int | None,
        lock_wait_ms: int,
    ) -> None: ...
    @property
    def partitions(self) -> int: ...
    def append(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        synced: bool,
    ) -> list[tuple[int, int, int]]: ...
    def read(
        self, partition: int, offset: int, records: int, size_bytes: int, wait_ms: int
    ) -> tuple[list[tuple[int, int, bytes | None, bytes]], int]: ...
    def start(self, partition: int) -> int: ...
    def end(self, partition: int) -> int: ...
    def seek(self, partition: int, time_ms: int) -> int: ...
    def trim(self, partition: int, before: int) -> int: ...
    def size(self, partition: int) -> tuple[int, int]: ...
    def commit(self, group: str, partition: int, offset: int) -> None: ...
    def committed(self, group: str, partition: int) -> int | None: ...
    def groups(self, partition: int) -> list[str]: ...
    def forget(self, group: str, partition: int) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...

"""Frames as matrices: batches come in, numbers, category codes and key lists go out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.training.faults import InputError
from penstock.training.inputs import Layout, is_list

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Keys:
    """Row `i` holds `keys[offsets[i]:offsets[i + 1]]`, u64, with f32 `values` (None: all 1)."""

    offsets: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float32] | None

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: npt.NDArray[np.bool_]) -> Keys:
        lengths = np.diff(self.offsets)
        kept = np.repeat(rows, lengths)
        return Keys(_offsets(lengths[rows]), self.keys[kept], self.values[kept] if self.values is not None else None)

    def part(self, start: int, stop: int) -> Keys:
        """Rows `start` to `stop`: views of these."""
        offsets = self.offsets[start : stop + 1]
        a, b = offsets[0], offsets[-1]
        return Keys(offsets - a, self.keys[a:b], self.values[a:b] if self.values is not None else None)

    def place(self, position: int) -> Keys:
        """The keys at one place of their lists."""
        lengths = np.diff(self.offsets)
        has = lengths > position
        at = self.offsets[:-1][has] + position
        return Keys(_offsets(has.astype(np.int64)), self.keys[at], self.values[at] if self.values is not None else None)


@dataclass(frozen=True)
class Matrix:
    """What a batch or a whole frame holds. `numbers`: (rows, columns) f32 or f64, missing is NaN, categories codes.

    `tensors`: the inputs of a graph by name, first axis rows, where the model is one (`graphs.py`).
    """

    rows: int
    numbers: npt.NDArray[Any]
    slots: tuple[Keys, ...]
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def part(self, start: int, stop: int) -> Matrix:
        """Rows `start` to `stop`."""
        tensors = {name: values[start:stop] for name, values in self.tensors.items()}
        slots = tuple(keys.part(start, stop) for keys in self.slots)
        return Matrix(stop - start, self.numbers[start:stop], slots, tensors)


@dataclass
class Encoder:
    """How raw columns become a matrix: fitted to the training rows once, stored in the bundle, applied to any batch.

    `widths`: the length of each vector column. `categories`: column -> its values, sorted; a value's place is its code.
    `places`: with `layout.positions`, how many places of the key list are fields.
    """

    layout: Layout
    widths: tuple[int, ...] = ()
    categories: Mapping[str, Sequence[str] | Sequence[int]] = field(default_factory=dict)
    places: int = 0
    _sets: dict[str, pa.Array] = field(default_factory=dict, repr=False)

    # --- what it makes ---

    @property
    def number_names(self) -> tuple[str, ...]:
        """The columns of `Matrix.numbers`, categories last."""
        vectors = (f"{n}[{i}]" for n, width in zip(self.layout.vectors, self.widths, strict=True) for i in range(width))
        return (*self.layout.numeric, *vectors, *self.layout.categorical)

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of keys: the slots, or the places of the one key list."""
        if self.layout.positions:
            return tuple(f"{self.layout.slots[0][0]}[{i}]" for i in range(self.places))
        return tuple(keys for keys, _ in self.layout.slots)

    def encode(self, batch: pa.RecordBatch) -> Matrix:
        """A batch's matrix; categories never seen in training are missing. Raises `InputError`."""
        layout = self.layout
        columns = [_numbers(batch.column(name), name) for name in layout.numeric]
        for name, width in zip(layout.vectors, self.widths, strict=True):
            columns += list(_vector(batch.column(name), name, width).T)
        columns += [self._codes(batch.column(name), name) for name in layout.categorical]
        numbers = _stack(columns, batch.num_rows)
        slots = tuple(keys_of(batch, keys, weights) for keys, weights in layout.slots)
        if layout.positions:
            slots = tuple(slots[0].place(i) for i in range(self.places))
        return Matrix(batch.num_rows, numbers, slots)

    def _codes(self, column: pa.Array, name: str) -> npt.NDArray[Any]:
        values = _category(column, name)
        if name not in self._sets:
            self._sets[name] = pa.array(self.categories[name], values.type)
        codes = pc.index_in(values, value_set=self._sets[name], skip_nulls=True)
        return codes.cast(pa.float32()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]

    # --- how it is stored ---

    def as_dict(self) -> dict[str, Any]:
        return {"layout": self.layout.as_dict(), "widths": list(self.widths), "places": self.places}

    @staticmethod
    def from_dict(stored: Mapping[str, Any], categories: Mapping[str, Sequence[str] | Sequence[int]]) -> Encoder:
        return Encoder(Layout.from_dict(stored["layout"]), tuple(stored["widths"]), categories, int(stored["places"]))


def learn(
    batches: Iterable[pa.RecordBatch], layout: Layout, read: Callable[[pa.RecordBatch], None]
) -> tuple[Encoder, Matrix]:
    """Fit an encoder to the training rows and encode them, in one pass. `read` sees every batch (labels, weights)."""
    held: list[pa.RecordBatch] = []
    encoder = Encoder(layout)
    for batch in batches:
        read(batch)
        held.append(batch.select(list(layout.columns)))
    encoder.widths = tuple(_width(held, name) for name in layout.vectors)
    encoder.categories = {name: _values(held, name) for name in layout.categorical}
    if layout.positions:
        lengths = (np.diff(keys_of(b, *layout.slots[0]).offsets) for b in held)
        encoder.places = max((int(each.max(initial=0)) for each in lengths), default=0)
    parts = []
    while held:
        parts.append(encoder.encode(held.pop(0)))
    return encoder, joined(parts, encoder)


def encode_all(batches: Iterable[pa.RecordBatch], encoder: Encoder, read: Callable[[pa.RecordBatch], None]) -> Matrix:
    """Encode a further frame (`valid`) as the training rows were."""
    parts = []
    for batch in batches:
        read(batch)
        parts.append(encoder.encode(batch))
    return joined(parts, encoder)


def joined(parts: Sequence[Matrix], encoder: Encoder) -> Matrix:
    """Matrices below one another."""
    if not parts:
        empty = Keys(np.zeros(1, np.int64), np.zeros(0, np.uint64), None)
        numbers = np.zeros((0, len(encoder.number_names)), np.float32)
        return Matrix(0, numbers, tuple(empty for _ in encoder.field_names))
    if len(parts) == 1:
        return parts[0]
    slots = []
    for each in zip(*(p.slots for p in parts), strict=True):
        values = [k.values for k in each if k.values is not None]
        slots.append(
            Keys(
                _offsets(np.concatenate([np.diff(k.offsets) for k in each])),
                np.concatenate([k.keys for k in each]),
                np.concatenate(values) if values else None,
            )
        )
    return Matrix(sum(p.rows for p in parts), np.concatenate([p.numbers for p in parts]), tuple(slots))


# --- one column ---


def _numbers(column: pa.Array, name: str) -> npt.NDArray[Any]:
    wide = pa.types.is_float64(column.type) or (pa.types.is_integer(column.type) and column.type.bit_width > 16)
    target = pa.float64() if wide or pa.types.is_decimal(column.type) else pa.float32()
    try:
        return pc.cast(column, target, safe=False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column '{name}' is {column.type}, not a number", str(error), "TRAIN008") from None


def _stack(columns: Sequence[npt.NDArray[Any]], rows: int) -> npt.NDArray[Any]:
    type_ = np.float64 if any(c.dtype == np.float64 for c in columns) else np.float32
    matrix = np.empty((rows, len(columns)), type_)
    for at, column in enumerate(columns):
        matrix[:, at] = column
    return matrix


def _vector(column: pa.Array, name: str, width: int) -> npt.NDArray[np.float32]:
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != width)
    if len(wrong):
        said = "null" if lengths[wrong[0]] < 0 else f"{lengths[wrong[0]]} long"
        raise InputError(f"column '{name}' holds lists of {width} numbers, but one is {said}", code="TRAIN015")
    flat = pc.cast(column.flatten(), pa.float32(), safe=False)
    return flat.to_numpy(zero_copy_only=False).reshape(-1, width)  # type: ignore[no-any-return]


def _width(held: Sequence[pa.RecordBatch], name: str) -> int:
    for batch in held:
        lengths = pc.list_value_length(batch.column(name)).drop_null()
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def _category(column: pa.Array, name: str) -> pa.Array:
    """Categories as strings or integers; of a slot its first key."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        column, type_ = column.cast(type_.value_type), type_.value_type
    if is_list(type_):
        keys = _list_of_keys(column, None, name).place(0)
        found = np.zeros(len(column), np.uint64)
        has = np.diff(keys.offsets) > 0
        found[has] = keys.keys
        return pa.array(found, mask=~has)
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return column.cast(pa.int64(), safe=False)
    if pa.types.is_floating(type_):
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        finite = np.isfinite(values)
        return pa.array(np.where(finite, values, 0).astype(np.int64), mask=~finite)
    return column.cast(pa.large_string())


def _values(held: Sequence[pa.RecordBatch], name: str) -> Sequence[str] | Sequence[int]:
    found: set[Any] = set()
    for batch in held:
        found.update(pc.unique(_category(batch.column(name), name)).to_pylist())
    found.discard(None)
    return sorted(found)


def keys_of(batch: pa.RecordBatch, name: str, weights: str) -> Keys:
    """A column of key lists, with the column of their weights (or "")."""
    return _list_of_keys(batch.column(name), batch.column(weights) if weights else None, name)


def _list_of_keys(column: pa.Array, weights: pa.Array | None, name: str) -> Keys:
    """A list column as offsets and u64 keys; null keys and null or NaN weights drop out."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten()
    keep = np.ones(len(flat), bool)
    if flat.null_count:
        keep = pc.is_valid(flat).to_numpy(zero_copy_only=False)
        flat = pc.fill_null(flat, 0)
    if pa.types.is_uint64(flat.type):
        keys = flat.to_numpy(zero_copy_only=False)
    else:
        # i64 and u64 of the same bits are the same key.
        keys = flat.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64)
    values: npt.NDArray[np.float32] | None = None
    if weights is not None:
        values = _weights(weights, column, lengths, name)
        keep &= ~np.isnan(values)
    if not keep.all():
        rows = np.repeat(np.arange(len(lengths)), lengths)
        lengths = np.bincount(rows[keep], minlength=len(lengths)).astype(np.int64)
        keys = keys[keep]
        values = values[keep] if values is not None else None
    return Keys(_offsets(lengths), keys, values)


def _weights(weights: pa.Array, keys: pa.Array, lengths: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.float32]:
    if not is_list(weights.type):
        numbers = weights.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        return np.repeat(numbers, lengths)
    own = pc.fill_null(pc.list_value_length(weights), -1).to_numpy(zero_copy_only=False)
    given = pc.is_valid(keys).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(given & (own != lengths) & ~((own < 0) & (lengths == 0)))
    if len(wrong):
        row = int(wrong[0])
        said = "null" if own[row] < 0 else f"{own[row]}"
        raise InputError(
            f"'{name}' holds {lengths[row]} keys in a row whose weights are {said}", "there is one weight a key",
            "TRAIN015",
        )  # fmt: skip
    if not given.all():
        weights = pc.if_else(pc.is_valid(keys), weights, pa.scalar(None, weights.type))
    return weights.flatten().cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets

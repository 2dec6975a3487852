"""Tensors as the wire names them: datatypes of the Open Inference Protocol, shapes with -1 for rows, arrays by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Name -> an array whose first axis is the rows.
Feed = Mapping[str, npt.NDArray[Any]]

_NUMPY = {
    "FP64": "float64", "FP32": "float32", "FP16": "float16", "INT64": "int64", "INT32": "int32", "INT16": "int16",
    "INT8": "int8", "UINT64": "uint64", "UINT32": "uint32", "UINT16": "uint16", "UINT8": "uint8", "BOOL": "bool",
    "BYTES": "object",
}  # fmt: skip
_ARROW = {
    "FP64": "double", "FP32": "float", "FP16": "halffloat", "INT64": "int64", "INT32": "int32", "INT16": "int16",
    "INT8": "int8", "UINT64": "uint64", "UINT32": "uint32", "UINT16": "uint16", "UINT8": "uint8", "BOOL": "bool",
    "BYTES": "string",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One input or output. `shape`: -1 where any length will do; the first axis is the rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_NUMPY[self.datatype])

    @property
    def is_float(self) -> bool:
        return self.datatype.startswith("FP")

    @property
    def width(self) -> int:
        """Values a row; -1 where that is open."""
        inner = self.shape[1:]
        return -1 if any(n < 0 for n in inner) else int(np.prod(inner, dtype=np.int64))

    def as_dict(self) -> dict[str, Any]:
        """As the manifest has it: for the wire, and the Arrow type that flows ask for."""
        plain = _ARROW[self.datatype]
        kind = plain if self.width == 1 else f"list<item: {plain}>"
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape), "type": kind}

    def cast(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values as this tensor holds them, in its shape. Raises ValueError where they cannot be."""
        shape = (len(values), *(self.shape[1:] if self.width >= 0 else values.shape[1:]))
        if self.datatype == "BYTES":
            return np.array([_text(v) for v in values.reshape(-1)], object).reshape(shape)
        if not self.is_float and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"'{self.name}' is {self.datatype}, which holds no null")
        return np.ascontiguousarray(values.reshape(shape), self.dtype)


def named(dtype: npt.DTypeLike) -> str:
    """The datatype of a numpy dtype. Raises ValueError for one that the wire does not have."""
    found = np.dtype(dtype)
    if found.kind in "OUS":
        return "BYTES"
    for name, known in _NUMPY.items():
        if known == found.name:
            return name
    raise ValueError(f"values of type {found} cannot be served")


def rows_of(feed: Feed) -> int:
    return len(next(iter(feed.values()))) if feed else 0


def take(feed: Feed, rows: Sequence[int] | slice) -> dict[str, npt.NDArray[Any]]:
    """Some rows of a feed."""
    return {name: values[rows] for name, values in feed.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)

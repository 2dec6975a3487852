"""Requests and replies of the protocol's binary form: a JSON head, then each tensor's bytes (CONTRACT §5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.serving.tensors import Tensor

HEADER = "Inference-Header-Content-Length"
DTYPES = {
    "BOOL": np.dtype(np.bool_), "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
NAMES = {dtype.str.lstrip("<|"): name for name, dtype in DTYPES.items()}


def encode(
    tensors: Sequence[Tensor], parameters: Mapping[str, Any], outputs: Sequence[str] = (), request_id: str = ""
) -> tuple[bytes, int]:
    """The body of an inference request, and how long its JSON head is. Nulls travel as a BOOL tensor `NAME.null`."""
    inputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, shape, elements in tensors:
        for each, kind, data in parts(name, elements):
            size = {"binary_data_size": len(data)}
            inputs.append({"name": each, "shape": shape, "datatype": kind, "parameters": size})
            blobs.append(data)
    head: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True, **parameters}}
    if outputs:
        head["outputs"] = [{"name": name} for name in outputs]
    if request_id:
        head["id"] = request_id
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text)


def parts(name: str, elements: pa.Array) -> list[tuple[str, str, bytes]]:
    """(name, datatype, bytes) of a tensor, and of the BOOL tensor that marks its nulls if it has any."""
    datatype, blob = _elements(elements)
    found = [(name, datatype, blob)]
    if elements.null_count > 0 and not pa.types.is_floating(elements.type):
        marks = np.asarray(elements.is_null().to_numpy(zero_copy_only=False))
        found.append((f"{name}.null", "BOOL", marks.tobytes()))
    return found


def decode(body: bytes, head_length: int | None) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """A reply's head and its outputs by name. Raises ValueError for one that is not whole."""
    head = json.loads(body[:head_length])
    outputs: dict[str, npt.NDArray[Any]] = {}
    at = head_length or 0
    for output in head["outputs"]:
        shape, datatype = output["shape"], output["datatype"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = _from_json(output["data"], datatype, shape)
            continue
        blob, at = body[at : at + size], at + size
        if len(blob) != size:
            raise ValueError(f"output '{output['name']}' is {size} bytes long, and {len(blob)} came")
        outputs[output["name"]] = from_bytes(blob, datatype, shape)
    return head, outputs


def _elements(elements: pa.Array) -> tuple[str, bytes]:
    type_ = elements.type
    if pa.types.is_large_string(type_) or pa.types.is_string(type_) or pa.types.is_binary(type_):
        texts = (v.encode() if isinstance(v, str) else (v or b"") for v in elements.to_pylist())
        return "BYTES", b"".join(part for text in texts for part in (len(text).to_bytes(4, "little"), text))
    if pa.types.is_floating(type_):
        values = elements.to_numpy(zero_copy_only=False)
    else:
        fill = False if pa.types.is_boolean(type_) else 0
        values = elements.fill_null(fill).to_numpy(zero_copy_only=False)
    return NAMES[values.dtype.str.lstrip("<|")], values.tobytes()


def _from_json(data: Sequence[Any], datatype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    if datatype == "BYTES":
        return np.array(data, object).reshape(shape)
    if datatype.startswith("FP"):
        data = [float("nan") if value is None else value for value in data]
    return np.array(data, DTYPES[datatype]).reshape(shape)


def from_bytes(blob: bytes, datatype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """A tensor's raw bytes as an array; BYTES as objects."""
    if datatype != "BYTES":
        return np.frombuffer(blob, DTYPES[datatype]).reshape(shape)
    texts, at = [], 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "little")
        texts.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return np.array(texts, object).reshape(shape)

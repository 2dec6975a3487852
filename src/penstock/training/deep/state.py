"""State dicts as bytes and back: JSON for the structure, raw little-endian tensors behind it; nothing is unpickled."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch

_TYPES = {
    str(t).removeprefix("torch."): t
    for t in (
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
}


def pack(tree: Any) -> bytes:
    """Dicts (of string or integer keys), lists, tuples, tensors, numbers, strings, booleans and None.

    Raises `TypeError` for anything else.
    """
    tensors: list[bytes] = []
    head = json.dumps(_plain(tree, tensors)).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(tensors)


def unpack(data: bytes) -> Any:
    """What `pack` was given; tuples come back as lists. Raises `ValueError` for bytes that it did not write."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise ValueError("the state is shorter than it says")
    return _rich(json.loads(data[8 : 8 + size]), memoryview(data)[8 + size :])


def _plain(tree: Any, tensors: list[bytes]) -> Any:
    if isinstance(tree, torch.Tensor):
        name = str(tree.dtype).removeprefix("torch.")
        if name not in _TYPES:
            raise TypeError(f"a tensor of {tree.dtype} cannot be stored")
        at = sum(map(len, tensors))
        tensors.append(bytes(tree.detach().contiguous().reshape(-1).view(torch.uint8).numpy()))
        return {"tensor": name, "shape": list(tree.shape), "at": at}
    if isinstance(tree, dict):
        return {"dict": [[key, _plain(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"list": [_plain(value, tensors) for value in tree]}
    if tree is None or isinstance(tree, str | int | float | bool):
        return tree
    raise TypeError(f"{type(tree).__name__} cannot be stored in a checkpoint")


def _rich(tree: Any, tensors: memoryview) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "dict" in tree:
        return {key: _rich(value, tensors) for key, value in tree["dict"]}
    if "list" in tree:
        return [_rich(value, tensors) for value in tree["list"]]
    dtype, shape, at = _TYPES[tree["tensor"]], tree["shape"], tree["at"]
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    if at + size > len(tensors):
        raise ValueError("the state ends within a tensor")
    flat = np.frombuffer(tensors[at : at + size], np.uint8).copy()
    return torch.from_numpy(flat).view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)

"""PyTorch: exported programs (`.pt2`), or a state dict with the function that makes its module."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock.registry.converting import onnx_graphs
from penstock.registry.converting.request import Request
from penstock.registry.converting.rows import MATRIX
from penstock.registry.converting.tensors import Feed, Tensor, named
from penstock.registry.faults import ConversionError


class TorchOriginal:
    """A module in eval mode. Inputs are called `input`, `input_1`, ..., one output `score`, several `output`, ..."""

    algorithm = "pytorch"
    library = "torch"
    precisions: Sequence[str] = ("FP32",)

    def __init__(self, request: Request, feed: Feed | None) -> None:
        torch.set_num_threads(1)
        self.program: Any = None
        path = Path(request.path)
        if path.suffix == ".pt2":
            self.program = _program(path)
            self.module = self.program.module()
            examples = list(self.program.example_inputs[0])
        else:
            if feed is None:
                said = "a state dict needs example inputs to be traced with"
                raise ConversionError(said, "give --rows FILE (rows= in Python)", "REG016")
            self.module = _module(path, request)
            examples = [torch.from_numpy(_example(values)) for values in feed.values()]
        self.examples = examples
        with torch.no_grad():
            outputs = _flat(self.module(*examples))
        self.names = ["score"] if len(outputs) == 1 else _numbered("output", len(outputs))
        self.shapes = [(-1, *output.shape[1:]) for output in outputs]
        self.types = [named(output.numpy().dtype) for output in outputs]

    def inputs(self, precision: str) -> Sequence[Tensor]:
        names = _numbered(MATRIX, len(self.examples))
        return [
            Tensor(name, named(e.numpy().dtype), (-1, *e.shape[1:]))
            for name, e in zip(names, self.examples, strict=True)
        ]

    def scores(self, feed: Feed) -> Feed:
        given = [torch.from_numpy(tensor.cast(feed[tensor.name])) for tensor in self.inputs("FP32")]
        with torch.no_grad():
            return dict(zip(self.names, (o.numpy() for o in _flat(self.module(*given))), strict=True))

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        inputs = list(self.inputs(precision))
        outputs = [Tensor(*each) for each in zip(self.names, self.types, self.shapes, strict=True)]
        names: dict[str, Any] = {"input_names": [t.name for t in inputs], "output_names": self.names}
        rows = torch.export.Dim("rows")
        # Two rows at least: a size of one is taken for a constant.
        examples = tuple(torch.cat([e, e])[: max(2, len(e))] for e in self.examples)
        given: dict[str, Any] = {"dynamic_shapes": tuple({0: rows} for _ in examples)} if self.program is None else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exported = torch.onnx.export(
                    self.program if self.program is not None else self.module,
                    () if self.program is not None else examples,
                    dynamo=True, external_data=False, verbose=False, **names, **given,
                )  # fmt: skip
        except Exception as error:  # the exporter raises whatever the module makes it raise
            said = " ".join(str(error).split())[:400]
            raise ConversionError(f"torch.onnx cannot export the module: {said}", code="REG018") from error
        assert exported is not None  # which it is where dynamo=True
        model = exported.model_proto
        onnx_graphs.tensors(model.graph.input, "input")  # a fixed number of rows is refused by name
        onnx_graphs.save(model, folder)
        return {"algorithm": "pytorch", "model": onnx_graphs.form(inputs, outputs), "outputs": outputs}


def load(request: Request, feed: Feed | None) -> TorchOriginal:
    return TorchOriginal(request, feed)


def _program(path: Path) -> Any:
    try:
        program = torch.export.load(path)
    except Exception as error:  # a broken archive raises many kinds
        raise ConversionError(
            f"{path} is no exported program: {error}", "torch.export.save writes one", "REG015"
        ) from error
    if program.example_inputs is None:
        raise ConversionError(f"{path} holds no example inputs", "save it with torch.export.save", "REG018")
    return program


def _module(path: Path, request: Request) -> torch.nn.Module:
    """The module that the factory makes, with the weights of the file. Raises `ConversionError`."""
    where, _, what = request.factory.partition(":")
    if not where or not what:
        said = f"{path} holds weights alone: which module are they of?"
        raise ConversionError(said, "--factory package.module:function makes it; a .pt2 needs none", "REG018")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        said = f"{path} is no state dict that may be opened: {' '.join(str(error).split())[:200]}"
        raise ConversionError(said, "torch.save(module.state_dict(), path)", "REG015") from error
    try:
        sys.path.insert(0, request.code_folder)
        module = getattr(importlib.import_module(where), what)()
        module.load_state_dict(weights)
    except Exception as error:  # the user's own code
        said = f"{request.factory} does not make the module of {path}: {type(error).__name__}: {error}"
        raise ConversionError(said, code="REG018") from error
    made: torch.nn.Module = module.eval()
    return made


def _example(values: Any) -> Any:
    """A few rows in the types that modules take: f32, or i64 for whole numbers."""
    few = values[:4]
    return few.astype(np.int64) if few.dtype.kind in "iu" else few.astype(np.float32)


def _flat(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in _flat(value)]


def _numbered(name: str, count: int) -> list[str]:
    return [name, *(f"{name}_{i}" for i in range(1, count))]

"""The dense part of a model as ONNX: the graph is cut where rows are looked up, and rows become inputs.

What scores later needs no PyTorch: a snapshot for the rows, ONNX Runtime for the rest. Needs `onnxscript`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn
from torch.export import Dim

from penstock.training.deep.models.parts import Inputs
from penstock.training.embedding import module_of

OPSET = 18
#: Two: a size of one would be taken for a constant.
SAMPLES, LONGEST = 2, 3


@dataclass(frozen=True)
class Feed:
    """One input of the dense graph: what fills it, of which slots."""

    name: str
    kind: Literal["pooled", "rows", "lengths", "numbers"]
    slots: tuple[str, ...] = ()
    pooling: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, keys: Mapping[str, Any], numbers: torch.Tensor) -> torch.Tensor:
        return self.model(keys, numbers).reshape(-1)  # type: ignore[no-any-return]


def to_onnx(model: nn.Module, inputs: Inputs) -> tuple[bytes, list[Feed]]:
    """`model(keys, numbers) -> logits` as ONNX, whose one output is `logit` float32 [rows]; and what to feed it.

    Works for any module that reads rows through `HashEmbedding` and `HashSequence`. Weights keep their names in
    `model`, so that `with_weights` can replace them. Raises `ValueError` where the graph cannot be cut.
    """
    was = model.training
    model.eval()
    try:
        graph, feeds, examples = _cut(_traced(model, inputs))
        return _written(graph, feeds, examples), feeds
    finally:
        model.train(was)


def with_weights(onnx_model: bytes, weights: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """The same graph with other weights, by their names in the model. Raises `ValueError` for one that does not fit."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_model_from_string(onnx_model)
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, values in weights.items():
        tensor = held.get(name)
        if tensor is None:
            raise ValueError(f"the graph has no weight '{name}'; it has {', '.join(held)}")
        if tuple(tensor.dims) != values.shape:
            raise ValueError(f"weight '{name}' is of shape {list(tensor.dims)}, not {list(values.shape)}")
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    return bytes(proto.SerializeToString())


def _traced(model: nn.Module, inputs: Inputs) -> fx.GraphModule:
    """The model's graph with the look-ups as operations in it."""
    histories = {slot for slot, _ in inputs.history}
    keys: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    for slot in inputs.slots:
        if slot in histories:
            keys[slot] = (torch.zeros((SAMPLES, LONGEST), dtype=torch.int64), torch.tensor([LONGEST, 1]), None)
            shapes[slot] = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO}, None)
        else:
            keys[slot] = (torch.zeros(SAMPLES + 1, dtype=torch.int64), torch.tensor([0, 2, 3]), None)
            shapes[slot] = ({0: Dim.AUTO}, {0: Dim.AUTO}, None)
    numbers = torch.zeros((SAMPLES, inputs.numbers))
    program = torch.export.export(
        _Logits(model), (keys, numbers), dynamic_shapes={"keys": shapes, "numbers": {0: Dim.AUTO}}, strict=False
    )
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def _cut(traced: fx.GraphModule) -> tuple[fx.GraphModule, list[Feed], list[torch.Tensor]]:
    """Look-ups become inputs; what only led to them goes. Also an example of each input."""
    graph = traced.graph
    graph.set_codegen(fx.graph.CodeGen())
    feeds: dict[str, Feed] = {}
    lengths: dict[fx.Node, str] = {}
    first = next(iter(graph.nodes))
    for node in list(graph.nodes):
        if node.op != "call_function" or not str(node.target).startswith("penstock."):
            continue
        module = module_of(node.args[-1])
        pooled = node.target is torch.ops.penstock.pooled.default
        if not pooled:
            lengths[node.args[1]] = module.slots[0]
            padded = node.args[0]
        name = f"rows_{len(feeds)}"
        with graph.inserting_before(first):
            given = graph.placeholder(name)
        given.meta = dict(node.meta)
        node.replace_all_uses_with(given)
        graph.erase_node(node)
        if not pooled:  # the mask asks how long the longest is
            for user in [u for u in padded.users if u.target is torch.ops.aten.sym_size.int]:
                user.replace_input_with(padded, given)
        feeds[name] = Feed(name, "pooled" if pooled else "rows", module.slots, module.pooling if pooled else "")
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.op != "placeholder" or node.name in feeds:
            continue
        if not node.users:
            graph.erase_node(node)
        elif node in lengths:
            feeds[node.name] = Feed(node.name, "lengths", (lengths[node],))
        elif str(node.target).startswith("numbers"):
            feeds[node.name] = Feed(node.name, "numbers")
        else:
            raise ValueError(f"the model reads keys otherwise than through a HashEmbedding: {node.target} of its graph")
    graph.lint()
    traced.recompile()
    order = [feeds[node.name] for node in graph.nodes if node.op == "placeholder"]
    return traced, order, [_example(node) for node in graph.nodes if node.op == "placeholder"]


def _example(node: fx.Node) -> torch.Tensor:
    like = node.meta["val"]
    shape = [int(size) if isinstance(size, int) else LONGEST if at else SAMPLES for at, size in enumerate(like.shape)]
    return torch.ones(shape, dtype=like.dtype)


def _written(graph: fx.GraphModule, feeds: list[Feed], examples: list[torch.Tensor]) -> bytes:
    shapes = tuple(
        {at: Dim.AUTO for at in range(example.dim()) if at == 0 or (feed.kind == "rows" and at == 1)}
        for feed, example in zip(feeds, examples, strict=True)
    )
    with _quiet():
        program = torch.onnx.export(
            graph, tuple(examples), dynamo=True, dynamic_shapes=shapes, opset_version=OPSET, optimize=False,
            input_names=[feed.name for feed in feeds], output_names=["logit"], external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("model."):
            _rename(proto.graph, tensor.name, tensor.name.removeprefix("model."))
    return bytes(proto.SerializeToString())


def _rename(graph: Any, old: str, new: str) -> None:
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == old:
                node.input[at] = new


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its steps on stdout and warns of its own innards."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)

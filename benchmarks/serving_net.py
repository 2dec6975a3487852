"""The network that every server of `serving.py` runs, and the rows that it is asked for.

26 ids, each a row of 16 of one table; these and 13 numbers through a perceptron of 256 and 128 to one score. The peers'
graph gathers from a table of 100,000 rows inside; ours has the same rows among ten million, outside of its graph.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SLOTS, DENSE, DIM, IDS = 26, 13, 16, 100_000
HIDDEN = (256, 128)
OPSET = 17


def weights() -> dict[str, Any]:
    """The table and the layers, from a fixed seed."""
    draw = np.random.default_rng(5)
    found: dict[str, Any] = {"table": draw.normal(0, 0.5, (IDS, DIM)).astype(np.float32)}
    widths = (SLOTS * DIM + DENSE, *HIDDEN, 1)
    for number, (above, below) in enumerate(itertools.pairwise(widths)):
        found[f"w{number}"] = draw.normal(0, above**-0.5, (above, below)).astype(np.float32)
        found[f"b{number}"] = draw.normal(0, 0.1, below).astype(np.float32)
    return found


def samples(rows: int, seed: int) -> tuple[Any, Any]:
    """(ids [rows, SLOTS] int64 below IDS, numbers [rows, DENSE] float32)."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, IDS, (rows, SLOTS))
    return ids, np.log1p(draw.poisson(20, (rows, DENSE))).astype(np.float32)


def with_gather(path: Path) -> None:
    """The peers' graph: `ids` and `dense` in, `score` [rows] out."""
    held = weights()
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "flat"], ["embedded"]),
        *_layers("embedded", "dense"),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    given = [("ids", TensorProto.INT64, SLOTS), ("dense", TensorProto.FLOAT, DENSE)]
    held["flat"] = np.array([-1, SLOTS * DIM])
    _write(path, nodes, given, "score", held)


def without_table(path: Path) -> None:
    """Ours: looked-up `rows` and `numbers` in, `logit` [rows] out."""
    held = {name: value for name, value in weights().items() if name != "table"}
    given = [("rows", TensorProto.FLOAT, SLOTS * DIM), ("numbers", TensorProto.FLOAT, DENSE)]
    _write(path, _layers("rows", "numbers"), given, "logit", held)


def _layers(rows: str, numbers: str) -> list[Any]:
    nodes = [helper.make_node("Concat", [rows, numbers], ["x0"], axis=1)]
    for number in range(len(HIDDEN) + 1):
        nodes.append(helper.make_node("Gemm", [f"x{number}", f"w{number}", f"b{number}"], [f"y{number}"]))
        if number < len(HIDDEN):
            nodes.append(helper.make_node("Relu", [f"y{number}"], [f"x{number + 1}"]))
    return [*nodes, helper.make_node("Squeeze", [f"y{len(HIDDEN)}", "axis"], ["logit"])]


def _write(path: Path, nodes: list[Any], given: list[tuple[str, int, int]], output: str, held: dict[str, Any]) -> None:
    held = {**held, "axis": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "serving",
        [helper.make_tensor_value_info(name, kind, ["n", width]) for name, kind, width in given],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)

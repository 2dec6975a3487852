"""A model small enough to reason about (logit = the mean of the ids' rows - c), and the trainer of its chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock import native
from penstock.registry import bundles
from penstock.registry.chain import Published, Publisher
from penstock.registry.runtime import onnxruntime_library
from penstock.streams import open_topic
from penstock.training.snapshots import write_snapshot
from penstock.training.tables import Constant, EmbeddingTables, Sgd, Table

OF = {"positions": {"samples": {0: 1}}, "event_time_ms": 1}


def graph(c: float) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    given = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 1])
    gives = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])
    nodes = [
        helper.make_node("Sub", ["rows", "c"], ["moved"]),
        helper.make_node("Squeeze", ["moved", "axis"], ["logit"]),
    ]
    weights = [
        numpy_helper.from_array(np.float32([c]), "c"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    made = helper.make_graph(nodes, "g", [given], [gives], weights)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString())


def tables() -> EmbeddingTables:
    return EmbeddingTables([Table("rows", 1, Sgd(), 1.0, Constant(0.0))], {"ids": "rows"}, threads=1)


class Trainer:
    """A trainer of the model: `put` sets rows, `publish` publishes them, `base` writes a bundle of it all."""

    def __init__(
        self, folder: Path, topic: str, generation: int = 1, held: EmbeddingTables | None = None, chain: str = "m"
    ) -> None:
        self.folder, self.c, self.chain = folder, 0.0, chain
        self.tables = held or tables()
        self.topic = open_topic(topic)
        self.first = self.written("base-0") if held is None else folder / "base-0"
        self.digest = bundles.digest_of_folder(self.first)
        self.publisher = Publisher(self.topic, chain, generation, plan="", base=self.digest)
        if held is None:
            self.publisher.track(self.tables.native)
        self.done: Published | None = None

    def put(self, keys: Sequence[int], value: float) -> None:
        count = len(keys)
        self.tables.native.put(
            0, np.array(keys, np.int64), np.full(count, value, np.float32), np.zeros(0, np.float32),
            np.ones(count, np.uint32), np.zeros(count, np.uint32),
        )  # fmt: skip

    def publish(self, c: float | None = None) -> Published:
        self.c = self.c if c is None else c
        dense = None if c is None else {"c": np.float32([c])}
        self.done = self.publisher.publish(self.tables.native, dense=dense, **OF)
        return self.done

    def written(self, name: str) -> Path:
        staged, folder = self.folder / f"{name}.tmp", self.folder / name
        staged.mkdir(parents=True)
        write_snapshot(self.tables, staged / "rows.snapshot")
        (staged / "dense.onnx").write_bytes(graph(self.c))
        (staged / "categories.json").write_text("{}")
        layout = {"numeric": [], "vectors": [], "categorical": [], "slots": [["ids", ""]], "positions": False}
        manifest = {
            "algorithm": "deep", "plan": "", "lineage": {"online": {"of": self.chain}},
            "signature": {
                "inputs": [{"name": "ids", "type": "list<item: int64>"}],
                "outputs": [{"name": "score", "type": "double"}],
            },
            "encoder": {"layout": layout, "widths": [], "places": 0},
            "model": {
                "form": "deep", "model": "mean", "slots": ["ids"], "numbers": [],
                "feeds": [{"name": "rows", "kind": "pooled", "slots": ["ids"], "pooling": "mean"}],
            },
        }  # fmt: skip
        bundles.seal(staged, folder, manifest)
        return folder

    def base(self, name: str) -> Path:
        """A base as of the last delta, announced."""
        assert self.done is not None
        folder = self.written(name)
        digest = bundles.digest_of_folder(folder)
        at = self.done
        self.publisher.announce(str(folder), digest=digest, sequence=at.sequence, offset=at.last + 1)
        return folder

    def close(self) -> None:
        self.topic.close()


def served(folder: Path, overlay_bytes: int | None = 1 << 20) -> native.ServedModel:
    return native.ServedModel(str(folder), str(onnxruntime_library() or ""), overlay_bytes=overlay_bytes)


def scores(model: native.ServedModel, ids: Sequence[Sequence[int]]) -> np.ndarray:
    texts = pa.array([str(list(row)) for row in ids], pa.string())
    ((_, _, values),) = model.predict([("ids", [len(ids)], texts)])
    return np.asarray(pa.array(values))

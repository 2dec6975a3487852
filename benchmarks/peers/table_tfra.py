"""TensorFlow Recommenders Addons' side of the table benchmark: a dynamic_embedding Variable on its cuckoo table.

An update is row-wise Adagrad in TensorFlow's operations over rows of values and sum side by side: one look-up, one
upsert. Its DynamicEmbeddingOptimizer (element-wise Adagrad, a second table for the sums) is slower: `wrapper` times it.

New keys: `insert` is the same update (the look-up gives what the initialiser says, the upsert values and sum), in a
table made at its final size; `insert_growing` the same in one of the default size; `insert_bare` an upsert of zeros.
"""

from __future__ import annotations

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_USE_LEGACY_KERAS="1")  # its optimizer wrapper knows no other Keras

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders_addons as tfra

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve
from table_streams import Streams, timed

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
de = tfra.dynamic_embedding
KEYS = tf.TensorSpec([None], tf.int64)
#: TFRA's own default for a table's first size.
GROWING = 8192


class Table:
    """Rows of `dim` values, and the sum of row-wise Adagrad beside them if `state`."""

    def __init__(self, name: str, rows: int, dim: int, rate: float, state: int) -> None:
        width, grads = dim + state, tf.TensorSpec([None, dim], tf.float32)
        self.width = width
        self.variable = de.get_variable(
            name, key_dtype=tf.int64, value_dtype=tf.float32, dim=width, initializer=0.0, init_size=rows,
            devices=["/CPU:0"], kv_creator=de.CuckooHashTableCreator(),
        )  # fmt: skip

        @tf.function(input_signature=[KEYS])
        def lookup(keys: Any) -> Any:
            found = self.variable.lookup(keys)
            return found[:, :dim] if state else found

        @tf.function(input_signature=[KEYS, tf.TensorSpec([None, width], tf.float32)])
        def insert(keys: Any, values: Any) -> None:
            self.variable.upsert(keys, values)

        @tf.function(input_signature=[KEYS, grads])
        def update(keys: Any, gradients: Any) -> Any:
            distinct, places = tf.unique(keys)
            rows = self.variable.lookup(distinct)
            values = rows[:, :dim]
            out = tf.gather(values, places)
            summed = tf.math.unsorted_segment_sum(gradients, places, tf.size(distinct))
            squares = rows[:, dim:] + tf.reduce_mean(summed * summed, 1, keepdims=True)
            values -= rate * summed / (tf.sqrt(squares) + 1e-8)
            self.variable.upsert(distinct, tf.concat([values, squares], 1))
            return out

        self.lookup, self.insert, self.update = lookup, insert, update

    def fill(self, keys: Any, values: Any) -> None:
        for at in range(0, len(keys), 65536):
            self.insert(tf.constant(keys[at : at + 65536]), tf.constant(values[at : at + 65536]))


held: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    streams = held["streams"] = Streams(question["folder"])
    dim = streams.dim
    held["rate"] = question["rate"]
    # Look-ups read a table of values alone; it is filled anew by `insert`.
    held["values"] = Table("values", streams.rows, dim, 0.0, 0)
    held["trained"] = Table("trained", streams.rows, dim, question["rate"], 1)
    for name, state in (("values", 0), ("trained", 1)):
        held[name].fill(streams.keys, np.zeros((streams.rows, dim + state), dtype=np.float32))
    held["values_of"] = tf.zeros([65536, dim])
    # Graphs are made by the first call.
    one = tf.constant(streams.keys[:1])
    held["values"].lookup(one)
    held["trained"].update(one, tf.zeros([1, dim]))
    return f"{tfra.__version__} (tensorflow {tf.__version__})"


def values(keys: list[int]) -> Mapping[str, Any]:
    return {"values": held["trained"].lookup(tf.constant(keys, tf.int64)).numpy().tolist()}


def answer(job: str, **question: Any) -> Mapping[str, Any]:
    streams: Streams = held["streams"]
    if job == "values":
        return values(question["keys"])
    if job == "learn":
        held["trained"].update(tf.constant(question["keys"], tf.int64), tf.constant(question["grads"]))
        return values(question["keys"])
    if job == "wrapper":
        return wrapper(streams, **question)
    if job == "insert":
        return insert(streams, **question)
    grads = tf.constant(streams.grads)

    def one(keys: Any) -> None:
        if job == "lookup":
            held["values"].lookup(tf.constant(keys))
        else:
            held["trained"].update(tf.constant(keys), grads[: len(keys)])

    return timed(streams.batches(**question), one, question["seconds"])


def insert(streams: Streams, table: str, first: int, count: int, batch: int) -> Mapping[str, Any]:
    if first == 0:
        held[table] = fresh(streams, table)
    into, grads = held[table], tf.constant(streams.grads)

    def one(keys: Any) -> None:
        if table == "bare":
            into.insert(tf.constant(keys), held["values_of"][: len(keys)])
        else:
            into.update(tf.constant(keys), grads[: len(keys)])

    return timed(streams.parts(first, count, batch), one, None)


def fresh(streams: Streams, table: str) -> Table:
    """An empty table whose graphs are made."""
    size = GROWING if table == "growing" else streams.rows
    made = Table(table, size, streams.dim, held["rate"], 0 if table == "bare" else 1)
    made.variable.clear()
    nothing = tf.constant(streams.keys[:0])
    made.insert(nothing, tf.zeros([0, made.width]))
    if table != "bare":
        made.update(nothing, tf.zeros([0, streams.dim]))
    return made


def wrapper(streams: Streams, **question: Any) -> Mapping[str, Any]:
    """Updates by TFRA's own optimizer wrapper."""
    if "step" not in held:
        inner = tf.keras.optimizers.legacy.Adagrad(held["rate"], initial_accumulator_value=0.0, epsilon=1e-8)
        optimizer = de.DynamicEmbeddingOptimizer(inner)
        shadow = de.shadow_ops.ShadowVariable(held["values"].variable, name="shadow")

        @tf.function(input_signature=[KEYS, tf.TensorSpec([None, streams.dim], tf.float32)])
        def step(keys: Any, gradients: Any) -> Any:
            distinct, places = tf.unique(keys)
            with tf.GradientTape() as tape:
                out = tf.gather(de.shadow_ops.embedding_lookup(shadow, distinct), places)
            optimizer.apply_gradients([(tape.gradient(out, shadow, output_gradients=gradients), shadow)])
            return out

        step(tf.constant(streams.keys[:1]), tf.zeros([1, streams.dim]))
        held["step"] = step
    grads = tf.constant(streams.grads)
    batches = streams.batches(**question)
    return timed(batches, lambda keys: held["step"](tf.constant(keys), grads[: len(keys)]), question["seconds"])


if __name__ == "__main__":
    serve(setup, answer)

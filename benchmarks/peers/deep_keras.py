"""Keras 3 on TensorFlow: tf.data with prefetching, a step in tf.function, the table's gradients as IndexedSlices."""

from __future__ import annotations

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from collections.abc import Iterator, Mapping
from typing import Any

import deep_contender
import keras
import numpy as np
import tensorflow as tf
from deep_reading import BATCH, DENSE, SLOTS, once

DIM, HIDDEN = 16, (256, 128)
ADAM_RATE, ADAGRAD_RATE, SPREAD = 1e-3, 0.05, 0.01


class Net(keras.Model):
    """A row is its key's embedding and its weight in the wide part; all slots lie in one table, one after another."""

    def __init__(self, keys: int, fm: bool) -> None:
        super().__init__()
        self.fm = fm
        start = keras.initializers.RandomUniform(-SPREAD, SPREAD, seed=0)
        self.table = keras.layers.Embedding(keys, DIM + 1, embeddings_initializer=start)
        hidden = [keras.layers.Dense(width, "relu") for width in HIDDEN]
        self.deep = keras.Sequential([*hidden, keras.layers.Dense(1)])
        self.line = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        ids, dense = inputs
        rows = self.table(ids)
        fields = rows[:, :, :DIM]
        logits = self.deep(tf.concat([tf.reshape(fields, (-1, SLOTS * DIM)), dense], 1)) + self.line(dense)
        logits += tf.reduce_sum(rows[:, :, DIM:], 1)
        if self.fm:
            total = tf.reduce_sum(fields, 1)
            second = tf.reduce_sum(total * total, 1) - tf.reduce_sum(fields * fields, (1, 2))
            logits += 0.5 * second[:, None]
        return logits


class Keras:
    version = f"{keras.__version__}, tensorflow {tf.__version__}"

    def __init__(self, question: Mapping[str, Any]) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(2)
        tf.config.threading.set_inter_op_parallelism_threads(2)
        keras.utils.set_random_seed(0)
        sizes = np.array(question["sizes"])
        self.starts = (np.cumsum(sizes) - sizes).astype(np.int32)[:, None]
        self.net = Net(int(sizes.sum()), question["model"] == "deepfm")
        self.net((np.zeros((1, SLOTS), np.int32), np.zeros((1, DENSE), np.float32)))
        tables, dense = (
            self.net.table.trainable_variables,
            [v for v in self.net.trainable_variables if v is not self.net.table.trainable_variables[0]],
        )
        rows_of, dense_of = keras.optimizers.Adagrad(ADAGRAD_RATE, 0.0), keras.optimizers.Adam(ADAM_RATE)
        rows_of.build(tables)
        dense_of.build(dense)
        loss_of = keras.losses.BinaryCrossentropy(from_logits=True)

        def read() -> Iterator[Any]:
            while True:
                for ids, numbers, labels in once(question["train"]):
                    yield self._ids(ids), numbers, labels[:, None]

        shapes = (
            tf.TensorSpec((BATCH, SLOTS), tf.int32), tf.TensorSpec((BATCH, DENSE), tf.float32),
            tf.TensorSpec((BATCH, 1), tf.float32),
        )  # fmt: skip
        self.batches = iter(tf.data.Dataset.from_generator(read, output_signature=shapes).prefetch(4))

        @tf.function
        def step(ids: Any, numbers: Any, labels: Any) -> None:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, self.net((ids, numbers), training=True))
            grads = tape.gradient(loss, [v.value for v in (*tables, *dense)])
            rows_of.apply(grads[:1], tables)
            dense_of.apply(grads[1:], dense)

        self.step = step
        self.scored = tf.function(lambda ids, numbers: self.net((ids, numbers)))
        self.table_bytes = 2 * int(sizes.sum()) * (DIM + 1) * 4

    def _ids(self, ids: Any) -> Any:
        return np.ascontiguousarray((ids + self.starts).T)

    def train(self, batches: int) -> None:
        for _ in range(batches):
            self.step(*next(self.batches))

    def score(self, ids: Any, dense: Any) -> Any:
        return self.scored(tf.constant(self._ids(ids)), tf.constant(dense)).numpy()


if __name__ == "__main__":
    deep_contender.run(Keras)

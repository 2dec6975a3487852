"""Runs in TensorFlow's environment: leaves models, and how they score ROWS, in the folder that is named.

`PYTHON models.py FOLDER`. ROWS: rows.npy, 4 numbers a row.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

WHERE = Path(sys.argv[1])
ROWS = np.load(WHERE / "rows.npy")
keras.utils.set_random_seed(1)


def save(name, model, given=None):
    """As a `.keras` file and as a SavedModel, with the scores of the rows."""
    model.save(WHERE / f"{name}.keras")
    model.export(WHERE / name, verbose=False)
    if given is not None:
        found = model(given, training=False)
        found = found if isinstance(found, list) else [found]
        np.savez(WHERE / f"{name}.npz", *[each.numpy() for each in found])


def sequence(*layers):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), *layers])


save("binary", sequence(keras.layers.Dropout(0.5), keras.layers.Dense(1, activation="sigmoid")), ROWS)
save("two", sequence(keras.layers.Dense(2, activation="softmax")), ROWS)
save("three", sequence(keras.layers.Dense(3, activation="softmax")), ROWS)

age, rest, city = keras.Input((1,), name="age"), keras.Input((3,)), keras.Input((1,), name="city", dtype="int32")
scale = keras.layers.Normalization()
scale.adapt(ROWS[:, :1])
place = keras.layers.Flatten()(keras.layers.Embedding(10, 2)(city))
joined = keras.layers.Concatenate()([scale(age), rest, place])
hidden = keras.layers.LayerNormalization()(keras.layers.Dense(8, activation="swish")(joined))
clicks = keras.layers.Dense(1, activation="sigmoid", name="ctr")(hidden)
orders = keras.layers.Dense(1)(hidden)
columns = [ROWS[:, :1], ROWS[:, 1:], np.arange(len(ROWS), dtype=np.int32).reshape(-1, 1) % 10]
save("columns", keras.Model([age, rest, city], [clicks, orders]), columns)

# --- what is refused ---

texts, numbers = keras.Input((1,), dtype="string"), keras.Input((1,))
looked_up = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(texts)
save("lookup", keras.Model(texts, keras.layers.Dense(1)(looked_up)))
ranges = keras.layers.Discretization(bin_boundaries=[0.0, 1.0], output_mode="one_hot")(numbers)
save("ranges", keras.Model(numbers, keras.layers.Dense(1)(ranges)))
keras.config.enable_unsafe_deserialization()
save("program", keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x[:, :1] + 1)]))
sequence(keras.layers.Dense(1)).save(WHERE / "old.h5")


@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x[:, :1]


save("own", keras.Sequential([keras.Input((4,)), Doubled()]), ROWS)

any_rows = tf.TensorSpec((None, 4), tf.float32, name="x")


def function(name, call, spec=any_rows):
    module = tf.Module()
    module.call = tf.function(call, input_signature=[spec])
    tf.saved_model.save(module, WHERE / name, signatures=module.call)


def written(x):
    tf.io.write_file(str(WHERE / "written"), "by the model")
    return x[:, :1]


def python(x):
    return tf.ensure_shape(tf.numpy_function(lambda v: v[:, :1] * 2, [x], tf.float32), (None, 1))


function("writes", written)
function("reads", lambda x: x[:, :1] + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32))
function("lists", lambda x: x[:, :1] + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32))
function("python", python)
function("prints", lambda x: [tf.print(x, output_stream=f"file://{WHERE}/printed"), x[:, :1]][1])
function("one_row", lambda x: x[:, :1], tf.TensorSpec((1, 4), tf.float32, name="x"))
function("special", lambda x: tf.math.bessel_i0(x[:, :1]))
function("wide", lambda x: tf.cast(x, tf.float64)[:, :3] / 3)

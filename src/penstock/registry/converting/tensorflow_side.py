"""Runs in TensorFlow's own environment, where Penstock is not: `PYTHON -I tensorflow_side.py MODEL EXPORTED`.

MODEL: a SavedModel's folder (EXPORTED is ""), or a `.keras` file, which is exported to the folder EXPORTED as well. One
JSON a line goes out on stdout: first what the model is, then an answer to each line that comes in.
{"given": FILE.npz, "found": FILE.npz} scores the arrays of one file into another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

Scores = Callable[[dict[str, Any]], dict[str, Any]]


def main(model: str, exported: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the libraries print is no answer
    try:
        import tensorflow as tf
        import tf2onnx

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        describe, scores = keras_model(tf, model, exported) if exported else saved_model(tf, model)
        libraries = {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}
        say(answers, {**describe, "libraries": {**libraries, **describe["libraries"]}})
    except BaseException as error:
        say(answers, failure(error))
        return
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            with np.load(asked["given"], allow_pickle=False) as given:
                found = scores({name: given[name] for name in given.files})
            np.savez(asked["found"], **found)
            say(answers, {})
        except Exception as error:
            say(answers, failure(error))


def saved_model(tf: Any, folder: str) -> tuple[dict[str, Any], Scores]:
    """The signature `serving_default` of a SavedModel."""
    loaded = tf.saved_model.load(folder, tags=["serve"])
    if "serving_default" not in loaded.signatures:
        names = ", ".join(loaded.signatures) or "none"
        raise ValueError(f"it has no signature 'serving_default' (its signatures: {names})")
    function = loaded.signatures["serving_default"]
    specs = function.structured_input_signature[1]

    def scores(given: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: tf.constant(values, specs[name].dtype) for name, values in given.items()}
        return {name: tensor.numpy() for name, tensor in function(**tensors).items()}

    inputs = [described(name, spec) for name, spec in specs.items()]
    outputs = [described(name, spec) for name, spec in function.structured_outputs.items()]
    return {"inputs": inputs, "outputs": outputs, "libraries": {}}, scores


def keras_model(tf: Any, file: str, exported: str) -> tuple[dict[str, Any], Scores]:
    """A model of Keras' own layers, opened in safe mode, which runs no program of the file."""
    import keras

    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    alone = isinstance(model, keras.Sequential)
    takes, gives = (model.inputs[0], model.outputs[0]) if alone else (model.input, model.output)
    taken = keras.tree.flatten(takes)
    inputs = [tensor.name for tensor in taken]
    outputs = list(gives) if isinstance(gives, dict) else [layer_name(each) for each in keras.tree.flatten(gives)]
    if len(set(outputs)) < len(outputs):
        outputs = [f"output_{i}" for i in range(len(outputs))]

    def call(**given: Any) -> dict[str, Any]:
        found = model(keras.tree.pack_sequence_as(takes, [given[name] for name in inputs]), training=False)
        return dict(zip(outputs, keras.tree.flatten(found), strict=True))

    specs = {t.name: tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in taken}
    function = tf.function(call, autograph=False).get_concrete_function(**specs)
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, exported, signatures={"serving_default": function})

    def scores(given: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: tf.constant(values, specs[name].dtype) for name, values in given.items()}
        return {name: tensor.numpy() for name, tensor in call(**tensors).items()}

    told = {
        "inputs": [described(name, specs[name]) for name in inputs],
        "outputs": [described(name, function.structured_outputs[name]) for name in outputs],
        "libraries": {"keras": keras.__version__},
    }
    return told, scores


def layer_name(tensor: Any) -> str:
    """The name of the layer that gives an output where a person gave it, else `output`."""
    operation = tensor._keras_history.operation
    kind = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(operation).__name__).lstrip("_")
    name = str(operation.name)
    return "output" if name.rstrip("0123456789").rstrip("_") == kind else name


def described(name: str, spec: Any) -> dict[str, Any]:
    shape = None if spec.shape.rank is None else [-1 if n is None else int(n) for n in spec.shape]
    return {"name": name, "dtype": spec.dtype.name, "shape": shape}


def failure(error: BaseException) -> dict[str, Any]:
    missing = error.name if isinstance(error, ImportError) else None
    said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    return {"error": said, "missing": missing}


def say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # libraries' threads and destructors have nothing left to say

"""Keras and TensorFlow: tf2onnx and the original's own scores, both in TensorFlow's own environment.

What runs there is `tensorflow_side.py`, with this process's limits. Nothing of the model is loaded here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.registry.converting import keras_files, onnx_graphs, saved_models
from penstock.registry.converting.request import Request
from penstock.registry.converting.rows import MATRIX
from penstock.registry.converting.tensors import Feed, Tensor, named
from penstock.registry.faults import ConversionError

OPSET = 17
#: What was tried together; the commands that make their environment are in `request.tensorflow_place`.
PACKAGES = ("tensorflow-cpu==2.21.0", "tf2onnx==1.17.0")

#: Names that Keras and TensorFlow give where a person gave none: they differ from one training to the next.
_UNNAMED_INPUT = re.compile(r"(keras_tensor|input_layer|inputs?|args|x|\w+_input)(_\d+)?")
_UNNAMED_OUTPUT = re.compile(r"output(_\d+)?")


class TensorflowOriginal:
    """A SavedModel's signature `serving_default`, or a Keras model. Inputs keep the names that a person gave them."""

    library = "tensorflow"
    precisions: Sequence[str] = ("FP32",)

    def __init__(self, request: Request) -> None:
        path, scratch = Path(request.path), Path(request.folder).parent
        self.algorithm = "tensorflow" if path.is_dir() else "keras"
        if path.is_dir():
            folder = saved_models.staged(path, scratch)
            self.side = _Side(request, folder, "")
        else:
            keras_files.inspect(path)
            folder = scratch / "exported"
            self.side = _Side(request, path, str(folder))
            folder = saved_models.staged(folder, scratch)
        self._inputs = _names(self._told("input"), _UNNAMED_INPUT, MATRIX)
        self.model, self.libraries = self.side.converted(folder, scratch / "converted.onnx"), self.side.libraries
        self._positive, self._outputs = self._finish()

    def _told(self, kind: str) -> list[Tensor]:
        """Inputs or outputs: a signature has no order but that of the numbers in its names."""
        tensors = _tensors(self.side.told[f"{kind}s"], kind)
        return sorted(tensors, key=_number) if self.algorithm == "tensorflow" else tensors

    def _finish(self) -> tuple[bool, Mapping[str, Tensor]]:
        """Give the graph's ends their names; say whether the score is P(second class), and the outputs by old names."""
        told = {tensor.name: tensor for tensor in self._told("output")}
        if len(told) > 1:
            outputs = _names(list(told.values()), _UNNAMED_OUTPUT, "output")
            onnx_graphs.rename_ends(self.model, _old_to_new(self._inputs), _old_to_new(outputs))
            return False, outputs
        [old] = told
        softmax = onnx_graphs.made_by(self.model, old) == "Softmax"
        width = told[old].width
        positive = softmax and width == 2 and len(told[old].shape) == 2
        plain = positive or width == 1
        name = "score" if plain else "probabilities" if softmax else "output"
        onnx_graphs.rename_ends(self.model, _old_to_new(self._inputs), {old: name})
        return positive, {old: onnx_graphs.score_out(self.model, name, positive, name)}

    def inputs(self, precision: str) -> Sequence[Tensor]:
        return list(self._inputs.values())

    def scores(self, feed: Feed) -> Feed:
        found = self.side.scores({old: tensor.cast(feed[tensor.name]) for old, tensor in self._inputs.items()})
        if self._positive:
            found = {name: values[:, 1] for name, values in found.items()}
        return {tensor.name: found[old].reshape(-1, *tensor.shape[1:]) for old, tensor in self._outputs.items()}

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        outputs = list(self._outputs.values())
        onnx_graphs.save(self.model, folder)
        form = onnx_graphs.form(self.inputs(precision), outputs)
        return {"algorithm": self.algorithm, "model": form, "outputs": outputs, "libraries": self.libraries}


def load(request: Request) -> TensorflowOriginal:
    return TensorflowOriginal(request)


class _Side:
    """The process in TensorFlow's environment. `told`: its inputs and outputs as they are called there."""

    def __init__(self, request: Request, model: Path, exported: str) -> None:
        if not request.tensorflow_python:
            raise _no_environment(
                "models of Keras and TensorFlow are converted in an environment of TensorFlow", request
            )
        self.request, self.python = request, request.tensorflow_python
        self.scratch = Path(request.folder).parent
        script = Path(__file__).with_name("tensorflow_side.py")
        try:
            self.process = subprocess.Popen(
                [self.python, "-I", str(script), str(model), exported],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
        except OSError as error:
            raise _no_environment(f"TensorFlow's Python {self.python} does not start ({error})", request) from error
        self.told = self._answer()
        if missing := self.told.get("missing"):
            raise _no_environment(f"{self.python} has no {missing}", request)
        if said := self.told.get("error"):
            raise ConversionError(f"TensorFlow cannot load {request.path}: {said}", code="REG015")
        self.libraries: Mapping[str, str] = self.told["libraries"]

    def scores(self, feed: Feed) -> dict[str, Any]:
        """Raises ValueError with what TensorFlow said."""
        given, found = self.scratch / "given.npz", self.scratch / "found.npz"
        np.savez(given, **feed)  # type: ignore[arg-type]  # names are inputs'
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"given": str(given), "found": str(found)}) + "\n")
        self.process.stdin.flush()
        if said := self._answer().get("error"):
            raise ValueError(said)
        with np.load(found, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def converted(self, folder: Path, path: Path) -> Any:
        """The SavedModel in `folder` as ONNX. Raises `ConversionError` (REG018)."""
        command = [self.python, "-I", "-m", "tf2onnx.convert", "--saved-model", str(folder), "--tag", saved_models.TAG]
        command += ["--signature_def", "serving_default", "--opset", str(OPSET), "--output", str(path)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
        )
        log = done.stdout + done.stderr
        sys.stderr.write(log)
        # It ends with 0 where it has left operators in the graph that ONNX does not have.
        unknown = sorted(set(re.findall(r"Tensorflow op \[[^\]]*: (\w+)\] is not supported", log)))
        if unknown or done.returncode or not path.is_file():
            last = (log.strip().splitlines() or ["it wrote nothing"])[-1]
            said = f"it has no way for {', '.join(unknown)}" if unknown else last[:300]
            raise ConversionError(f"tf2onnx cannot convert {self.request.path}: {said}", saved_models.BEFORE, "REG018")
        return onnx_graphs.read(path)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = f"TensorFlow's process ended with {self.process.wait()}"
            raise ConversionError(f"converting {self.request.path} failed: {said}", code="REG015")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _no_environment(said: str, request: Request) -> ConversionError:
    place = request.tensorflow_place
    made = f"python3 -m venv {place} && {place}/bin/pip install {' '.join(PACKAGES)}"
    return ConversionError(said, f"{made}; or name another's interpreter: PENSTOCK_TENSORFLOW_PYTHON", "REG018")


def _tensors(told: Sequence[Mapping[str, Any]], kind: str) -> list[Tensor]:
    """What the side has told, as the wire has it. Raises `ConversionError` (REG017, REG018)."""
    found = []
    for each in told:
        name, dtype, shape = each["name"], each["dtype"], each["shape"]
        if dtype == "string":
            raise ConversionError(f"{kind} '{name}' is text, which does not convert", saved_models.BEFORE, "REG018")
        if not shape or shape[0] >= 0:
            said = f"{kind} '{name}' has the shape {shape}: its first axis is not any number of rows"
            raise ConversionError(said, "save it with None as the first axis", "REG017")
        try:
            found.append(Tensor(name, named(dtype), tuple(shape)))
        except (TypeError, ValueError) as error:
            raise ConversionError(f"{kind} '{name}' is {dtype}, which cannot be served", code="REG017") from error
    return found


def _names(tensors: Sequence[Tensor], unnamed: re.Pattern[str], name: str) -> dict[str, Tensor]:
    """Old name -> the tensor by its stable name: its own, or NAME, NAME_1, ... in order."""
    plain = [tensor for tensor in tensors if unnamed.fullmatch(tensor.name)]
    taken = {tensor.name for tensor in tensors} - {tensor.name for tensor in plain}
    numbers = (f"{name}_{i}" if i else name for i in range(len(tensors)))
    free = [each for each in numbers if each not in taken]
    new = {tensor.name: other for tensor, other in zip(plain, free, strict=False)}
    return {t.name: Tensor(new.get(t.name, t.name), t.datatype, t.shape) for t in tensors}


def _number(tensor: Tensor) -> tuple[str, int]:
    stem, _, number = tensor.name.rpartition("_")
    return (stem, int(number)) if number.isdigit() else (tensor.name, 0)


def _old_to_new(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {old: tensor.name for old, tensor in tensors.items()}

"""Models of other frameworks that came into the registry as ONNX, as `predict` scores them: columns by input's name.

What the host does with tensors (crates/penstock-serve/src/model/tensors.rs) is done here with columns of a frame.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.registry.bundles import GRAPH
from penstock.registry.converting.tensors import Tensor
from penstock.registry.faults import BundleError
from penstock.training.faults import InputError
from penstock.training.inputs import Layout, is_list, is_text
from penstock.training.matrices import Encoder, Matrix

#: Rows scored at a time: what a graph makes of so many is held at once.
BLOCK = 4_096


@dataclass
class TensorEncoder(Encoder):
    """Columns as the inputs of a graph: a number, text or list of numbers a row, by name."""

    inputs: tuple[Tensor, ...] = field(default=(), kw_only=True)

    @staticmethod
    def of(stored: Sequence[Mapping[str, Any]]) -> TensorEncoder:
        """`stored`: `model.inputs` of the manifest."""
        inputs = tuple(Tensor(str(i["name"]), str(i["datatype"]), tuple(i["shape"])) for i in stored)
        return TensorEncoder(Layout(numeric=tuple(tensor.name for tensor in inputs)), inputs=inputs)

    def encode(self, batch: pa.RecordBatch) -> Matrix:
        """Raises `InputError` (TRAIN046) naming a column, and a row of it, that an input cannot hold."""
        tensors = {each.name: values(batch.column(each.name), each) for each in self.inputs}
        return Matrix(batch.num_rows, np.zeros((batch.num_rows, 0), np.float32), (), tensors)

    def as_dict(self) -> dict[str, Any]:
        return Encoder(Layout()).as_dict()


@dataclass(frozen=True, eq=False)
class GraphScorer:
    """score = the graph's one output. A row's last bits may differ with the batch that it is scored in."""

    folder: Path
    stored: Mapping[str, Any]
    #: Threads -> ONNX Runtime's session.
    sessions: dict[int, Any] = field(default_factory=dict)

    def scores(self, matrix: Matrix, threads: int) -> npt.NDArray[np.float64]:
        session = self.sessions.get(threads) or self.sessions.setdefault(threads, self._session(threads))
        [output] = self.stored["outputs"]
        found = [np.zeros(0)]
        for start in range(0, matrix.rows, BLOCK):
            part = matrix.part(start, min(matrix.rows, start + BLOCK))
            try:
                [scores] = session.run([output["name"]], dict(part.tensors))
            except Exception as error:  # its errors have no class of their own
                said = " ".join(str(error).split())[:300]
                raise InputError(f"the model does not score the rows: {said}", code="TRAIN046") from error
            found.append(np.asarray(scores, np.float64).reshape(-1))
        return np.concatenate(found)

    def _session(self, threads: int) -> Any:
        try:
            import onnxruntime as ort
        except ImportError as error:
            said = "the model is an ONNX graph, and onnxruntime, which runs it, is not installed"
            raise BundleError(said, "pip install onnxruntime", "TRAIN046") from error
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        return ort.InferenceSession(self.folder / GRAPH, options, providers=["CPUExecutionProvider"])

    def save(self, folder: Path) -> Mapping[str, Any]:
        shutil.copyfile(self.folder / GRAPH, folder / GRAPH)
        return dict(self.stored)

    @staticmethod
    def load(folder: Path, stored: Mapping[str, Any]) -> GraphScorer:
        """Raises `BundleError` (TRAIN013) for a model that gives more than one number a row."""
        outputs = stored["outputs"]
        wide = [output for output in outputs if any(n != 1 for n in output["shape"][1:])]
        if len(outputs) != 1 or wide:
            given = ", ".join(f"'{output['name']}' {output['shape']}" for output in outputs)
            said = f"the model gives {given}, and predict adds one score a row"
            raise BundleError(said, "serve it: a host gives all of its outputs", "TRAIN013")
        return GraphScorer(folder, stored)


def values(column: pa.Array, tensor: Tensor) -> npt.NDArray[Any]:
    """A column as an input takes it, in its shape: instants as microseconds, a null number as NaN.

    Raises `InputError` (TRAIN046) for another type, lists of another length, and nulls that the input cannot hold.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    shape = (len(column), *tensor.shape[1:])
    if is_list(column.type) and (len(shape) == 2 or tensor.width > 0):
        column, length = _flat(column, tensor)
        shape = shape if tensor.width >= 0 else (shape[0], length)
    elif tensor.width != 1:
        wanted = tensor.width if tensor.width >= 0 else "equally many"
        raise _misfit(tensor, f"is {column.type}, and the model takes lists of {wanted} values")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    if column.null_count and not tensor.is_float:
        said = f"holds nulls ({column.null_count} of {len(column)}), which {tensor.datatype} cannot"
        raise _misfit(tensor, said, f'fill them before: columns="coalesce({tensor.name}, 0) as {tensor.name}"')
    return tensor.cast(_elements(column, tensor).reshape(shape))


def _elements(column: pa.Array, tensor: Tensor) -> npt.NDArray[Any]:
    kind, text = column.type, is_text(column.type)
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if tensor.datatype == "BYTES":
        fits, wanted = text, pa.large_string()
    else:
        fits, wanted = not text if tensor.is_float else whole, pa.from_numpy_dtype(tensor.dtype)
    said = ""
    try:
        if fits:
            found: npt.NDArray[Any] = column.cast(wanted, safe=not tensor.is_float).to_numpy(zero_copy_only=False)
            return found
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        said = f" ({error})"
    raise _misfit(tensor, f"is {kind}, and the model takes {tensor.datatype}{said}")


def _flat(column: pa.Array, tensor: Tensor) -> tuple[pa.Array, int]:
    """The elements of lists that are all of the input's length, and that length."""
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    wanted = tensor.width if tensor.width >= 0 else int(lengths.max(initial=0))
    wrong = lengths[lengths != wanted]
    if len(wrong):
        found = "null" if wrong[0] < 0 else f"{wrong[0]} long"
        raise _misfit(
            tensor, f"holds lists of {wanted} values, but one is {found}", "the model takes all of one length"
        )
    return column.flatten(), wanted


def _misfit(tensor: Tensor, said: str, hint: str = "cast it where it is read") -> InputError:
    return InputError(f"column '{tensor.name}' {said}", hint, "TRAIN046")

"""ONNX graphs: what of them is let in, their signature, and the little that is changed at their ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix

from penstock.registry.bundles import GRAPH
from penstock.registry.converting.request import Request
from penstock.registry.converting.tensors import Feed, Tensor, named
from penstock.registry.faults import ConversionError

STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_LARGEST = (2 << 30) - 1
#: What every name inside of a graph begins with once its ends have been named anew.
_INNER = "inner/"


class OnnxOriginal:
    """An ONNX file: what is served is the file itself, so the proof is that it runs at all."""

    algorithm = "onnx"
    library = "onnx"
    precisions: Sequence[str] = ("FP32",)

    def __init__(self, request: Request) -> None:
        self.path = Path(request.path)
        self.model = read(self.path)
        self._outputs = tensors(self.model.graph.output, "output")
        self._session = session(self.path)

    def inputs(self, precision: str) -> Sequence[Tensor]:
        own = {initializer.name for initializer in self.model.graph.initializer}
        return tensors([i for i in self.model.graph.input if i.name not in own], "input")

    def scores(self, feed: Feed) -> Feed:
        cast = {tensor.name: tensor.cast(feed[tensor.name]) for tensor in self.inputs("FP32")}
        names = [output.name for output in self._outputs]
        return dict(zip(names, self._session.run(names, cast), strict=True))

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        save(self.model, folder)
        return {"algorithm": "onnx", "model": form(self.inputs(precision), self._outputs), "outputs": self._outputs}


def load(request: Request) -> OnnxOriginal:
    return OnnxOriginal(request)


def read(path: Path) -> onnx.ModelProto:
    """The graph in a file, checked. Raises `ConversionError` (REG015, REG017)."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ConversionError(f"{path} has more than 2 GB", "ONNX in one file holds less", "REG017")
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConversionError(f"{path} cannot be read: {error}", code="REG015") from error
    except Exception as error:  # protobuf's DecodeError is of either of two modules
        raise ConversionError(f"{path} is no ONNX model: {error}", code="REG015") from error
    check(model, str(path))
    return model


def check(model: onnx.ModelProto, where: str) -> None:
    """Raises `ConversionError`: REG017 for what is not let in, REG015 for what is no valid graph."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.domain not in STANDARD and (node.domain, node.op_type) not in own:
            said = f"{where} uses the operator {node.op_type} of the domain '{node.domain}'"
            raise ConversionError(said, "the host runs standard ONNX alone: export with standard operators", "REG017")
    for tensor in _initializers(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            said = f"{where} keeps its weights in other files (external data: '{tensor.name}')"
            raise ConversionError(
                said, "save it in one file: onnx.save(model, path, save_as_external_data=False)", "REG017"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and shape inference raise errors of their own kinds
        said = " ".join(str(error).split())[:300]
        raise ConversionError(f"{where} is no valid ONNX model: {said}", code="REG015") from error


def tensors(values: Sequence[Any], kind: str) -> list[Tensor]:
    """Inputs or outputs as the wire has them. Raises `ConversionError` (REG017)."""
    found = []
    for value in values:
        if not value.type.HasField("tensor_type"):
            said = f"{kind} '{value.name}' is no tensor"
            raise ConversionError(said, "a ZipMap is left out with zipmap=False", "REG017")
        declared = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in declared.shape.dim)
        if not shape or (kind == "input" and shape[0] >= 0):
            said = f"{kind} '{value.name}' has the shape {list(shape)}: its first axis is not any number of rows"
            raise ConversionError(said, "export with a dynamic first axis", "REG017")
        try:
            dtype = helper.tensor_dtype_to_np_dtype(declared.elem_type)
            found.append(Tensor(value.name, named(dtype), (-1, *shape[1:])))
        except (ValueError, KeyError) as error:
            raise ConversionError(f"{kind} '{value.name}': {error}", code="REG017") from error
    return found


def form(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, Any]:
    """What the manifest says of the model."""
    keys = ("name", "datatype", "shape")
    described = [[{key: t.as_dict()[key] for key in keys} for t in several] for several in (inputs, outputs)]
    return {"form": "onnx", "inputs": described[0], "outputs": described[1]}


def save(model: onnx.ModelProto, folder: Path) -> None:
    check(model, "the converted model")
    onnx.save(model, str(folder / GRAPH))


def session(path: Path) -> Any:
    """ONNX Runtime on a graph, one thread. Raises `ConversionError` (REG015) where it refuses the graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own
        said = " ".join(str(error).split())[:300]
        raise ConversionError(f"ONNX Runtime cannot load {path.name}: {said}", code="REG015") from error


# --- the ends of a graph ---


def columns_in(model: onnx.ModelProto, name: str, columns: Sequence[Tensor]) -> None:
    """The matrix `name` is put together from columns [rows, 1], so that requests name them."""
    _standard_operators(model)
    graph = model.graph
    [old] = [value for value in graph.input if value.name == name]
    graph.input.remove(old)
    types = {"FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE}
    graph.input.extend(helper.make_tensor_value_info(c.name, types[c.datatype], ["rows", 1]) for c in columns)
    taken = {value.name for value in columns}
    joined = name if name not in taken else f"{name}__joined"
    if joined != name:
        for node in graph.node:
            for at, used in enumerate(node.input):
                if used == name:
                    node.input[at] = joined
    graph.node.insert(0, helper.make_node("Concat", [c.name for c in columns], [joined], axis=1))


def score_out(model: onnx.ModelProto, output: str, positive: bool, name: str) -> Tensor:
    """Give one output: the second column of a classifier's [rows, 2] as [rows], or the output itself under `name`."""
    _standard_operators(model)
    graph = model.graph
    [value] = [v for v in graph.output if v.name == output]
    declared = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else -1 for d in declared.shape.dim]
    del graph.output[:]
    if output == name and (positive or shape[1:] == [1]):
        output = _renamed(graph, name)
    if positive:
        graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), f"{name}__positive"))
        graph.node.append(helper.make_node("Gather", [output, f"{name}__positive"], [name], axis=1))
        shape = [-1]
    elif shape[1:] == [1]:
        graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{name}__flat"))
        graph.node.append(helper.make_node("Reshape", [output, f"{name}__flat"], [name]))
        shape = [-1]
    elif output != name:
        graph.node.append(helper.make_node("Identity", [output], [name]))
    shape = [-1, *shape[1:]]
    dims = ["rows", *(n if n >= 0 else None for n in shape[1:])]
    graph.output.append(helper.make_tensor_value_info(name, declared.elem_type, dims))
    return Tensor(name, named(helper.tensor_dtype_to_np_dtype(declared.elem_type)), tuple(shape))


def rename_ends(model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Call inputs and outputs by other names, old -> new; every name inside of the graph makes way for them."""
    graph = model.graph
    add_prefix(model, _INNER, inplace=True)
    for values, names in ((graph.input, inputs), (graph.output, outputs)):
        kept = {value.name.removeprefix(_INNER): type(value).FromString(value.SerializeToString()) for value in values}
        del values[:]
        for old, new in names.items():
            kept[old].name = new
            values.append(kept[old])
    ends = [helper.make_node("Identity", [new], [_INNER + old]) for old, new in inputs.items()]
    nodes = [*ends, *graph.node, *(helper.make_node("Identity", [_INNER + old], [new]) for old, new in outputs.items())]
    del graph.node[:]
    graph.node.extend(nodes)


def made_by(model: onnx.ModelProto, output: str) -> str:
    """The kind of the node that makes an output; "" for none."""
    makers = {name: node for node in model.graph.node for name in node.output}
    while output in makers and makers[output].op_type in ("Identity", "Cast"):
        output = makers[output].input[0]
    return str(makers[output].op_type) if output in makers else ""


def _standard_operators(model: onnx.ModelProto) -> None:
    """A graph of trees alone names no version of the standard operators, which its ends need."""
    if not any(opset.domain in ("", "ai.onnx") for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 18))


def set_ints(node: Any, name: str, values: Sequence[int]) -> None:
    """Give a node an attribute of whole numbers."""
    node.attribute.append(helper.make_attribute(name, list(values)))


def _renamed(graph: Any, name: str) -> str:
    """Give a tensor inside the graph another name, so that an output may have this one."""
    other = f"{name}__inner"
    for node in graph.node:
        for names in (node.input, node.output):
            for at, used in enumerate(names):
                if used == name:
                    names[at] = other
    return other


def _nodes(model: onnx.ModelProto) -> Iterator[Any]:
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for graph in _subgraphs(node):
            waiting.extend(graph.node)


def _initializers(model: onnx.ModelProto) -> Iterator[Any]:
    yield from model.graph.initializer
    yield from (sparse.values for sparse in model.graph.sparse_initializer)
    for node in _nodes(model):
        yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
        for graph in _subgraphs(node):
            yield from graph.initializer


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs

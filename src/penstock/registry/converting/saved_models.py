"""TensorFlow SavedModels as they lie in a folder: what of them is let in, found out without TensorFlow.

A SavedModel is a program: its functions may read and write files or call Python, some of them while it is loaded. So
its protobuf is read here first (the few fields of tensorflow/core/protobuf/saved_model.proto that matter), and a copy
of just what was read, with the variables, is what TensorFlow gets to see.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from penstock.registry.faults import ConversionError

GRAPH, VARIABLES, TAG = "saved_model.pb", "variables", "serve"
#: ONNX in one file holds less than this.
_LARGEST = (2 << 30) - 1

#: Message -> field -> its number and type; "*": repeated. A map is its entries. What is not here is skipped.
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "SavedModel": {"graphs": (2, "MetaGraph*")},
    "MetaGraph": {"info": (1, "Info"), "graph": (2, "Graph"), "objects": (7, "Objects")},
    "Info": {"tags": (4, "string*")},
    "Graph": {"nodes": (1, "Node*"), "library": (2, "Library")},
    "Library": {"functions": (1, "Function*")},
    "Function": {"signature": (1, "Signature"), "nodes": (3, "Node*")},
    "Signature": {"name": (1, "string")},
    "Node": {"op": (2, "string"), "attributes": (5, "Attribute*")},
    "Attribute": {"value": (2, "Value")},
    "Value": {"list": (1, "Values"), "call": (10, "Call")},
    "Values": {"calls": (9, "Call*")},
    "Call": {"name": (1, "string"), "attributes": (2, "Attribute*")},
    "Objects": {"objects": (1, "Object*"), "functions": (2, "Concrete*")},
    "Object": {},
    "Concrete": {"name": (1, "string")},
}

#: Operators that reach beyond numbers, and what they do.
_REACHING = (
    (re.compile("PyFunc"), "calls Python"),
    (re.compile("Remote|Rpc|DataService|Xla|TPU|Tpu|Collective|Nccl"), "computes elsewhere than here"),
    (
        re.compile(
            "File|Reader|Dataset|Iterator|Summary|Save|Restore|Checkpoint|Remap|ImmutableConst|Print|Debug|Dump|TRT"
            "|ImportEvent"
        ),
        "may read or write files",
    ),
)
#: Those that a checkpoint is written and read by, in functions that nothing of the model calls.
_SAVER = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"})
_SAVER_FUNCTION = re.compile(r"__inference__traced_(save|restore)_\d+")

#: Operators that have no meaning in ONNX, and the layers that they are of.
_INCONVERTIBLE = (
    (re.compile("LookupTable|HashTable|InitializeTable"), "StringLookup, IntegerLookup, TextVectorization"),
    (re.compile("Bucketize"), "Discretization"),
    (re.compile("String|Regex|Unicode"), "Hashing, TextVectorization: whatever works on texts"),
)
BEFORE = "leave the layer out of what is saved, and give the model what it gives: a feature plan may make that"


def staged(folder: Path, into: Path) -> Path:
    """A copy of the SavedModel in `folder` that TensorFlow may load: made in `into`, of what was looked at alone.

    Raises `ConversionError`: REG021 for what may reach files, Python or other machines, REG018 for what does not
    convert, REG017 for one that is too large, REG015 for what is no SavedModel.
    """
    try:
        graph = _plain(folder / GRAPH).read_bytes()
        inspect(graph, str(folder))
        made = into / "saved_model"
        (made / VARIABLES).mkdir(parents=True)
        (made / GRAPH).write_bytes(graph)
        left = _LARGEST
        for path in sorted((folder / VARIABLES).iterdir()) if (folder / VARIABLES).is_dir() else ():
            left -= _plain(path).stat().st_size
            if left < 0:
                raise ConversionError(f"{folder} has more than 2 GB", "ONNX in one file holds less", "REG017")
            shutil.copyfile(path, made / VARIABLES / path.name)
    except OSError as error:
        raise ConversionError(f"{folder} cannot be read: {error}", code="REG015") from error
    return made


def inspect(graph: bytes, where: str) -> None:
    """Raises `ConversionError` as `staged` does. `graph`: the bytes of `saved_model.pb`."""
    model = _messages()["SavedModel"]()
    try:
        model.ParseFromString(graph)
    except DecodeError as error:
        raise ConversionError(f"{where} is no SavedModel: {error}", code="REG015") from error
    if not any(TAG in meta.info.tags for meta in model.graphs):
        said = f"{where} holds no graph with the tag '{TAG}'"
        raise ConversionError(said, "model.export(folder), or tf.saved_model.save(module, folder)", "REG015")
    for meta in model.graphs:
        if not meta.objects.objects:
            said = f"{where} is a SavedModel of TensorFlow 1"
            raise ConversionError(said, "load it with TensorFlow 2 and save it again: tf.saved_model.save", "REG018")
        operators = set(_operators(meta))
        for op, what in _found(operators - {(each, True) for each in _SAVER}, _REACHING):
            said = f"{where} uses {op}, which {what}"
            raise ConversionError(said, "save the model anew without it: what is served are numbers alone", "REG021")
        for op, what in _found({each for each in operators if not each[1]}, _INCONVERTIBLE):
            raise ConversionError(f"{where} uses {op}, which does not convert ({what})", BEFORE, "REG018")


def _found(
    operators: Iterable[tuple[str, bool]], rules: Sequence[tuple[re.Pattern[str], str]]
) -> Iterator[tuple[str, str]]:
    for op, _ in sorted(operators):
        yield from ((op, what) for pattern, what in rules if pattern.search(op))


def _operators(meta: Any) -> Iterator[tuple[str, bool]]:
    """Every operator of the graph and of its functions, and whether it is of one that saves or restores variables."""
    functions = meta.graph.library.functions
    called = {each.name for each in meta.objects.functions}
    for function in functions:
        for node in function.nodes:
            called.update((node.op, *_calls(node.attributes)))
    for function in functions:
        name = function.signature.name
        saver = name not in called and _SAVER_FUNCTION.fullmatch(name) is not None
        yield from ((node.op, saver) for node in function.nodes)
    yield from ((node.op, False) for node in meta.graph.nodes)


def _calls(attributes: Any) -> Iterator[str]:
    """The functions that a node's attributes name."""
    for attribute in attributes:
        for call in (attribute.value.call, *attribute.value.list.calls):
            if call.name:
                yield call.name
                yield from _calls(call.attributes)


def _plain(path: Path) -> Path:
    if path.is_symlink() or not path.is_file():
        raise ConversionError(f"{path} is no plain file", "copy the whole folder", "REG015")
    return path


@cache
def _messages() -> Mapping[str, Any]:
    """Classes of the messages in `_SCHEMA`."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="penstock/saved_model.proto", package="penstock", syntax="proto3")
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            of = kind.rstrip("*")
            field.type = kinds.TYPE_STRING if of == "string" else kinds.TYPE_MESSAGE
            if of != "string":
                field.type_name = f".penstock.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {m: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"penstock.{m}")) for m in _SCHEMA}

"""What of TensorFlow's models is not let in is found without TensorFlow: a SavedModel's bytes, Keras' JSON."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import penstock.models
from penstock.errors import PenstockError

pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No environment of TensorFlow: what gets as far as that is told how to make one."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PENSTOCK_TENSORFLOW_PYTHON", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(path: str) -> str:
    with pytest.raises(PenstockError) as raised:
        penstock.models.push("m", path)
    return str(raised.value)


# --- SavedModels, written as protobuf has them: tensorflow/core/protobuf/saved_model.proto ---


def field(number: int, *values: bytes | str) -> bytes:
    """Length-delimited fields of one number."""
    found = b""
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        found += bytes([number << 3 | 2, len(data) & 127 | 128, len(data) >> 7]) + data
    return found


def node(op: str, calls: str = "") -> bytes:
    call = field(5, field(1, "f") + field(2, field(10, field(1, calls)))) if calls else b""
    return field(1, "a node") + field(2, op) + call


def function(name: str, *nodes: bytes) -> bytes:
    return field(1, field(1, name)) + field(3, *nodes)


def saved(
    *functions: bytes, graph: tuple[bytes, ...] = (), concrete: tuple[str, ...] = (), objects: bool = True
) -> Path:
    library = field(2, b"".join(field(1, each) for each in functions))
    held = field(1, field(4, field(1, "_generic_user_object"))) if objects else b""
    held += b"".join(field(2, field(1, name)) for name in concrete)
    meta = field(1, field(4, "serve")) + field(2, field(1, *graph) + library) + field(7, held)
    folder = Path("model")
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01" + field(2, meta))
    return folder


SAVE = function("__inference__traced_save_7", node("StringJoin"), node("SaveV2"), node("MergeV2Checkpoints"))


def test_a_plain_model_gets_as_far_as_the_environment_that_it_needs(place: Path) -> None:
    saved(function("__inference_call_1", node("MatMul")), SAVE, graph=(node("StatefulPartitionedCall", "call_1"),))
    said = refused("model")
    assert said.startswith("REG018 models of Keras and TensorFlow are converted in an environment of TensorFlow")
    made = place / "home" / "tensorflow"
    assert f"python3 -m venv {made} && {made}/bin/pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0" in said


def test_an_environment_without_tensorflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(function("__inference_call_1", node("MatMul")))
    monkeypatch.setenv("PENSTOCK_TENSORFLOW_PYTHON", sys.executable)
    assert f"REG018 {sys.executable} has no tensorflow" in refused("model")
    monkeypatch.setenv("PENSTOCK_TENSORFLOW_PYTHON", "no/such/python")
    assert "does not start" in refused("model")


@pytest.mark.parametrize(
    ("op", "does"),
    [
        ("ReadFile", "may read or write files"),
        ("WriteFile", "may read or write files"),
        ("MatchingFiles", "may read or write files"),
        ("TFRecordDataset", "may read or write files"),
        ("PrintV2", "may read or write files"),
        ("SaveV2", "may read or write files"),
        ("EagerPyFunc", "calls Python"),
        ("RemoteCall", "computes elsewhere than here"),
    ],
)
def test_operators_that_reach_beyond_numbers_are_refused_wherever_they_are(op: str, does: str) -> None:
    deep = function("inner", node("Mul"), node(op))
    for parts in ({"graph": (node(op),)}, {"graph": (node("If", "inner"),)}, {"concrete": ("inner",)}):
        saved(deep, **parts)  # type: ignore[arg-type]
        assert f"REG021 {Path('model').absolute()} uses {op}, which {does}" in refused("model")


def test_what_saves_variables_is_let_in_only_where_nothing_of_the_model_calls_it() -> None:
    caller = function("__inference_call_1", node("StatefulPartitionedCall", "__inference__traced_save_7"))
    named = function("__inference_call_1", node("__inference__traced_save_7"))
    for given in ((SAVE, caller), (SAVE, named)):
        saved(*given)
        assert "REG021" in refused("model")
    saved(SAVE, concrete=("__inference__traced_save_7",))
    assert "REG021" in refused("model"), "an object of the model may run it while it is loaded"
    reads = function("__inference__traced_restore_8", node("RestoreV2"), node("ReadFile"))
    saved(reads)
    assert "uses ReadFile" in refused("model")


@pytest.mark.parametrize(
    ("op", "layer"),
    [("LookupTableFindV2", "StringLookup"), ("Bucketize", "Discretization"), ("StringToHashBucketFast", "Hashing")],
)
def test_layers_without_a_meaning_in_onnx_are_refused_by_name(op: str, layer: str) -> None:
    saved(function("__inference_call_1", node(op)))
    assert f"uses {op}, which does not convert ({layer}" in refused("model")


def test_what_is_no_saved_model_of_today_is_told() -> None:
    saved(graph=(node("MatMul"),), objects=False)
    assert "REG018" in (said := refused("model")) and "is a SavedModel of TensorFlow 1" in said
    Path("model/saved_model.pb").write_bytes(b"\xff\xff\xff")
    assert "REG015" in (said := refused("model")) and "is no SavedModel" in said
    saved(function("f", node("MatMul")))
    Path("model/variables").mkdir()
    Path("model/variables/variables.index").symlink_to("/etc/hostname")
    assert "REG015" in (said := refused("model")) and "is no plain file" in said


# --- Keras ---


def keras(*layers: Any) -> str:
    with zipfile.ZipFile("m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
    return "m.keras"


def layer(kind: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {"name": kind.lower(), **config}, "registered_name": None}


def test_keras_files_hold_keras_own_layers_and_no_programs() -> None:
    start = layer("GlorotUniform", "keras.initializers")
    assert "environment of TensorFlow" in refused(keras(layer("Dense", kernel_initializer=start), layer("ReLU")))
    for bad, said in (
        (layer("Lambda"), "REG021 /.*holds a Lambda layer 'lambda', which runs a program"),
        (layer("Dense", activation={"class_name": "__lambda__", "config": {"value": "4wEAAA"}}), "REG021 /.*Lambda"),
        (layer("StringLookup"), "REG018 /.*holds a StringLookup layer 'stringlookup', which does not convert"),
        (layer("Discretization"), "REG018 /.*holds a Discretization layer"),
        (
            layer("run", "subprocess"),
            "REG018 /.*holds run 'run' of the module subprocess, which is no part of Keras' layers",
        ),
        (layer("get_file", "keras.src.utils.file_utils"), "REG018 /.*which is no part of Keras' layers"),
        ({**layer("Mine", None), "registered_name": "my>Mine"}, "REG018 /.*of the module my"),
    ):
        with pytest.raises(PenstockError, match=said):
            penstock.models.push("m", keras(layer("Dense"), layer("TimeDistributed", layer=bad)))


def test_hdf5_and_what_is_no_keras_file_are_refused() -> None:
    Path("m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "REG021" in (said := refused("m.h5")) and "HDF5 files have no safe mode" in said
    with zipfile.ZipFile("m.keras", "w") as archive:
        archive.writestr("config.json", "{")
    assert "REG015" in refused("m.keras")


# --- graphs whose ends are named anew ---


def test_ends_may_take_one_anothers_names_and_subgraphs_follow() -> None:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper

    from penstock.registry.converting.onnx_graphs import made_by, rename_ends

    def value(name: str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, ["rows", 2] if kind == TensorProto.FLOAT else [])

    # A branch reads `b` of the graph around it.
    branch = [helper.make_graph([helper.make_node(op, ["b"], [op])], op, [], [value(op)]) for op in ("Neg", "Abs")]
    nodes = [
        helper.make_node("If", ["yes"], ["c"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Sub", ["a", "c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["e"]),
    ]
    ends = [value("a"), value("b"), value("yes", TensorProto.BOOL)]
    graph = helper.make_graph(nodes, "g", ends, [value("e"), value("d")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert (made_by(model, "e"), made_by(model, "d"), made_by(model, "a")) == ("Softmax", "Sub", "")
    rename_ends(model, {"a": "b", "b": "a", "yes": "d"}, {"d": "e", "e": "yes"})
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"b": np.float32([[1, 2]]), "a": np.float32([[3, 5]]), "d": np.array(True)}
    assert np.array_equal(session.run(["e"], given)[0], [[4, 7]])
    assert [each.name for each in session.get_outputs()] == ["e", "yes"]

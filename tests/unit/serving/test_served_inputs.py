"""What a request may hold, and what a person is told of one that makes no sense: the input or the row, by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from penstock import native
from penstock.registry.runtime import onnxruntime_library
from penstock.serving.tensors import Tensor, array_of, tensors_of


@pytest.fixture(scope="module")
def model(trained: Path) -> native.ServedModel:
    return native.ServedModel(str(trained / "gbdt_lr"))


@pytest.fixture
def five(fresh: pl.DataFrame, model: native.ServedModel) -> list[Tensor]:
    return tensors_of(fresh[:5].to_arrow(), model.inputs)


def score(model: native.ServedModel, tensors: list[Tensor], broadcast: tuple[str, ...] = ()) -> np.ndarray[Any, Any]:
    return array_of(model.predict(tensors, broadcast)[0])


def changed(tensors: list[Tensor], name: str, values: pa.Array | None, shape: list[int] | None = None) -> list[Tensor]:
    kept = [t for t in tensors if t[0] != name]
    return kept if values is None else [*kept, (name, shape or [len(values)], values)]


def test_a_column_left_out_is_null_in_every_row(model: native.ServedModel, five: list[Tensor]) -> None:
    nulls = changed(five, "price", pa.nulls(5, pa.float64()))
    np.testing.assert_array_equal(score(model, changed(five, "price", None)), score(model, nulls))
    nan = changed(five, "price", pa.array([float("nan")] * 5))
    np.testing.assert_array_equal(score(model, nan), score(model, nulls))


def test_a_bool_tensor_beside_a_column_marks_its_nulls(model: native.ServedModel, five: list[Tensor]) -> None:
    marks = pa.array([True, False, True, False, False])
    city = next(t for t in five if t[0] == "city")[2].fill_null("")
    marked = [*changed(five, "city", city), ("city.null", [5], marks)]
    by_hand = pa.array([None if m else c for m, c in zip(marks.to_pylist(), city.to_pylist(), strict=True)])
    np.testing.assert_array_equal(score(model, marked), score(model, changed(five, "city", by_hand)))
    with pytest.raises(ValueError, match=r"'city.null' has the shape \[4\], and 'city' has \[5\]|leading dimension"):
        score(model, [*changed(five, "city", city), ("city.null", [4], marks[:4])])
    with pytest.raises(ValueError, match="marks nulls of 'city', which is not among the inputs"):
        score(model, [*changed(five, "city", None), ("city.null", [5], marks)])


def test_the_empty_string_is_a_value_and_an_unseen_category_is_none(
    model: native.ServedModel, five: list[Tensor]
) -> None:
    unseen = score(model, changed(five, "city", pa.array(["atlantis"] * 5)))
    empty = score(model, changed(five, "city", pa.array([""] * 5)))
    np.testing.assert_array_equal(unseen, empty)


def test_narrow_integers_widen_and_integers_never_come_from_floats(
    model: native.ServedModel, five: list[Tensor]
) -> None:
    visits = next(t for t in five if t[0] == "visits")[2].fill_null(3)
    wide = score(model, changed(five, "visits", visits))
    np.testing.assert_array_equal(score(model, changed(five, "visits", visits.cast(pa.int8()))), wide)
    np.testing.assert_array_equal(score(model, changed(five, "visits", visits.cast(pa.uint64()))), wide)
    with pytest.raises(ValueError, match="input 'visits' is FP64, not INT64"):
        score(model, changed(five, "visits", visits.cast(pa.float64())))
    with pytest.raises(ValueError, match="input 'visits' holds 18446744073709551615, which INT64 cannot"):
        score(model, changed(five, "visits", pa.array([2**64 - 1] * 5, pa.uint64())))


def test_one_broadcast_row_stands_for_all(model: native.ServedModel, five: list[Tensor]) -> None:
    for name in ("user", "city", "at", "tags", "tag_weights"):
        own = next(t for t in five if t[0] == name)[2]
        repeated = pa.concat_arrays([own[:1]] * 5)
        five = changed(five, name, repeated)
    expected = score(model, five)
    names = ("user", "city", "at", "tags", "tag_weights")
    shortened = [(n, [1], v[:1]) if n in names else (n, s, v) for n, s, v in five]
    np.testing.assert_array_equal(score(model, shortened, names), expected)
    with pytest.raises(ValueError, match="leading dimension"):
        score(model, shortened)
    with pytest.raises(ValueError, match="'user' is broadcast and must have leading dimension 1, not 5"):
        score(model, five, ("user",))
    with pytest.raises(ValueError, match="broadcast names 'nobody'"):
        score(model, five, ("nobody",))


@pytest.mark.parametrize(
    ("name", "values", "shape", "said"),
    [
        ("cty", pa.array(["oslo"] * 5), [5], "input 'cty' is not one of the model's; they are title, user, city"),
        ("city", pa.array([1, 2, 3, 4, 5]), [5], "input 'city' is INT64, not BYTES"),
        ("city", pa.array(["x"] * 4), [4], "'city' has leading dimension 4|has leading dimension 5, and 'city' has 4"),
        ("city", pa.array(["x"] * 10), [5, 2], r"input 'city' has the shape \[5, 2\]"),
        ("city", pa.array([b"\xff\xfe"] * 5), [5], "input 'city', row 0: the bytes are not UTF-8"),
        ("day", pa.array(["2026-02-30"] * 5), [5], "input 'day', row 0: a date is text like"),
        ("tags", pa.array(["[1,"] * 5), [5], "input 'tags', row 0: a list is a JSON array"),
        ("tags", pa.array(["[[1]]"] * 5), [5], "input 'tags', row 0"),
        ("tag_weights", pa.array(["[1,2,3,4,5,6]"] * 5), [5], "row 0: 'tag'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    model: native.ServedModel, five: list[Tensor], name: str, values: pa.Array, shape: list[int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        score(model, changed(five, name, values, shape))


def test_an_input_twice_and_no_input_at_all(model: native.ServedModel, five: list[Tensor]) -> None:
    with pytest.raises(ValueError, match=f"'{five[0][0]}' stands there twice"):
        score(model, [*five, five[0]])
    with pytest.raises(ValueError, match="the request has no inputs"):
        score(model, [])


def test_mapped_tensors_score_as_raw_columns_do(trained: Path, fresh: pl.DataFrame) -> None:
    from penstock.training.bundle import load

    folder = trained / "gbdt_lr"
    served = native.ServedModel(str(folder))
    plan = load(folder).plan
    assert plan is not None
    mapped = plan.apply(fresh[:7].to_arrow().combine_chunks().to_batches()[0])
    slots = [mapped.column(name).to_pylist() for name in plan.slots]
    wide = max(len(keys) for slot in slots for keys in slot)
    keys = np.full((7, len(slots), wide), 2**64 - 1, np.uint64)
    weights = np.ones((7, len(slots), wide), np.float32)
    for at, (name, slot) in enumerate(zip(plan.slots, slots, strict=True)):
        own = mapped.column(f"{name}__weight").to_pylist() if name in plan.weighted else None
        for row, found in enumerate(slot):
            keys[row, at, : len(found)] = found
            if own is not None:
                weights[row, at, : len(found)] = own[row]
    dense = np.column_stack([mapped.column(name).to_numpy() for name in plan.dense]).astype(np.float32)
    tensors: list[Tensor] = [
        ("mapped.keys", list(keys.shape), pa.array(keys.ravel())),
        ("mapped.weights", list(weights.shape), pa.array(weights.ravel())),
        ("mapped.dense", list(dense.shape), pa.array(dense.ravel())),
    ]
    assert [name for name, *_ in served.mapped] == [name for name, *_ in tensors]
    raw = score(served, tensors_of(fresh[:7].to_arrow(), served.inputs))
    np.testing.assert_array_equal(score(served, tensors), raw)
    with pytest.raises(ValueError, match=r"mapped inputs lack the tensor 'mapped\.dense'"):
        score(served, tensors[:2])
    with pytest.raises(ValueError, match=r"'mapped.dense' is FP32 of shape \[7, 1\], not FP32 of \[7, 2\]"):
        score(served, [*tensors[:2], ("mapped.dense", [7, 1], tensors[2][2][:7])])


# --- bundles that are not whole ---


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "gbdt_lr", tmp_path / "model"))


def refused(folder: Path, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        native.ServedModel(str(folder), onnxruntime=str(onnxruntime_library() or ""))


def test_a_plan_of_another_model_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["plan"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    refused(copy, "its feature plan is not the one it was trained with")


def test_a_torn_or_changed_file_is_refused_by_name(copy: Path) -> None:
    trees = copy / "trees.txt"
    whole = trees.read_bytes()
    trees.write_bytes(whole[:-10])
    refused(copy, "trees.txt has .* bytes, not")
    trees.write_bytes(whole[:-10] + b"0123456789")
    refused(copy, "trees.txt is not the file that was written with it")
    trees.unlink()
    refused(copy, "trees.txt: No such file")


def test_a_newer_format_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    refused(copy, "it is of format 99, this Penstock reads up to")


def test_a_damaged_graph_and_a_damaged_row_are_refused(trained: Path, tmp_path: Path, fresh: pl.DataFrame) -> None:
    if not (trained / "wide_deep").exists():
        pytest.skip("torch is not installed, so no deep model was trained")
    folder = Path(shutil.copytree(trained / "wide_deep", tmp_path / "model"))
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = folder / "rows.snapshot"
    rewritten = bytearray(rows.read_bytes())
    rewritten[len(rewritten) // 2] ^= 1
    rows.write_bytes(bytes(rewritten))
    refused(folder, "rows.snapshot")
    graph = folder / "dense.onnx"
    graph.write_bytes(b"no graph at all")
    manifest["files"]["dense.onnx"] = {
        "size_bytes": 15,
        "sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
    }
    shutil.copyfile(trained / "wide_deep" / "rows.snapshot", rows)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(folder, "dense.onnx")

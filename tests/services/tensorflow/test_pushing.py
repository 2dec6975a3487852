"""Keras and TensorFlow models as they are pushed: converted and proved in a real TensorFlow, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock.models
from penstock.errors import PenstockError
from penstock.registry import Version, proof

pytestmark = pytest.mark.soak


def push(path: Path, rows: Any) -> Version:
    return penstock.models.push("m", path, rows=rows)


def served(version: Version, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return proof.served(penstock.models.fetch(version.uri))(feed)


def scores(models: Path, name: str) -> list[np.ndarray]:
    """As the model itself scored the rows."""
    with np.load(models / f"{name}.npz") as found:
        return [found[each] for each in found.files]


def tensors(version: Version, side: str) -> list[tuple[str, str, list[int]]]:
    return [(t["name"], t["datatype"], t["shape"]) for t in version.signature[side]]


@pytest.mark.parametrize("suffix", ["", ".keras"])
def test_a_binary_classifier_gives_its_score_whatever_it_was_saved_as(
    models: Path, rows: np.ndarray, suffix: str
) -> None:
    version = push(models / f"binary{suffix}", rows)
    assert tensors(version, "inputs") == [("input", "FP32", [-1, 4])]
    assert tensors(version, "outputs") == [("score", "FP32", [-1])]
    assert (version.proof["rows"], version.proof["refused_by_host"]) == (len(rows), 0)
    assert version.proof["added"] + version.proof["refused_by_original"] == 10, "extremes, and nulls one by one"
    libraries = version.manifest["libraries"]
    assert libraries["tf2onnx"] == "1.17.0" and libraries["tensorflow"].startswith("2.")
    assert version.manifest["algorithm"] == ("keras" if suffix else "tensorflow")
    [wanted] = scores(models, "binary")
    assert np.allclose(served(version, {"input": rows})["score"], wanted[:, 0], atol=1e-6)


def test_of_two_classes_the_score_is_the_second_and_of_more_all_are_given(models: Path, rows: np.ndarray) -> None:
    [wanted] = scores(models, "two")
    assert np.allclose(served(push(models / "two", rows), {"input": rows})["score"], wanted[:, 1], atol=1e-6)
    three = push(models / "three.keras", rows)
    assert tensors(three, "outputs") == [("probabilities", "FP32", [-1, 3])]
    assert np.allclose(served(three, {"input": rows})["probabilities"], scores(models, "three")[0], atol=1e-6)


def test_names_that_a_person_gave_stay_and_others_are_numbered(models: Path, rows: np.ndarray) -> None:
    feed = {"age": rows[:, :1], "input": rows[:, 1:], "city": np.arange(len(rows), dtype=np.int32).reshape(-1, 1) % 10}
    version = push(models / "columns.keras", feed)
    shapes = {"age": ("FP32", [-1, 1]), "input": ("FP32", [-1, 3]), "city": ("INT32", [-1, 1])}
    assert {name: (kind, shape) for name, kind, shape in tensors(version, "inputs")} == shapes
    assert [name for name, _, _ in tensors(version, "outputs")] == ["ctr", "output"]
    found = served(version, feed)
    for name, wanted in zip(("ctr", "output"), scores(models, "columns"), strict=True):
        assert np.allclose(found[name], wanted, atol=1e-5)
    saved = push(models / "columns", feed)
    assert {name: (kind, shape) for name, kind, shape in tensors(saved, "inputs")} == shapes
    assert [name for name, _, _ in tensors(saved, "outputs")] == ["output", "output_1"]


def test_a_layer_of_ones_own_comes_as_a_saved_model_and_not_as_a_class(models: Path, rows: np.ndarray) -> None:
    assert np.allclose(served(push(models / "own", rows), {"input": rows})["score"], 2 * rows[:, 0])
    with pytest.raises(PenstockError, match=r"REG018 .* holds Doubled 'doubled' of the module mine, which is no part"):
        push(models / "own.keras", rows)


def test_an_output_that_is_no_probability_is_called_output_and_keeps_its_type(models: Path, rows: np.ndarray) -> None:
    version = push(models / "wide", rows)
    assert tensors(version, "outputs") == [("output", "FP64", [-1, 3])]
    assert np.allclose(served(version, {"input": rows})["output"], rows[:, :3].astype(np.float64) / 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lookup", r"REG018 .* does not convert \(StringLookup"),
        ("lookup.keras", r"REG018 .* holds a StringLookup layer 'string_lookup', which does not convert"),
        ("ranges", r"REG018 .* uses Bucketize, which does not convert \(Discretization\)"),
        ("ranges.keras", r"REG018 .* holds a Discretization layer"),
        ("program.keras", r"REG021 .* holds a Lambda layer 'lambda', which runs a program of the file"),
        ("old.h5", r"REG021 .* HDF5 files have no safe mode"),
        ("writes", r"REG021 .* uses WriteFile, which may read or write files"),
        ("reads", r"REG021 .* uses ReadFile"),
        ("lists", r"REG021 .* uses MatchingFiles"),
        ("python", r"REG021 .* uses PyFunc, which calls Python"),
        ("prints", r"REG021 .* uses PrintV2"),
        ("one_row", r"REG017 input 'x' has the shape \[1, 4\]: its first axis is not any number of rows"),
        ("special", r"REG018 tf2onnx cannot convert .*: it has no way for BesselI0"),
    ],
)
def test_what_does_not_convert_or_reaches_beyond_numbers_is_refused_by_name(
    models: Path, rows: np.ndarray, name: str, said: str
) -> None:
    (models / "written").unlink(missing_ok=True)
    with pytest.raises(PenstockError, match=said):
        push(models / name, rows)
    assert not (models / "written").exists() and not (models / "printed").exists()

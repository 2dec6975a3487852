"""A bundle scores the same bits in a fresh process, goes with its plan, and says what is wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from penstock.errors import PenstockError
from penstock.features.operators import Features
from penstock.operators.base import CheckContext, Model
from penstock.training.bundle import load
from penstock.training.operators import Gbdt, GbdtLr, ModelInput, ModelOutput, Predict, Svm

Rows = Callable[..., pl.DataFrame]

FEATURES = """<features xmlns="urn:penstock:features:1" name="f" seed="0">
  <dict name="cities" path="cities.txt"/>
  <slot name="user_key" id="1" fn="hash" from="user_id"/>
  <slot name="city_key" id="2" fn="pickcat" from="city" dict="cities"/>
  <dense name="years" fn="identity" from="age"/>
  <dense name="place" fn="pickcat" from="city" dict="cities"/>
</features>"""


@pytest.fixture
def raw(rows: Rows) -> Callable[..., pl.DataFrame]:
    return lambda *a: rows(*a).with_columns(user_id=pl.col("user").list.first().cast(pl.Int64)).drop("user")


@pytest.fixture
def mapped(run: Any, raw: Rows, tmp_path: Path) -> tuple[pl.DataFrame, dict[str, str], str]:
    """Mapped training rows, their roles, and the plan's fingerprint."""
    (tmp_path / "features.xml").write_text(FEATURES)
    (tmp_path / "cities.txt").write_text("lima\noslo\nparis\nrome\n")
    features = Features.model_validate({"from": "raw", "map": str(tmp_path / "features.xml"), "keep": "label"})
    result = run(features, {"raw": raw(4000)})
    info = result.infos[""]
    return result.outputs[""].collect(), {c.name: c.role for c in info}, info.plan


def fit(run: Any, mapped: Any, operator: type = GbdtLr, **attrs: str) -> Path:
    frame, roles, plan = mapped
    step = operator.model_validate({"from": "m", "label": "label", **attrs})
    model: Model = run(step, {"m": frame}, roles=roles, plan=plan).outputs[""]
    return model.path


@pytest.mark.parametrize("operator", [Gbdt, GbdtLr, Svm])
def test_a_fresh_process_scores_the_same_bits(run: Any, mapped: Any, raw: Rows, operator: type, tmp_path: Path) -> None:
    folder = fit(run, mapped, operator)
    test = raw(500, 1)
    here = load(folder).score(test)
    test.write_parquet(tmp_path / "test.parquet")
    script = (
        "import sys, polars as pl; from penstock.training.bundle import load; "
        "sys.stdout.buffer.write(load(sys.argv[1]).score(pl.read_parquet(sys.argv[2])).tobytes())"
    )
    there = subprocess.run(
        [sys.executable, "-c", script, folder, tmp_path / "test.parquet"], capture_output=True, check=True
    )
    assert there.stdout == here.tobytes()


def test_raw_and_mapped_rows_score_the_same(run: Any, mapped: Any, raw: Rows) -> None:
    frame, roles, plan = mapped
    model = Model(fit(run, mapped))
    predict = Predict.model_validate({"from": "x", "model": "m"})
    by_roles = run(predict, {"x": frame, "m": model}, roles=roles, plan=plan).outputs[""].collect()["score"]
    by_plan = run(predict, {"x": raw(4000), "m": model}).outputs[""].collect()["score"]
    assert by_roles.to_numpy().tobytes() == by_plan.to_numpy().tobytes()


def test_columns_kept_beside_features_are_taken_from_the_raw_rows(run: Any, raw: Rows, tmp_path: Path) -> None:
    (tmp_path / "features.xml").write_text(FEATURES)
    (tmp_path / "cities.txt").write_text("lima\noslo\nparis\nrome\n")
    attrs = {"from": "raw", "map": str(tmp_path / "features.xml"), "keep": "label price city"}
    result = run(Features.model_validate(attrs), {"raw": raw(2000)})
    frame, roles = result.outputs[""].collect(), {c.name: c.role for c in result.infos[""]}
    plan = result.infos[""].plan
    folder = fit(run, (frame, roles, plan), Gbdt, columns="years price city", trees="20")
    predict = Predict.model_validate({"from": "x", "model": "m"})
    mapped = run(predict, {"x": frame, "m": Model(folder)}, roles=roles, plan=plan).outputs[""].collect()["score"]
    by_plan = run(predict, {"x": raw(2000), "m": Model(folder)}).outputs[""].collect()["score"]
    assert mapped.to_numpy().tobytes() == by_plan.to_numpy().tobytes()
    inputs = {c["name"]: c["type"] for c in json.loads((folder / "manifest.json").read_text())["signature"]["inputs"]}
    assert inputs == {"user_id": "int64", "city": "string", "age": "double", "price": "double"}
    with pytest.raises(PenstockError, match="'price'"):
        load(folder).score(raw(10).drop("price"))


def test_many_threads_score_at_once(run: Any, mapped: Any, raw: Rows) -> None:
    """The streaming engine scores batches side by side, the first ones too."""
    folder = fit(run, mapped, trees="10")
    test = raw(2000, 1)
    expected = load(folder).score(test)
    for _ in range(5):
        bundle = load(folder)
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(bundle.score, test.iter_slices(50)))
        assert np.concatenate(parts).tobytes() == expected.tobytes()


def test_rows_mapped_by_another_plan_are_not_taken_for_ours(run: Any, mapped: Any) -> None:
    frame, roles, _ = mapped
    model = Model(fit(run, mapped))
    predict = Predict.model_validate({"from": "x", "model": "m"})
    with pytest.raises(PenstockError, match="TRAIN013 the gbdt_lr model reads 'user_id'"):
        run(predict, {"x": frame, "m": model}, roles=roles, plan="0" * 64)


def test_the_manifest_says_what_a_reader_needs(run: Any, mapped: Any) -> None:
    folder = fit(run, mapped, lr_l2="5", trees="20")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format_version"] == 2
    assert manifest["algorithm"] == "gbdt_lr"
    assert manifest["signature"]["inputs"] == [
        {"name": "user_id", "type": "int64"}, {"name": "city", "type": "string"}, {"name": "age", "type": "double"},
    ]  # fmt: skip
    assert manifest["signature"]["outputs"] == [{"name": "score", "type": "double"}]
    assert manifest["plan"] == mapped[2]
    assert manifest["parameters"]["trees"] == 20
    assert manifest["metrics"]["lr_l2"] == 5
    assert manifest["lineage"] == {"run": "r1"}
    assert set(manifest["libraries"]) == {"penstock", "python", "lightgbm", "numpy", "polars", "pyarrow"}
    assert set(manifest["files"]) == {
        "categories.json", "features.plan", "dictionaries/cities.dict", "keys.parquet", "trees.txt",
        "warmup.parquet",
    }  # fmt: skip
    assert manifest["warmup"] == {"file": "warmup.parquet", "rows": 64}


def test_kept_columns_are_not_learnt_from(run: Any, mapped: Any) -> None:
    assert set(load(fit(run, mapped, Gbdt)).encoder.layout.columns) == {"years", "place"}
    layout = load(fit(run, mapped, GbdtLr)).encoder.layout
    assert (layout.numeric, [s for s, _ in layout.slots]) == (("years", "place"), ["user_key", "city_key"])
    assert load(fit(run, mapped, Gbdt, categorical="place")).encoder.layout.categorical == ("place",)


def test_flat_features_train_too(run: Any, raw: Rows, tmp_path: Path) -> None:
    (tmp_path / "features.xml").write_text(FEATURES)
    (tmp_path / "cities.txt").write_text("lima\noslo\nparis\nrome\n")
    attrs = {"from": "raw", "map": str(tmp_path / "features.xml"), "keep": "label", "form": "flat"}
    result = run(Features.model_validate(attrs), {"raw": raw(2000)})
    roles = {c.name: c.role for c in result.infos[""]}
    folder = fit(run, (result.outputs[""].collect(), roles, result.infos[""].plan))
    assert np.isfinite(load(folder).score(raw(100, 1))).all()


# --- hostile bundles ---


def _edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _truncate(folder: Path) -> None:
    data = (folder / "trees.txt").read_bytes()
    (folder / "trees.txt").write_bytes(data[: len(data) // 2])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "trees.txt").read_bytes())
    data[-10] ^= 1
    (folder / "trees.txt").write_bytes(data)


HOSTILE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "gone": (lambda f: shutil.rmtree(f), "TRAIN010", "there is no model bundle at"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "TRAIN010", "it has no manifest.json"),
    "not json": (lambda f: (f / "manifest.json").write_text("{"), "TRAIN010", "cannot be read"),
    "not an object": (lambda f: (f / "manifest.json").write_text("[]"), "TRAIN010", "no format_version"),
    "newer": (lambda f: _edit(f, lambda m: m.update(format_version=3)), "TRAIN011", "of format 3; this Penstock reads"),
    "no model": (lambda f: _edit(f, lambda m: m.pop("model")), "TRAIN010", "it lacks 'model'"),
    "odd model": (lambda f: _edit(f, lambda m: m["model"].update(form="x")), "TRAIN010", "unknown form 'x'"),
    "odd types": (lambda f: _edit(f, lambda m: m.update(encoder=[])), "TRAIN010", "cannot be read"),
    "file gone": (lambda f: (f / "trees.txt").unlink(), "TRAIN010", "lacks its file trees.txt"),
    "file cut": (_truncate, "TRAIN010", "trees.txt in the model bundle"),
    "file changed": (_flip, "TRAIN012", "is not the file that was written with it"),
    "outside": (lambda f: _edit(f, lambda m: m["files"].update({"../x": {}})), "TRAIN010", "outside it"),
    "other plan": (lambda f: _edit(f, lambda m: m.update(plan="f" * 64)), "TRAIN012", "but holds"),
}


def test_a_hostile_bundle_is_named_for_what_it_is(run: Any, mapped: Any, tmp_path: Path) -> None:
    whole = fit(run, mapped, trees="10")
    for name, (spoil, code, says) in HOSTILE.items():
        folder = tmp_path / name.replace(" ", "_")
        shutil.copytree(whole, folder)
        spoil(folder)
        with pytest.raises(PenstockError) as caught:
            load(folder)
        assert (name, caught.value.code) == (name, code), caught.value
        assert says in caught.value.message, name


# --- in and out of a node ---


def test_a_model_goes_out_and_comes_in(run: Any, mapped: Any, raw: Rows, tmp_path: Path) -> None:
    model = Model(fit(run, mapped, trees="10"))
    target = tmp_path / "out"
    target.mkdir()
    output = ModelOutput.model_validate({"from": "m", "path": str(target)})
    assert output.folder() and output.sink(model, target, run.context) is None
    twin = ModelInput.model_validate({**{k: v for k, v in output.twin().items() if k != "type"}, "path": str(target)})
    checked = twin.check(CheckContext())
    assert not checked.faults and checked.outputs[""].plan == mapped[2]
    back = load(twin.read(run.context).path)
    assert back.score(raw(50, 1)).tobytes() == load(model.path).score(raw(50, 1)).tobytes()
    assert len(twin.paths(CheckContext())) == 7


def test_a_missing_bundle_is_a_problem_at_check_unless_it_is_promised(tmp_path: Path) -> None:
    step = ModelInput.model_validate({"path": str(tmp_path / "no")})
    assert [f.code for f in step.check(CheckContext()).faults] == ["TRAIN010"]
    assert not step.check(CheckContext(promised=frozenset({str(tmp_path / "no")}))).faults

"""`deep` as a step: what it learns from, what it hands to `predict`, how it goes on from a model, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from penstock.errors import ProblemsFound  # noqa: E402
from penstock.operators.base import Model  # noqa: E402
from penstock.training.bundle import Bundle, load  # noqa: E402
from penstock.training.deep_operators import Deep  # noqa: E402
from penstock.training.faults import LearningError  # noqa: E402
from penstock.training.metrics import auc  # noqa: E402

SMALL = {"dim": "4", "hidden": "16 8", "batch": "128", "embedding_rate": "0.1", "rate": "0.01", "threads": "1"}


def step(**attrs: str) -> Deep:
    return Deep.model_validate({"from": "rows", "label": "label", **SMALL, **attrs})


def frame(rows: int = 6000, seed: int = 0, more: str = "") -> pl.DataFrame:
    """Keys, a number, and histories in which the item at hand matters."""
    draws = np.random.default_rng(seed)
    user, item = draws.integers(0, 200, rows), draws.integers(0, 50, rows)
    viewed = [draws.integers(0, 50, draws.integers(0, 5)).tolist() for _ in range(rows)]
    met = np.array([i in v for i, v in zip(item, viewed, strict=True)])
    x = draws.normal(3, 2, rows)
    margin = np.sin(user) * 1.5 + np.cos(item) + 0.5 * (x - 3) + 2 * met - 0.5
    found = pl.DataFrame(
        {
            "user": [[int(key)] for key in user],
            "item": [[int(key)] for key in item],
            "viewed": viewed,
            "x": np.where(draws.random(rows) < 0.1, np.nan, x),
            "label": (draws.random(rows) < 1 / (1 + np.exp(-margin))).astype(np.int64),
        },
        schema_overrides={"viewed": pl.List(pl.Int64)},
    )
    return found.with_columns(pl.col("item").alias(more)) if more else found


def trained(run: Any, rows: pl.DataFrame, more: Any = None, **attrs: str) -> Bundle:
    return load(run(step(**attrs), {"rows": rows, **(more or {})}, threads=1).outputs[""].path)


def auc_of(bundle: Bundle, rows: pl.DataFrame) -> float:
    return float(auc(rows["label"].to_numpy().astype(float), bundle.score(rows)) or 0)


@pytest.mark.parametrize(
    "attrs",
    [
        {"model": "wide_deep"},
        {"model": "deepfm", "optimizer": "adagrad", "shared": "viewed=item"},
        {"model": "dcn_v2", "embedding_optimizer": "adam", "embedding_rate": "0.01"},
        {"model": "din", "history": "viewed=item"},
    ],
    ids=lambda attrs: attrs["model"],
)
def test_every_model_learns_and_is_scored_without_torch(run: Any, tmp_path: Path, attrs: dict[str, str]) -> None:
    bundle = trained(run, frame(), columns="user item viewed x", epochs="2", **attrs)
    test = frame(2000, 1)
    assert auc_of(bundle, test) > 0.70
    folder = run.context.scratch / "bundle"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["algorithm"] == "deep" and {t["name"] for t in manifest["model"]["tables"]} >= {"user", "item"}
    test.write_parquet(tmp_path / "test.parquet")
    script = (
        "import sys, polars as pl, numpy as np\n"
        "sys.modules['torch'] = None\n"
        "from penstock.training.bundle import load\n"
        f"scores = load({str(folder)!r}).score(pl.read_parquet({str(tmp_path / 'test.parquet')!r}))\n"
        f"np.save({str(tmp_path / 'scores.npy')!r}, scores)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ})
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), bundle.score(test), atol=1e-5)
    parts = np.concatenate([bundle.score(part) for part in test.iter_slices(97)])
    np.testing.assert_allclose(parts, bundle.score(test), atol=1e-5)


def test_predict_agrees_with_what_was_trained(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.training.deep import fitting

    kept: dict[str, Any] = {}
    export = fitting.to_onnx

    def watched(model: Any, inputs: Any) -> Any:
        kept.update(model=model, inputs=inputs)
        return export(model, inputs)

    monkeypatch.setattr(fitting, "to_onnx", watched)
    bundle = trained(run, frame(), model="wide_deep", columns="user item viewed x", min_count="2", pooling="sqrtn")
    test = frame(500, 1)
    from penstock.training.bundle import one_batch
    from penstock.training.deep.batches import bags_of
    from penstock.training.online_scorer import scaled

    matrix = bundle.encoder.encode(one_batch(test.select(bundle.encoder.layout.columns)))
    scorer: Any = bundle.scorer
    numbers = torch.from_numpy(scaled(matrix.numbers, scorer.means, scorer.scales))
    with torch.no_grad():
        logits = kept["model"].eval()(bags_of(bundle.encoder.field_names, matrix), numbers)
    np.testing.assert_allclose(bundle.score(test), torch.sigmoid(logits.double()).numpy(), atol=1e-5)


@pytest.mark.parametrize("model", ["wide_deep", "deepfm", "dcn_v2"])
def test_numbers_alone_will_do(run: Any, model: str) -> None:
    bundle = trained(run, frame(), model=model, columns="x")
    assert auc_of(bundle, frame(2000, 1)) > 0.6


def test_places_of_a_list_are_slots(run: Any) -> None:
    given = frame().with_columns(keys=pl.concat_list("user", pl.col("item").list.eval(pl.element() + 10_000)))
    bundle = trained(run, given, model="wide_deep", keys="keys", fields="position")
    assert bundle.encoder.field_names == ("keys[0]", "keys[1]")
    assert auc_of(bundle, given) > 0.65


def test_going_on_from_a_model_matches_slots_by_name(run: Any) -> None:
    columns = "user item viewed x"
    first = run(step(model="wide_deep", columns=columns), {"rows": frame()}, threads=1).outputs[""]
    told = run(
        step(model="wide_deep", columns="user item fresh x", start="m"),
        {"rows": frame(3000, 2, more="fresh"), "m": Model(first.path)},
        threads=1,
    )
    table = {name: (rows, became) for name, rows, became in run.context.sections[0]["rows"]}
    assert table["user"] == (200, "carried") and table["item"] == (50, "carried")
    assert table["viewed"][1] == "dropped" and table["fresh"] == (0, "new") and table["x"][1] == "carried"
    # It knows from its first batch on what the other had learnt.
    cold = float(trained(run, frame(3000, 2), model="wide_deep", columns="user item x").metrics["progressive_auc"])
    warm = float(load(told.outputs[""].path).metrics["progressive_auc"])
    assert warm > cold + 0.03


def test_going_on_carries_everything_where_nothing_changed(run: Any) -> None:
    for model, more in (("dcn_v2", {}), ("deepfm", {}), ("din", {"history": "viewed=item"})):
        attrs = {"model": model, "columns": "user item viewed x", **more}
        first = run(step(**attrs), {"rows": frame()}, threads=1).outputs[""]
        still = {**attrs, "rate": "1e-12", "embedding_rate": "1e-12", "embedding_optimizer": "adagrad"}
        second = run(step(**still, start="m"), {"rows": frame(500, 3), "m": Model(first.path)}, threads=1).outputs[""]
        test = frame(500, 1)
        np.testing.assert_allclose(load(second.path).score(test), load(first.path).score(test), atol=1e-5)


def test_rows_may_go_on_without_their_optimizers_state(run: Any) -> None:
    attrs = {"model": "wide_deep", "columns": "user item x"}
    first = run(step(**attrs), {"rows": frame()}, threads=1).outputs[""]
    given = {"rows": frame(500, 3), "m": Model(first.path)}
    other = {**attrs, "embedding_optimizer": "ftrl", "start": "m"}
    with pytest.raises(LearningError, match="optimizer"):
        run(step(**other), given, threads=1)
    still = {"rate": "1e-12", "embedding_rate": "1e-12"}
    second = run(step(**other | still, state="fresh"), given, threads=1).outputs[""]
    assert ["user", 200, "carried"] in run.context.sections[0]["rows"]
    test = frame(500, 1)
    np.testing.assert_allclose(load(second.path).score(test), load(first.path).score(test), atol=1e-5)
    from penstock.training.table_rows import CheckpointRows

    sums = {}
    for state in ("keep", "fresh"):
        made = run(step(**attrs, **still, start="m", state=state), given, threads=1).outputs[""]
        rows = CheckpointRows(made.path / "training").rows_in(0, 0, 4096)
        sums[state] = float(rows.state.sum())
    assert 0 < sums["fresh"] < sums["keep"] / 2, "Adagrad's sums begin with these 500 rows"


def test_a_slot_that_changed_needs_a_word(run: Any) -> None:
    attrs = {"model": "wide_deep", "columns": "user item x"}
    first = run(step(**attrs), {"rows": frame(1000)}, threads=1).outputs[""]
    given = {"rows": frame(1000), "m": Model(first.path)}
    with pytest.raises(LearningError, match="user: dim 5 is now 7") as caught:
        run(step(**attrs | {"dim": "6"}, start="m"), given, threads=1)
    assert caught.value.code == "TRAIN044"
    run(step(**attrs | {"dim": "6"}, start="m", changed="anew"), given, threads=1)
    assert ["user", 0, "begun anew"] in run.context.sections[0]["rows"]
    with pytest.raises(LearningError, match="and this step trains a dcn_v2"):
        run(step(**attrs | {"model": "dcn_v2"}, start="m"), given, threads=1)


@pytest.mark.parametrize("warm", [False, True])
def test_an_interrupted_step_goes_on(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: bool) -> None:
    from penstock.training.deep.trainer import Trainer

    attrs = {"model": "wide_deep", "columns": "user item x", "deterministic": "true", "checkpoint_every": "1000"}
    given: dict[str, Any] = {"rows": frame()}
    if warm:
        given["m"] = Model(run(step(**attrs), {"rows": frame(1000, 7)}, threads=1).outputs[""].path)
        attrs["start"] = "m"
    wanted = load(run(step(**attrs), given, threads=1).outputs[""].path)
    learn = Trainer._learn

    def failing(self: Trainer, *given: Any) -> Any:
        if self.position.seen > 4000:
            raise KeyboardInterrupt
        return learn(self, *given)

    monkeypatch.setattr(Trainer, "_learn", failing)
    with pytest.raises(KeyboardInterrupt):
        run(step(**attrs), given, threads=1, kept=tmp_path / "kept")
    monkeypatch.undo()
    found = load(run(step(**attrs), given, threads=1, kept=tmp_path / "kept").outputs[""].path)
    assert any("going on at row" in told for told in run.context.told)
    assert found.score(frame(500, 1)).tobytes() == wanted.score(frame(500, 1)).tobytes()
    alike = {name: value for name, value in wanted.metrics.items() if name != "reading_waited"}
    assert {name: value for name, value in found.metrics.items() if name != "reading_waited"} == alike


@pytest.mark.parametrize(
    "instant",
    [
        pytest.param("before it stands", marks=pytest.mark.soak),
        "when it stands",
        pytest.param("after the next checkpoint", marks=pytest.mark.soak),
    ],
)
def test_a_kill_while_the_best_epoch_is_kept_loses_no_better_one(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: str
) -> None:
    """The second attempt judges epoch 2 otherwise, as it may without `deterministic`: epoch 1 is then the best."""
    from penstock.training.checkpoints import Checkpoints
    from penstock.training.metrics import metrics

    attrs = {"model": "wide_deep", "columns": "user item x", "deterministic": "true", "valid": "valid"}
    given = {"rows": frame(), "valid": frame(500, 1)}
    wanted = load(run(step(**attrs, epochs="1"), given, threads=1).outputs[""].path)
    rename, save = os.rename, Checkpoints.save
    losses: list[float] = []

    def judged(*columns: Any) -> Any:
        return metrics(*columns) | {"logloss": losses.pop(0)}

    def renamed(old: Any, new: Any) -> None:
        if Path(new).name == "best-2":
            if instant == "when it stands":
                rename(old, new)
            raise KeyboardInterrupt
        rename(old, new)

    def saved(self: Checkpoints, sections: Any, **options: Any) -> Any:
        done = save(self, sections, **options)
        if instant == "after the next checkpoint" and b'"best_epoch": 2' in sections.get("position", b""):
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr("penstock.training.deep.trainer.metrics", judged)
    with monkeypatch.context() as killing:
        if instant == "after the next checkpoint":
            killing.setattr(Checkpoints, "save", saved)
        else:
            killing.setattr(os, "rename", renamed)
        losses += [0.5, 0.4]
        with pytest.raises(KeyboardInterrupt):
            run(step(**attrs, epochs="3"), given, threads=1, kept=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("best-*"))) == 2
    late = instant == "after the next checkpoint"
    losses[:] = [0.6]
    found = load(run(step(**attrs, epochs="3"), given, threads=1, kept=tmp_path / "kept").outputs[""].path)
    assert any("going on at row" in told for told in run.context.told)
    assert found.metrics["epochs"] == (2 if late else 1)
    if late:
        losses[:] = [0.5, 0.4]
        wanted = load(run(step(**attrs, epochs="2"), given, threads=1).outputs[""].path)
    assert found.score(frame(500, 2)).tobytes() == wanted.score(frame(500, 2)).tobytes()


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"model": "din"}, "din needs a history"),
        ({"model": "din", "history": "seen=item"}, "history: there is no slot 'seen'"),
        ({"model": "deepfm", "history": "viewed=item"}, "deepfm reads no history"),
        ({"model": "deepfm", "ttl": "30d"}, "ttl is given without time"),
        ({"model": "deepfm", "time": "when"}, "there is no column 'when'"),
        ({"model": "deepfm", "schedule": "inverse_sqrt"}, "falls from the end of the warm-up"),
        ({"model": "deepfm", "shared": "user=items"}, "shared: there is no slot 'items'"),
    ],
)
def test_what_means_nothing_is_said_at_check(run: Any, attrs: dict[str, str], said: str) -> None:
    with pytest.raises(ProblemsFound, match=said):
        run(step(columns="user item viewed x", **attrs), {"rows": frame(10)})


@pytest.mark.parametrize(("name", "value"), [("ttl", "30 days"), ("history", "a"), ("hidden", "a b"), ("dim", "0")])
def test_attributes_that_are_none(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        step(model="din", **{name: value})

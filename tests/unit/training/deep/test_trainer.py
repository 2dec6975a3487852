"""The trainer: it learns, says so, guards the tables, stops early, cuts and goes on to the same bits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")

from penstock.training.checkpoints import Checkpoints  # noqa: E402
from penstock.training.deep.schedule import Schedule  # noqa: E402
from penstock.training.deep.trainer import Settings, Trainer, log_loss  # noqa: E402
from penstock.training.faults import LabelError, LearningError  # noqa: E402
from penstock.training.tables import Eviction, Sgd  # noqa: E402

from .learning import built, reading, samples, trainer, weights  # noqa: E402

ONE = Settings(deterministic=True)


def fitted(frame: pl.DataFrame, settings: Settings = ONE, threads: int = 1, **options: Any) -> dict[str, bytes]:
    tables, model = built(threads)
    trainer(tables, model, settings).fit(reading(frame, **options))
    return weights(tables, model)


def test_it_learns_and_every_sample_acts_once() -> None:
    frame = samples(12_000)
    tables, model = built()
    told: list[str] = []
    run = trainer(tables, model, Settings(epochs=2, threads=1), tell=lambda said, rows: told.append(said))
    outcome = run.fit(reading(frame))
    assert outcome.numbers["rows"] == 24_000 and outcome.epochs == 2
    assert float(outcome.numbers["progressive_auc"] or 0) > 0.65
    assert (tables.lookup("once", np.arange(12_000)) == 2).all()
    assert "a second" in told[-1] and "auc" in told[-1]
    labels, scores = zip(*((r.labels, s) for r, s in run.scores(reading(samples(4000, seed=9)))), strict=True)
    from penstock.training.metrics import metrics

    found = metrics(np.concatenate(labels).astype(float), np.concatenate(scores), None)
    assert float(found["auc"] or 0) > 0.75


def test_the_same_rows_give_the_same_bits_and_threads_change_none_of_the_tables_sums() -> None:
    frame = samples(4000)
    once = fitted(frame)
    assert once == fitted(frame)
    assert once != fitted(samples(4000, seed=5))
    uses = fitted(frame, Settings(threads=2), threads=2)["once.values"]
    assert uses == once["once.values"]


def test_a_cut_in_the_middle_changes_nothing_and_is_gone_on_from_to_the_bit(tmp_path: Path) -> None:
    frame = samples(6000)
    settings = Settings(epochs=2, deterministic=True, checkpoint_every=1500)
    wanted = fitted(frame, Settings(epochs=2, deterministic=True), shuffle=1000)

    class Stop(Exception):
        pass

    for at in (2000, 5000, 7000, 11_000):
        folder = tmp_path / str(at)
        tables, model = built()
        run = trainer(tables, model, settings)
        learn = run._learn

        def failing(*given: Any, run: Trainer = run, learn: Any = learn, at: int = at) -> Any:
            if run.position.seen >= at:
                raise Stop
            return learn(*given)

        run._learn = failing  # type: ignore[method-assign]
        with pytest.raises(Stop):
            run.fit(reading(frame, shuffle=1000), checkpoints=Checkpoints(folder, tables))
        tables, model = built()
        torch.manual_seed(77)  # what the process drew before does not matter
        run = trainer(tables, model, settings)
        outcome = run.fit(reading(frame, shuffle=1000), checkpoints=Checkpoints(folder, tables))
        assert 0 < outcome.resumed_at <= at
        assert weights(tables, model) == wanted, at
        assert (tables.lookup("once", np.arange(6000)) == 2).all()


def test_a_cut_that_is_open_when_the_epoch_ends_is_finished_before_the_model_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.training.deep import trainer as module

    monkeypatch.setattr(module, "ROWS_A_BATCH", 1)  # never whole by itself
    tables, model = built()

    def keep(epoch: int, before: int) -> None:
        Checkpoints(tmp_path / f"kept{epoch}", tables).save({}, full=True)

    settings = Settings(epochs=2, threads=1, checkpoint_every=500)
    run = trainer(tables, model, settings, keep=keep)
    run.fit(reading(samples(2000)), reading(samples(500, seed=2)), checkpoints=Checkpoints(tmp_path / "cuts", tables))
    assert (tmp_path / "kept1").is_dir()


@pytest.mark.parametrize("where", ["loss", "dense", "rows"])
def test_what_is_not_finite_never_reaches_the_tables(where: str) -> None:
    frame = samples(2000)
    tables, model = built()
    seen = 0

    def loss(logits: Any, rows: Any) -> Any:
        nonlocal seen
        seen += 1
        found = log_loss(logits, rows)
        if seen < 5:
            return found
        if where == "loss":
            return found * math.nan
        if where == "dense":
            model.clicks.wide.bias.register_hook(lambda g: g * math.inf)
        else:
            model.counted.register_hook(lambda g: g * math.nan)  # type: ignore[union-attr]
            return found + model.counted.sum()  # type: ignore[union-attr]
        return found

    run = trainer(tables, model, ONE, loss=loss)
    with pytest.raises(LearningError, match=r"rows 512 to 639 of epoch 1: .*nothing of them was applied") as caught:
        run.fit(reading(frame))
    assert caught.value.code == "TRAIN040"
    assert all(np.isfinite(tables.lookup(slot, np.arange(300))).all() for slot in ("user", "item", "once"))
    assert tables.native.staged_square_sum() == 0


@pytest.mark.parametrize("rows", [960, 896, 901, 851])
def test_accumulated_batches_are_one_batch_however_an_epoch_ends(rows: int) -> None:
    """Steps of 192 rows as three batches of 64. The last step has all of its batches; two; two and a short one; one and
    a short one."""
    frame = samples(rows)
    tables, model = built(optimizer=Sgd(), dropout=0.0, learning_rate=1.0)
    trainer(tables, model, Settings(accumulate=3, threads=1), loss=log_loss).fit(reading(frame, batch=64))
    whole, other = built(optimizer=Sgd(), dropout=0.0, learning_rate=1.0)
    trainer(whole, other, Settings(threads=1), loss=log_loss).fit(reading(frame, batch=192))
    for slot in ("user", "item"):  # the same gradients, summed in another order
        found, wanted = (each.lookup(slot, np.arange(300)) for each in (tables, whole))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_an_interrupted_run_that_accumulates_goes_on_to_the_bit(tmp_path: Path) -> None:
    frame = samples(3000)  # 24 batches, the last one short: steps of 5, the last of 4
    settings = Settings(epochs=2, accumulate=5, deterministic=True, checkpoint_every=1000)
    wanted = fitted(frame, Settings(epochs=2, accumulate=5, deterministic=True))
    tables, model = built()
    run = trainer(tables, model, settings)
    learn = run._learn

    def failing(*given: Any) -> Any:
        if run.position.seen >= 4200:
            raise KeyboardInterrupt
        return learn(*given)

    run._learn = failing  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.fit(reading(frame), checkpoints=Checkpoints(tmp_path, tables))
    tables, model = built()
    outcome = trainer(tables, model, settings).fit(reading(frame), checkpoints=Checkpoints(tmp_path, tables))
    assert 3000 <= outcome.resumed_at < 4200
    assert weights(tables, model) == wanted


def test_clipping_and_schedules() -> None:
    frame, keys = samples(1024), np.arange(300)
    # A schedule that is nothing at first: rates of zero move nothing.
    tables, model = built(optimizer=Sgd())
    before = tables.lookup("user", keys)
    flat = Settings(threads=1, schedule=Schedule("linear", total=1, least=0.0))
    trainer(tables, model, flat, loss=log_loss).fit(reading(frame))
    np.testing.assert_array_equal(tables.lookup("user", keys), before)
    # Clipped hard, nothing moves far.
    tables, model = built(optimizer=Sgd())
    trainer(tables, model, Settings(threads=1, clip_norm=1e-6), loss=log_loss).fit(reading(frame))
    assert np.abs(tables.lookup("user", keys) - before).max() < 1e-5


def test_it_stops_when_the_valid_rows_say_so_and_keeps_the_best() -> None:
    train, valid = samples(600), samples(3000, seed=4)
    tables, model = built(dropout=0.0)
    kept: list[int] = []
    run = trainer(
        tables, model, Settings(epochs=50, patience=2, threads=1), loss=log_loss,
        keep=lambda epoch, before: kept.append(epoch),
    )  # fmt: skip
    outcome = run.fit(reading(train, batch=32), reading(valid))
    assert kept[-1] == outcome.epochs < 48
    assert run.position.epoch == outcome.epochs + 2
    assert kept == sorted(set(kept))
    assert outcome.numbers["valid_logloss"] == pytest.approx(run.position.judged["logloss"])


def test_stale_rows_leave_while_it_trains() -> None:
    frame = samples(20_000).with_columns(time=pl.int_range(20_000))
    tables, model = built(eviction=Eviction(ttl_s=2000))
    run = trainer(tables, model, Settings(threads=1), loss=log_loss)
    run.fit(reading(frame.with_columns(user=pl.concat_list(pl.col("time") // 10)), time="time"))
    assert 150 <= tables.rows["user"] <= 600


def test_one_class_is_refused_and_bf16_learns() -> None:
    frame = samples(2000)
    tables, model = built()
    with pytest.raises(LabelError, match="all 2,000 rows are 1"):
        trainer(tables, model, ONE).fit(reading(frame.with_columns(label=1)))
    tables, model = built()
    outcome = trainer(tables, model, Settings(bf16=True, threads=1)).fit(reading(samples(12_000)))
    assert float(outcome.numbers["progressive_auc"] or 0) > 0.66


def test_a_checkpoint_of_another_machine_is_refused_when_bits_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = samples(2000)
    tables, model = built()
    trainer(tables, model, Settings(epochs=2, deterministic=True)).fit(
        reading(frame), checkpoints=Checkpoints(tmp_path, tables)
    )
    from penstock.training.deep import trainer as module

    monkeypatch.setattr(module, "machine", lambda: {"tables": "baseline", "torch_simd": "DEFAULT", "torch": "0"})
    tables, model = built()
    with pytest.raises(LearningError, match="the checkpoint was written on a machine of torch 2") as caught:
        trainer(tables, model, Settings(epochs=2, deterministic=True)).fit(
            reading(frame), checkpoints=Checkpoints(tmp_path, tables)
        )
    assert caught.value.code == "TRAIN041"

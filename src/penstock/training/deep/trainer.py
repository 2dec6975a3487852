"""The training loop: batches in order, one step each, cuts between them; what was interrupted goes on where it was.

A batch's gradients reach the tables only after the guard has seen that all of them are finite. In deterministic mode
the same rows give the same weights to the bit, whether or not the run was killed and resumed in between.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from penstock.training.checkpoints import Checkpoints, OpenCut
from penstock.training.deep.batches import Rows
from penstock.training.deep.machine import determined, machine, told
from penstock.training.deep.reading import Reading
from penstock.training.deep.schedule import Schedule
from penstock.training.deep.state import pack, unpack
from penstock.training.embedding import clip_grad_norm
from penstock.training.faults import LabelError, LearningError
from penstock.training.metrics import metrics
from penstock.training.missing_rates import MissingRates
from penstock.training.streaming_metrics import StreamingMetrics
from penstock.training.tables import EmbeddingTables

TOLD_EVERY_S = 0.5
#: Rows that an open cut writes after each batch, and index lines that a sweep visits.
ROWS_A_BATCH, LINES_A_BATCH = 20_000, 2_048


class Scalars(Protocol):
    """Where numbers go as training goes: `penstock.training.tensorboard.ScalarLog` is one."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How a model is trained. `accumulate`: batches a step, which counts every row of them alike, fewer at an epoch's
    end too. `patience`: epochs that may pass without a better `valid`.

    `checkpoint_every`: in rows. `clip_norm`: of all gradients of a step together, rows' and dense.
    """

    epochs: int = 1
    accumulate: int = 1
    bf16: bool = False
    clip_norm: float | None = None
    patience: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    deterministic: bool = False
    threads: int = 0
    checkpoint_every: int = 1_000_000


@dataclass
class Position:
    """Where a run is: the next row of which epoch, rows seen in all, the best epoch and what `valid` said of it."""

    epoch: int = 1
    row: int = 0
    seen: int = 0
    ones: int = 0
    best_epoch: int = 0
    judged: dict[str, float | int | None] = field(default_factory=dict)
    finished: bool = False


@dataclass(frozen=True)
class Outcome:
    """`epochs`: of which the model is. `numbers`: metrics by name. `waiting`: the share of time spent waiting for rows,
    so whether reading limits. `resumed_at`: rows that an earlier attempt had seen."""

    epochs: int
    numbers: Mapping[str, float | int | None]
    waiting: float
    resumed_at: int


def log_loss(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The mean of the rows' logistic losses, weighted where they have weights."""
    assert rows.labels is not None
    weights = torch.from_numpy(rows.weights) if rows.weights is not None else None
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(rows.labels), weights)


class Trainer:
    """Trains `model(keys, numbers) -> logits [rows]`; `optimizer` steps the dense part, `tables` their own rows.

    `keep(epoch, before)` is called whenever the model is better than that of the epoch `before`, 0 for none (once, at
    the end, without `valid`): whoever wants the best one stores it then, beside the one before, which a run that is
    killed before its next checkpoint goes on with. `tell(message, rows)` hears of progress; `log(samples so far)` opens
    a log.
    """

    def __init__(
        self,
        model: nn.Module,
        tables: EmbeddingTables,
        optimizer: torch.optim.Optimizer,
        settings: Settings = Settings(),
        *,
        loss: Callable[[torch.Tensor, Rows], torch.Tensor] = log_loss,
        keep: Callable[[int, int], None] = lambda epoch, before: None,
        tell: Callable[[str, int], None] = lambda message, rows: None,
        log: Callable[[int], Scalars] | None = None,
    ) -> None:
        self.model, self.tables, self.optimizer, self.settings = model, tables, optimizer, settings
        self.metrics = StreamingMetrics()
        self.missing = MissingRates(tuple(tables.slots))
        self.position = Position()
        self._loss, self._keep, self._tell_of, self._open_log = loss, keep, tell, log
        self._log: Scalars | None = None
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._table_rates = [table.learning_rate for table in tables.tables]
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._cut: OpenCut | None = None
        self._told = self._began = 0.0
        self._told_rows = 0

    # --- runs ---

    def fit(self, reading: Reading, valid: Reading | None = None, checkpoints: Checkpoints | None = None) -> Outcome:
        """Train to the end, from the newest cut of `checkpoints` if there is one.

        Raises `LabelError` and `InputError` for rows that cannot be learnt from, `LearningError` naming the batch whose
        gradients are not finite: nothing of it has been applied.
        """
        with determined(self.settings.threads, deterministic=self.settings.deterministic):
            resumed = self._resume(checkpoints) if checkpoints else 0
            self._log = self._open_log(self.position.seen) if self._open_log else None
            self._began = time.monotonic()
            try:
                while not self.position.finished:
                    self._epoch(reading, checkpoints)
                    if checkpoints:
                        self._finish_cut(checkpoints)  # tables take one cut at a time, and keeping the model is one
                    self._judge(valid)
                    self._next_epoch(valid is not None)
                    if checkpoints and not self.position.finished:
                        checkpoints.save(self.sections())
                if not valid:
                    self._keep(self.position.best_epoch, 0)
            finally:
                if self._log is not None:
                    self._log.close()
        seconds = time.monotonic() - self._began
        found = {**self._numbers(), **{f"valid_{name}": value for name, value in self.position.judged.items()}}
        return Outcome(self.position.best_epoch, found, reading.waited_s / max(seconds, 1e-9), resumed)

    def scores(self, reading: Reading) -> Iterator[tuple[Rows, np.ndarray]]:
        """Each batch with its scores, float64 [rows]; nothing is learnt."""
        self.model.eval()
        try:
            with torch.no_grad():
                for rows in reading.batches():
                    yield rows, torch.sigmoid(self._logits(rows).double()).numpy()
        finally:
            self.model.train()

    def learn(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Learn from one batch in one step, for whoever reads by himself; returns the scores before it, float64 [rows].

        Weights may be negative: such rows act with minus their gradient. Raises `LearningError`, as `fit` does; nothing
        of the batch has been applied then.
        """
        self.model.train()
        logits = self._learn(rows, 1.0)
        self.position.row += rows.count
        self.position.seen += rows.count
        self._step(rows, 1.0)
        return torch.sigmoid(logits.double()).numpy()

    # --- one epoch ---

    def _epoch(self, reading: Reading, checkpoints: Checkpoints | None) -> None:
        place, settings = self.position, self.settings
        next_cut = place.seen + settings.checkpoint_every
        taken: list[int] = []  # rows of each batch since the last step
        self.model.train()
        for rows in reading.batches(place.epoch, place.row):
            taken.append(rows.count)
            logits = self._learn(rows, rows.count / taken[0])
            if place.epoch == 1:  # later epochs have seen their rows: such scores would flatter
                assert rows.labels is not None
                self.metrics.update(rows.labels, torch.sigmoid(logits.double()).numpy(), rows.weights)
            place.row += rows.count
            place.seen += rows.count
            place.ones += int(rows.labels.sum()) if rows.labels is not None else 0
            if len(taken) == settings.accumulate:
                self._step(rows, taken[0] / sum(taken))
                taken.clear()
                if checkpoints:
                    next_cut = self._checkpoint(checkpoints, next_cut)
            self._tell(reading)
        if taken:
            self._step(rows, taken[0] / sum(taken))
        if place.epoch == 1 and place.ones in (0, place.seen):
            said = "there are no rows" if not place.seen else f"all {place.seen:,} rows are {'01'[place.ones > 0]}"
            hint = "a model needs rows of both classes; look at the filters and splits before it"
            raise LabelError(f"label '{reading.label}' has one class only: {said}", hint, "TRAIN004")
        self._tell(reading, last=True)

    def _logits(self, rows: Rows) -> torch.Tensor:
        numbers = torch.from_numpy(np.ascontiguousarray(rows.numbers))
        if not self.settings.bf16:
            return self.model(rows.bags, numbers)  # type: ignore[no-any-return]
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(rows.bags, numbers).float()  # type: ignore[no-any-return]

    def _learn(self, rows: Rows, share: float) -> torch.Tensor:
        """Stage a batch's gradients; `share`: how many rows it has to one of the first batch of its step. Returns the
        logits."""
        assert rows.labels is not None
        logits = self._logits(rows)
        loss = self._loss(logits, rows)
        if not math.isfinite(loss.item()):
            self._refuse(rows, f"the loss is {loss.item()}")
        (loss if share == 1.0 else loss * share).backward()  # type: ignore[no-untyped-call]
        empty = {slot: int((np.diff(bag.offsets) == 0).sum()) for slot, bag in rows.bags.items()}
        self.missing.update(rows.count, empty)
        return logits.detach()

    def _step(self, rows: Rows, share: float) -> None:
        """Apply what is staged; `share`: of the step's rows, those of its first batch, by which gradients are means."""
        place = self.position
        if share != 1.0:
            self.tables.scale(share)
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(share)
        self._set_rates(self.settings.schedule.factor(place.seen))
        try:
            if self.settings.clip_norm is not None:
                clip_grad_norm(self.tables, self._parameters, self.settings.clip_norm)
            elif not all(math.isfinite(p.grad.sum().item()) for p in self._parameters if p.grad is not None):
                raise ValueError("a gradient of the dense part is not finite")
            self.tables.step(rows.event_time_s)
        except ValueError as error:
            self._refuse(rows, str(error))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if any(table.eviction for table in self.tables.tables):
            self.tables.sweep(LINES_A_BATCH)

    def _refuse(self, rows: Rows, why: str) -> None:
        self.tables.drop_staged()
        last = rows.first + rows.count
        said = f"rows {rows.first:,} to {last - 1:,} of epoch {self.position.epoch}: {why}; nothing of them was applied"
        raise LearningError(said, "a lower rate, clip_norm, or a look at these rows", "TRAIN040")

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        for number, rate in enumerate(self._table_rates):
            self.tables.set_learning_rate(number, rate * factor)

    # --- epochs ---

    def _judge(self, valid: Reading | None) -> None:
        """Score the valid rows; keep the model if it is better than before."""
        if valid is None:
            return
        labels, scores, weights = [], [], []
        for rows, found in self.scores(valid):
            assert rows.labels is not None
            labels.append(rows.labels)
            scores.append(found)
            weights.append(rows.weights if rows.weights is not None else np.ones(rows.count, np.float32))
        if not labels:
            raise LabelError(
                f"the valid frame has no rows to judge '{valid.label}' by", "look at its filters", "TRAIN004"
            )
        sample = np.concatenate(weights).astype(np.float64) if valid.weight else None
        judged = metrics(np.concatenate(labels).astype(np.float64), np.concatenate(scores), sample)
        place = self.position
        if not place.best_epoch or (judged["logloss"] or math.inf) < (place.judged["logloss"] or math.inf):
            before, place.best_epoch, place.judged = place.best_epoch, place.epoch, judged
            self._keep(place.epoch, before)

    def _next_epoch(self, judged: bool) -> None:
        place = self.position
        if not judged:
            place.best_epoch = place.epoch
        tired = judged and place.epoch - place.best_epoch >= self.settings.patience
        place.finished = tired or place.epoch == self.settings.epochs
        if not place.finished:
            place.epoch, place.row = place.epoch + 1, 0

    # --- cuts ---

    def _checkpoint(self, checkpoints: Checkpoints, next_cut: int) -> int:
        """Begin a cut when it is time, write at the open one; it changes nothing of what is learnt."""
        if self._cut is not None:
            if self._cut.write(ROWS_A_BATCH):
                self._finish_cut(checkpoints)
        elif self.position.seen >= next_cut:
            self._cut = checkpoints.prepare(self.sections(), full=checkpoints.outweighed)
            return self.position.seen + self.settings.checkpoint_every
        return next_cut

    def _finish_cut(self, checkpoints: Checkpoints) -> None:
        if self._cut is not None:
            self._cut.commit()
            self._cut = None
            checkpoints.prune()

    def sections(self) -> dict[str, bytes]:
        """All that a cut needs beside the tables' rows: `restore` takes it."""
        return {
            "position": json.dumps(vars(self.position)).encode(),
            "dense": pack(self.model.state_dict()),
            "optimizer": pack(self.optimizer.state_dict()),
            "random": pack(torch.get_rng_state()),
            "metrics": self.metrics.state(),
            "missing": self.missing.state(),
            "machine": json.dumps(machine()).encode(),
        }

    def _resume(self, checkpoints: Checkpoints) -> int:
        """Put back the newest cut; returns the rows that it had seen."""
        sections = checkpoints.resume()
        if sections is None:
            return 0
        self.restore(sections)
        place = self.position
        self._tell_of(f"going on at row {place.row:,} of epoch {place.epoch}, from a checkpoint", place.row)
        self._told_rows = place.seen
        return place.seen

    def restore(self, sections: Mapping[str, bytes]) -> None:
        """Go on from what `sections` gave; the tables' rows are put back by whoever has them.

        Raises `LearningError` in deterministic mode where the machine is another.
        """
        before, now = json.loads(sections["machine"]), machine()
        if self.settings.deterministic and before != now:
            said = f"the checkpoint was written on a machine of {told(before)}, and this one has {told(now)}"
            hint = (
                f"PENSTOCK_SIMD={before['tables']} ATEN_CPU_CAPABILITY={before['torch_simd'].lower()} force narrower "
                "instructions; or leave deterministic out"
            )
            raise LearningError(said, hint, "TRAIN041")
        self.position = Position(**json.loads(sections["position"]))
        self.model.load_state_dict(unpack(sections["dense"]))
        self.optimizer.load_state_dict(_keyed(unpack(sections["optimizer"])))
        torch.set_rng_state(unpack(sections["random"]))
        self.metrics = StreamingMetrics.restore(sections["metrics"])
        self.missing = MissingRates.restore(sections["missing"])

    # --- telling ---

    def _numbers(self) -> dict[str, float | int | None]:
        found = self.metrics.values()
        named = ("auc", "logloss", "ne", "calibration", "decayed_auc", "decayed_auc_samples")
        progressive = {f"progressive_{name}": found[name] for name in named}
        return {"rows": self.position.seen, "epochs": self.position.best_epoch, **progressive}

    def _tell(self, reading: Reading, *, last: bool = False) -> None:
        now, place = time.monotonic(), self.position
        if not last and now - self._told < TOLD_EVERY_S:
            return
        rate = (place.seen - self._told_rows) / max(now - (self._told or self._began), 1e-9)
        self._told, self._told_rows = now, place.seen
        found = {name: value for name, value in self.metrics.values().items() if value is not None}
        of = f"epoch {place.epoch} of {self.settings.epochs}: " if self.settings.epochs > 1 else ""
        shown = ", ".join(f"{name} {found[name]:.5f}" for name in ("logloss", "auc") if name in found)
        self._tell_of(f"{of}{place.row:,} samples, {rate:,.0f} a second, {shown} (before learning)", place.row)
        if self._log is not None:
            rows = self.tables.rows
            sizes = {f"rows/{name}": float(count) for name, count in rows.items()}
            missing = {f"missing/{slot}": rates["missing"] or 0.0 for slot, rates in self.missing.values().items()}
            self._log.add(place.seen, {**found, "samples_per_second": rate, **sizes, **missing})


def _keyed(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state dict as torch takes it back."""
    return {"state": state["state"], "param_groups": state["param_groups"]}

"""`deep`: networks over embeddings of raw keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from penstock.data.schema import Info
from penstock.operators.base import (
    CheckContext,
    Checked,
    ColumnName,
    Fault,
    Location,
    Model,
    ModelRef,
    Result,
    RunContext,
)
from penstock.operators.column_checks import listed
from penstock.training import checks
from penstock.training.operators import Trainer

if TYPE_CHECKING:
    from penstock.training.deep.building import Parameters
    from penstock.training.deep.trainer import Settings
    from penstock.training.tensorboard import ScalarLog

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _numbers(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = value.replace(",", " ").split()
    return tuple(int(word) if word.isdigit() else word for word in words)


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+)\s*([smhd])", value.strip())
    if not found:
        raise ValueError('a span of time is a whole number and s, m, h or d: "30d"')
    return int(found[1]) * _UNITS_S[found[2]]


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = value.replace(",", " ").split()
    wrong = [word for word in words if not re.fullmatch(r"[^=]+=[^=]+", word)]
    if wrong:
        raise ValueError(f"'{wrong[0]}' is not SLOT=SLOT")
    return tuple(tuple(word.split("=")) for word in words)


Pairs = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_pairs)]
Hidden = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
Seconds = Annotated[int, BeforeValidator(_seconds)]


class Deep(Trainer):
    """A network over embeddings of raw keys, beside numbers, for a binary label; gives a model. Needs PyTorch.

    Reads slots and dense columns after `features`, otherwise numbers, or `keys` with `weights`. Each slot has a table
    whose rows appear when their keys are first stepped; nobody counts keys beforehand. Numbers are standardised by the
    first 10,000 rows, missing ones count as their mean. Rows are learnt in the order in which they come (of time)
    unless `shuffle`; the metrics named progressive are of scores made before their rows were learnt. A killed run goes
    on from its newest checkpoint with --resume. `start` goes on from an earlier model: slots are matched by name and
    definition.
    """

    type: ClassVar[str] = "deep"
    example: ClassVar[str] = (
        '<process name="m" type="deep" from="mapped" label="label" model="deepfm" dim="16" hidden="256 128"/>'
    )

    model: Literal["wide_deep", "deepfm", "dcn_v2", "din"] = Field(description="the network")
    dim: int = Field(16, ge=1, le=500, description="values a key's embedding has")
    hidden: Hidden = Field((256, 128), description="widths of the network's layers", min_length=1)
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a layer's outputs left out in training")
    pooling: Literal["mean", "sum", "sqrtn"] = Field("mean", description="how a slot's several keys become one")
    history: Pairs = Field(
        (), description='din: "viewed=item": a slot of keys in order, and the slot it is held against'
    )
    shared: Pairs = Field((), description='"b=a": slot b reads the table of slot a')
    epochs: int = Field(1, ge=1, le=1000, description="passes at most; with valid it stops early")
    patience: int = Field(1, ge=1, description="epochs without a better valid loss after which it stops")
    batch: int = Field(4096, ge=1, le=1 << 20, description="rows a step")
    accumulate: int = Field(1, ge=1, le=1024, description="batches that make one step, as if they were one")
    shuffle: int = Field(0, ge=0, description="permute rows within blocks of so many; 0: in their order")
    optimizer: Literal["adam", "adamw", "adagrad", "sgd"] = Field("adam", description="how dense weights move")
    rate: float = Field(0.001, gt=0, description="how far")
    l2: float = Field(0.0, ge=0, description="L2 of dense weights, and of rows that a batch touches")
    embedding_optimizer: Literal["adagrad", "rowwise", "adam", "sgd", "ftrl"] = Field(
        "adagrad", description="how rows move; rowwise: one rate a row, less memory"
    )
    embedding_rate: float = Field(0.02, gt=0, description="how far")
    schedule: Literal["constant", "inverse_sqrt", "cosine", "linear"] = Field(
        "constant", description="how all rates go over time"
    )
    warmup: int = Field(0, ge=0, description="rows over which rates rise")
    clip_norm: float | None = Field(None, gt=0, description="the most that all gradients' norm may be")
    bf16: bool = Field(False, description="multiply matrices in bfloat16")
    min_count: int = Field(1, ge=1, le=255, description="a key gets a row at this many sightings")
    time: ColumnName = Field("", description="event time: a timestamp, a date, or seconds; for ttl")
    ttl: Seconds | None = Field(None, gt=0, description='a row not seen for so long is dropped: "30d"')
    deterministic: bool = Field(False, description="the same weights to the bit, also after a kill; slower")
    checkpoint_every: int = Field(1_000_000, ge=1, description="rows between checkpoints")
    start: ModelRef = Field("", description="a model to go on from: a step or the folder of a bundle")
    changed: Literal["refuse", "anew"] = Field("refuse", description="slots of start whose dim or optimizer changed")
    state: Literal["keep", "fresh"] = Field(
        "keep", description="fresh: rows of start come with their values alone, and their optimizer begins anew"
    )
    tensorboard: Location = Field("", description="a folder for TensorBoard's event files")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        checked = super().check(inputs, context)
        faults = [*checked.faults, *self._faults(inputs, context)]
        return Checked(checked.outputs, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Result:
        from penstock.training.bundle import load, place_of
        from penstock.training.deep.fitting import Task, fit

        schema = checks.frame(context.info(self.from_))
        layout, _ = self._layout(schema)
        plan = checks.plan_of(schema, layout, context)
        folder: Path | None = None
        if self.start:
            given = inputs.get(self.start)
            folder = given.path if isinstance(given, Model) else place_of(self.start)
        task = Task(
            inputs[self.from_], inputs[self.valid] if self.valid else None, layout, self.label, self.weight,
            bool(plan) and {name for name, _ in layout.slots} <= set(plan.slots if plan else ()), plan,
            load(folder) if folder else None, self.time, folder, self.batch, self.shuffle, self.changed == "anew",
            self.state,
        )  # fmt: skip
        settings = self._settings(inputs, context)
        log = self._log if self.tensorboard else None
        encoder, fitted = fit(task, self.built_as(self._threads(context)), settings, context, context.kept, log)
        return self._bundled(encoder, fitted, plan, schema, context, checks.parent_of(self.start, inputs))

    def _log(self, samples: int) -> ScalarLog:
        from penstock.training.tensorboard import ScalarLog

        return ScalarLog(Path(self.tensorboard.removeprefix("file://")), samples or None)

    def built_as(self, threads: int) -> Parameters:
        """The model that the step describes."""
        from penstock.training.deep.building import Parameters

        return Parameters(
            self.model, self.dim, self.hidden, self.dropout, self.pooling, self.history, dict(self.shared),
            self.optimizer, self.rate, self.l2, self.embedding_optimizer, self.embedding_rate, self.min_count, self.ttl,
            None, self.seed, threads,
        )  # fmt: skip

    def _settings(self, inputs: Mapping[str, Any], context: RunContext) -> Settings:
        total = 0
        if self.schedule in ("cosine", "linear"):
            import polars as pl

            total = int(context.collect(inputs[self.from_].select(pl.len())).item()) * self.epochs
        return self.trained_as(self._threads(context), total=total, deterministic=self.deterministic)

    def trained_as(self, threads: int, *, total: int = 0, deterministic: bool) -> Settings:
        """How the step trains it. `total`: samples in all, for schedules that end; without it rates stay as they are
        after warming up."""
        from penstock.training.deep.schedule import Schedule
        from penstock.training.deep.trainer import Settings

        kind = self.schedule if total or self.schedule == "inverse_sqrt" else "constant"
        return Settings(
            self.epochs, self.accumulate, self.bf16, self.clip_norm, self.patience,
            Schedule(kind, self.warmup, total), deterministic, threads, self.checkpoint_every,
        )  # fmt: skip

    def _faults(self, inputs: Mapping[str, Info], context: CheckContext) -> list[Fault]:
        faults = []
        if find_spec("torch") is None or find_spec("onnxscript") is None:
            faults.append(Fault("TRAIN042", "deep models need PyTorch and onnxscript", "pip install 'penstock[deep]'"))
        if self.model == "din" and not self.history:
            hint = 'history="viewed=item" names the slot of what was viewed, and that of the item at hand'
            faults.append(Fault("TRAIN043", "din needs a history", hint))
        if self.history and self.model != "din":
            faults.append(Fault("TRAIN043", f"{self.model} reads no history", 'model="din" does'))
        if self.ttl is not None and not self.time:
            faults.append(Fault("TRAIN043", "ttl is given without time", "time= names the column of event time"))
        if self.schedule == "inverse_sqrt" and not self.warmup:
            faults.append(Fault("TRAIN043", "inverse_sqrt falls from the end of the warm-up", "give warmup, in rows"))
        schema = checks.frame(inputs.get(self.from_))
        layout, _ = self._layout(schema)
        slots = [name for name, _ in layout.slots]
        if not schema.open and not layout.positions:
            for field, pairs in (("history", self.history), ("shared", self.shared)):
                for name in (name for pair in pairs for name in pair if name not in slots):
                    faults.append(
                        Fault("TRAIN043", f"{field}: there is no slot '{name}'", f"the slots are {listed(slots)}")
                    )
        if self.time and not schema.open and self.time not in schema:
            faults.append(
                Fault("TRAIN007", f"time: there is no column '{self.time}'", f"columns: {listed(schema.names)}")
            )
        return faults + checks.start_faults(self.start, self.type, inputs, context)

"""`lr` and `fm`: models that learn as rows stream by, and go on from an earlier model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from penstock.data.schema import Info
from penstock.operators.base import CheckContext, Checked, Model, ModelRef, Result, RunContext
from penstock.training import checks
from penstock.training.operators import Trainer

if TYPE_CHECKING:
    from penstock.training.bundle import Bundle
    from penstock.training.online import OnlineParameters
    from penstock.training.online_scorer import Rates

#: How far a step goes where `alpha` is not given.
ALPHA = {"ftrl": 0.05, "adagrad": 0.05, "sgd": 0.002}
#: Of alpha, where `factor_alpha` is not given: moving as far as weights, factors only add noise where pairs say little.
FACTOR_SHARE = 0.3


class _Online(Trainer):
    optimizer: Literal["ftrl", "adagrad", "sgd"] = Field("ftrl", description="how weights move")
    alpha: float | None = Field(None, gt=0, description="how far; default: .05, with sgd .002")
    beta: float = Field(1.0, ge=0, description="ftrl, adagrad: the greater, the shorter a key's first steps")
    l1: float = Field(0.0, ge=0, description="L1 of a weight: with ftrl rare keys end at exactly 0")
    l2: float = Field(0.0, ge=0, description="L2 of a weight")
    epochs: int = Field(1, ge=1, le=1000, description="passes at most; with valid, it stops when a pass does not help")
    batch: int = Field(256, ge=1, le=65_536, description="rows scored before they are learnt from, once rows are many")
    min_count: int = Field(1, ge=1, le=255, description="a key becomes a row of the model at this many sightings")
    evict_after: int = Field(
        0, ge=0, le=2**31, description="a key that so many samples pass without leaves the model; 0: never"
    )
    checkpoint_every: int = Field(10_000_000, ge=1, description="rows between checkpoints")
    start: ModelRef = Field("", description="a model of the same type to go on from: a step or the folder of a bundle")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        checked = super().check(inputs, context)
        faults = checks.start_faults(self.start, self.type, inputs, context)
        return Checked(checked.outputs, (*checked.faults, *faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Result:
        from penstock.training.bundle import load
        from penstock.training.online_fitting import Task, fit

        schema = checks.frame(context.info(self.from_))
        layout, _ = self._layout(schema)
        plan = checks.plan_of(schema, layout, context)
        start: Bundle | None = None
        if self.start:
            given = inputs.get(self.start)
            start = load(given.path if isinstance(given, Model) else self.start)
        slots = [schema.get(name) for name, _ in layout.slots]
        mapped = not layout.positions and all(c is not None and c.role == "slot" for c in slots)
        valid = inputs[self.valid] if self.valid else None
        task = Task(inputs[self.from_], valid, layout, self.label, self.weight, mapped, plan, start)
        encoder, fitted = fit(task, self._parameters(context), context)
        return self._bundled(encoder, fitted, plan, schema, context, checks.parent_of(self.start, inputs))

    def _rates(self) -> Rates:
        from penstock.training.online_scorer import Rates

        alpha = self.alpha if self.alpha is not None else ALPHA[self.optimizer]
        return Rates(self.optimizer, alpha, self.beta, self.l1, self.l2, min_count=self.min_count)

    def _parameters(self, context: RunContext) -> OnlineParameters:
        from penstock.training.online import OnlineParameters

        threads = self._threads(context)
        return OnlineParameters(
            self._rates(), self.epochs, self.batch, self.seed, threads, self.evict_after, self.checkpoint_every
        )


class Lr(_Online):
    """A logistic regression over raw keys and numbers that learns as rows stream by; gives a model.

    Reads slots and dense columns after `features`, otherwise numbers, or `keys` with `weights`. Numbers are
    standardised by the first 10,000 rows, missing ones count as their mean. Every row is scored before it is learnt
    from: progressive_logloss and progressive_auc among the metrics are of those scores. The same rows give the same
    model at any number of threads. `start` goes on from an earlier model: slots are matched by name. `evict_after`
    bounds what a stream of ever new keys makes the model: keys that do not come back leave it. A killed run goes on
    from its newest checkpoint with --resume, to the same model.
    """

    type: ClassVar[str] = "lr"
    example: ClassVar[str] = '<process name="m" type="lr" from="mapped" label="label" alpha="0.05" l1="1"/>'


class Fm(_Online):
    """A factorisation machine: as `lr`, and a product of learnt factors for each pair of keys; gives a model.

    Reads what `lr` reads; numbers have factors too. A key becomes a row at its second sighting (`min_count`): until
    then it adds nothing. Factors move by Adagrad with one rate a row (by SGD with optimizer="sgd").
    """

    type: ClassVar[str] = "fm"
    example: ClassVar[str] = '<process name="m" type="fm" from="mapped" label="label" rank="8"/>'

    rank: int = Field(8, ge=1, le=256, description="factors a key")
    min_count: int = Field(2, ge=1, le=255, description="a key becomes a row of the model at this many sightings")
    factor_alpha: float | None = Field(None, gt=0, description="how far factors move; default: .3 alpha")
    factor_l2: float = Field(0.0001, ge=0, description="L2 of factors, applied where a batch touches them")
    spread: float = Field(0.01, ge=0, description="standard deviation of factors at first")

    def _rates(self) -> Rates:
        from dataclasses import replace

        rates = super()._rates()
        factor_alpha = self.factor_alpha if self.factor_alpha is not None else rates.alpha * FACTOR_SHARE
        return replace(rates, rank=self.rank, factor_alpha=factor_alpha, factor_l2=self.factor_l2, spread=self.spread)

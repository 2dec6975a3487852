"""Algorithms, prediction and evaluation as steps of a flow."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from penstock.data.schema import Column, Info, ModelInfo, Schema
from penstock.errors import PenstockError
from penstock.operators.base import (
    CheckContext,
    Checked,
    ColumnName,
    Fault,
    Input,
    Location,
    Model,
    ModelRef,
    Names,
    Output,
    Process,
    Ref,
    Reference,
    Result,
    RunContext,
)
from penstock.operators.places import is_name
from penstock.registry.bundles import WARMUP_ROWS
from penstock.training import checks
from penstock.training.inputs import Layout, Wanted, choose

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from penstock.features.plan import Plan
    from penstock.training.bundle import Bundle
    from penstock.training.matrices import Encoder
    from penstock.training.samples import Samples
    from penstock.training.scorers import Fit


class Trainer(Process):
    """What all algorithms share: the label, the columns, the rows to stop by."""

    categories: ClassVar[bool] = False
    sparse: ClassVar[bool] = True

    label: ColumnName = Field(description="the column to predict: 0 and 1, -1 and 1, or booleans")
    weight: ColumnName = Field("", description="a column of row weights, 0 or more")
    columns: Names = Field((), description="the columns to learn from; default: what fits the algorithm")
    exclude: Names = Field((), description="columns not to learn from")
    keys: ColumnName = Field("", description="a list column of raw integer keys to learn from instead")
    weights: ColumnName = Field("", description="the weights of keys: a list of the same length, or a number")
    fields: Literal["", "position"] = Field("", description="position: each place in the list is a field of its own")
    valid: Ref = Field("", description="a second frame: early stopping, and metrics on unseen rows")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything drawn at random")
    threads: int | None = Field(None, ge=1, description="threads to compute with; they change no result")
    warm_rows: int = Field(
        WARMUP_ROWS, ge=0, le=WARMUP_ROWS,
        description="raw rows kept in the bundle, of the columns it reads, for a host to warm up with; 0: none",
    )  # fmt: skip

    def staged(self) -> bool:
        return True

    def _wanted(self) -> Wanted:
        return Wanted(
            self.label, self.weight, self.columns, self.exclude, getattr(self, "categorical", ()),
            self.keys, self.weights, self.fields, self.categories, self.sparse,
        )  # fmt: skip

    def _layout(self, schema: Schema) -> tuple[Layout, list[Fault]]:
        return choose(schema, self._wanted())

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = checks.frame(inputs.get(self.from_))
        layout, faults = self._layout(schema)
        if self.categories:  # trees alone have them
            faults += checks.trees_missing()
        if self.valid:
            faults += checks.valid_columns(checks.frame(inputs.get(self.valid)), layout, self.label, self.weight)
        return Checked({"": checks.model_info(self.type, self.label, schema, layout)}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Result:
        from penstock.training.samples import gather

        schema = checks.frame(context.info(self.from_))
        layout, _ = self._layout(schema)
        valid = inputs[self.valid] if self.valid else None
        samples = gather(inputs[self.from_], valid, layout, self.label, self.weight, context)
        fit = self._fit(samples, context)
        plan = checks.plan_of(schema, layout, context)
        return self._bundled(samples.encoder, fit, plan, schema, context, first=samples.first)

    def _bundled(
        self, encoder: Encoder, fit: Fit, plan: Plan | None, schema: Schema, context: RunContext, parent: str = "",
        first: pa.Table | None = None,
    ) -> Result:  # fmt: skip
        """The model as a bundle in the node's scratch folder, with what is told of it. `parent`: what it began from.
        `first`: rows as they came, of columns that no plan made."""
        from penstock.training import warm_rows
        from penstock.training.bundle import Bundle

        lineage = checks.plain(context.lineage) | ({"parent": parent} if parent else {})
        parameters = self.model_dump(by_alias=True, mode="json", exclude_defaults=False)
        bundle = Bundle(
            self.type, self.label, encoder, fit.scorer, plan, checks.raw_types(schema, plan, context),
            parameters, fit.numbers, lineage,
        )  # fmt: skip
        if self.warm_rows:
            rows = warm_rows.of(bundle.beside if plan else bundle.columns, plan, first, context)
            bundle = replace(bundle, warmup=rows.slice(0, self.warm_rows) if rows is not None else None)
        folder = context.scratch / "bundle"
        bundle.save(folder)
        context.metrics(fit.numbers)
        for section in fit.sections:
            context.show(section)
        return Result({"": Model(folder)}, {"": bundle.info})

    def _fit(self, samples: Samples, context: RunContext) -> Fit:
        raise NotImplementedError

    def _threads(self, context: RunContext) -> int:
        return self.threads or context.threads


class _Trees(Trainer):
    categories: ClassVar[bool] = True

    categorical: Names = Field((), description="columns whose numbers (or keys) are categories")
    trees: int = Field(200, ge=1, le=100_000, description="trees at most")
    leaves: int = Field(31, ge=2, le=32_768, description="leaves a tree at most")
    rate: float = Field(0.05, gt=0, le=1, description="how much each tree adds: smaller needs more trees")
    min_rows: int = Field(20, ge=1, description="rows a leaf at least")
    l2: float = Field(1.0, ge=0, description="L2 of the trees' leaf values")
    subsample: float = Field(1.0, gt=0, le=1, description="share of rows that each tree sees")

    def _parameters(self, context: RunContext) -> Any:
        from penstock.training.trees import TreeParameters

        return TreeParameters(
            self.trees, self.leaves, self.rate, self.min_rows, self.l2, self.subsample, self.seed,
            self._threads(context),
        )  # fmt: skip


class Gbdt(_Trees):
    """Gradient-boosted decision trees (LightGBM) for a binary label; gives a model.

    Reads dense columns after `features` (slots never), otherwise numbers, and strings as categories whose dictionary
    the model keeps; or `keys`. What a features step kept is used only where `columns` names it. Missing values have
    their own branch; categories never seen count as missing. Refuses labels other than 0/1, -1/1 and booleans, missing
    labels, and a label of one class. The same rows and seed give the same model at any number of threads.
    """

    type: ClassVar[str] = "gbdt"
    example: ClassVar[str] = '<process name="m" type="gbdt" from="train" label="label" trees="200" valid="test"/>'

    def _layout(self, schema: Schema) -> tuple[Layout, list[Fault]]:
        layout, faults = choose(schema, self._wanted())
        return checks.trees_only(layout, self.columns, bool(self.keys)), faults

    def _fit(self, samples: Samples, context: RunContext) -> Fit:
        from penstock.training.fitting import fit_gbdt

        return fit_gbdt(samples, self._parameters(context), context)


class GbdtLr(_Trees):
    """Boosted trees, then a sparse logistic regression over their leaves and the slots; gives a model.

    Trees read what `gbdt` reads (keys where there are no numbers); the regression reads the leaves and, with
    linear="leaves slots", every key of the slots. Half of the trees grow on each half of the rows, and a row trains the
    regression through the trees that have not seen it. Without `lr_l2` the strength is chosen on held-out rows (`valid`
    where given). With linear="leaves" the model is one LightGBM ensemble whose leaf values are the weights.
    """

    type: ClassVar[str] = "gbdt_lr"
    example: ClassVar[str] = '<process name="m" type="gbdt_lr" from="mapped" label="label" trees="200" leaves="31"/>'

    rate: float = Field(0.1, gt=0, le=1, description="how much each tree adds: smaller needs more trees")
    linear: Literal["", "leaves slots", "leaves"] = Field(
        "", description='what the regression reads; default: "leaves slots" where there are slots'
    )
    lr_l1: float = Field(0.0, ge=0, description="L1 of the regression: more leaves fewer keys in the model")
    lr_l2: float | None = Field(None, ge=0, description="L2 of a key's weight; default: chosen on held-out rows")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        checked = super().check(inputs, context)
        schema = checks.frame(inputs.get(self.from_))
        layout, _ = self._layout(schema)
        if self.linear == "leaves slots" and not layout.slots and not schema.open and not checked.failed:
            hint = "a features step gives slots, or name a list of keys with keys="
            fault = Fault("TRAIN006", 'linear="leaves slots", but there are no slots among the columns', hint)
            return Checked(checked.outputs, (*checked.faults, fault))
        return checked

    def _fit(self, samples: Samples, context: RunContext) -> Fit:
        from penstock.training.fitting import fit_gbdt_lr

        slots = bool(samples.encoder.layout.slots) and self.linear != "leaves"
        return fit_gbdt_lr(samples, self._parameters(context), slots, self.lr_l1, self.lr_l2, context)


class Svm(Trainer):
    """A linear support vector machine (hinge loss) with calibrated scores; gives a model.

    Reads slots and dense columns after `features`, otherwise numbers (standardised inside the model; missing ones count
    as their mean), or `keys` with `weights`. Scores are probabilities: Platt's sigmoid fitted on margins of rows that
    the machine has not seen (`valid` where given, otherwise thirds of the rows in turn).
    """

    type: ClassVar[str] = "svm"
    example: ClassVar[str] = '<process name="m" type="svm" from="rows" label="label" keys="indices" weights="values"/>'

    c: float | None = Field(None, gt=0, description="cost of an error; default: the best of a few on held-out rows")

    def _fit(self, samples: Samples, context: RunContext) -> Fit:
        from penstock.training.fitting import fit_svm

        return fit_svm(samples, self.c, self.seed, self._threads(context), context)


class FrequentItemsets(Process):
    """Sets of items that often stand together in a list, by FP-growth; with `rules`, what follows from what.

    Port itemsets: items (list), support, count, length. Port rules: antecedent, consequent (lists), support,
    confidence, lift. The bare step name is the rules where `rules` is set, otherwise the itemsets. A null list is no
    basket; a null item is none; an item twice in a list counts once. Items stand in ascending order.
    """

    type: ClassVar[str] = "frequent_itemsets"
    example: ClassVar[str] = (
        '<process name="often" type="frequent_itemsets" from="baskets" items="goods" min_support="0.01" rules="0.5"/>'
    )

    items: ColumnName = Field(description="the list column that holds the baskets")
    min_support: float = Field(0.01, gt=0, le=1, description="share of the baskets that a set must be in")
    max_length: int = Field(0, ge=0, description="items a set at most; 0: any number")
    rules: float | None = Field(
        None, ge=0, le=1, description="least confidence of a rule; without it no rules are made"
    )

    def staged(self) -> bool:
        return True

    def ports(self) -> tuple[str, ...]:
        return ("", "itemsets", "rules") if self.rules is not None else ("", "itemsets")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        return checks.itemsets(checks.frame(inputs.get(self.from_)), self.items, self.rules is not None)

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Mapping[str, Any]:
        from penstock.training.itemsets import mine

        context.progress("reading the baskets")
        baskets = context.collect(inputs[self.from_].select(self.items))[self.items]
        context.progress(f"searching {len(baskets):,} baskets")
        sets, rules = mine(baskets, self.min_support, self.max_length, self.rules, context.threads)
        context.metrics(
            {"baskets": len(baskets), "itemsets": len(sets)} | ({"rules": len(rules)} if rules is not None else {})
        )
        if rules is None:
            return {"": sets.lazy(), "itemsets": sets.lazy()}
        return {"": rules.lazy(), "itemsets": sets.lazy(), "rules": rules.lazy()}


class Predict(Process):
    """Adds the model's score to each row: a probability of label 1, f64 in [0, 1], never null.

    `model` is a step, the folder of a bundle, or a version in the registry: models:/NAME@ALIAS or models:/NAME/NUMBER.
    Where the rows were mapped by the model's own feature plan the mapped columns are used; otherwise the bundle's plan
    maps the raw columns. A model of another framework that came in as ONNX takes the columns that its inputs are called
    by (lists where one is a matrix) and gives its one output, whatever its range. Rows stream.
    """

    type: ClassVar[str] = "predict"
    example: ClassVar[str] = '<process name="scored" type="predict" from="test" model="m"/>'
    row_wise: ClassVar[bool] = True

    model: ModelRef = Field(description="a step, the folder of a bundle, or models:/NAME@ALIAS")
    score: str = Field("score", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="the name of the new column")

    def code(self) -> str:
        return checks.user_code(self.model)

    def files(self, context: CheckContext) -> tuple[Path, ...]:
        manifest = Path(self.model) / "manifest.json"
        return (manifest,) if manifest.is_absolute() and manifest.is_file() else ()

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = checks.frame(inputs.get(self.from_))
        found = inputs.get(self.model)
        faults: list[Fault] = []
        if not isinstance(found, ModelInfo):
            found, faults = checks.bundle_info(self.model, context)
        faults += checks.model_columns(schema, found)
        faults += checks.taken(schema, self.score)
        import pyarrow as pa

        columns = (*schema.columns, Column(self.score, pa.float64()))
        return Checked({"": Schema(columns, schema.plan, schema.open)}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        from penstock.training.bundle import load

        given = inputs.get(self.model)
        bundle: Bundle = load(given.path if isinstance(given, Model) else self.model)
        frame: pl.LazyFrame = inputs[self.from_]
        schema = frame.collect_schema()
        info = context.info(self.from_)
        mapped = isinstance(info, Schema) and bundle.takes_mapped(info.plan, schema.names())
        bundle.require(schema.names(), mapped=mapped)
        name, threads = self.score, context.threads

        def scored(rows: pl.DataFrame) -> pl.DataFrame:
            needed = rows.select(bundle.encoder.layout.columns if mapped else bundle.columns)
            scores = bundle.score(needed, mapped=mapped, threads=threads)
            return rows.with_columns(pl.Series(name, scores, pl.Float64))

        out = {**schema, name: pl.Float64()}
        return frame.map_batches(
            scored, schema=pl.Schema(out), streamable=True, projection_pushdown=False, predicate_pushdown=False,
            slice_pushdown=False,
        )  # fmt: skip


class Evaluate(Process):
    """How good scores are: one row of metrics.

    auc (exact, ties one half), gauc (with `by`: mean AUC of the groups that hold both classes, weighted by rows or
    weights), logloss, ne, calibration, ece, pr_auc, accuracy, rows. What is undefined is null. Refuses missing labels
    and scores. docs/models.md gives the formulas. Curves go into the run's report.
    """

    type: ClassVar[str] = "evaluate"
    example: ClassVar[str] = '<process name="quality" type="evaluate" from="scored" label="label" by="user_id"/>'

    label: ColumnName = Field(description="the column of truth: 0 and 1, -1 and 1, or booleans")
    score: ColumnName = Field("score", description="the column of scores")
    weight: ColumnName = Field("", description="a column of row weights, 0 or more")
    by: Names = Field((), description="columns that make groups (a user): adds gauc")

    def staged(self) -> bool:
        return True

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = checks.frame(inputs.get(self.from_))
        return checks.evaluate(schema, self.label, self.score, self.weight, self.by)

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        from penstock.training.evaluation import evaluate

        names = dict.fromkeys((self.label, self.score, *([self.weight] if self.weight else []), *self.by))
        context.progress("reading the scores")
        rows = context.collect(inputs[self.from_].select(list(names)))
        context.progress(f"evaluating {len(rows):,} rows")
        found, curves = evaluate(rows, self.label, self.score, self.weight, self.by)
        context.metrics(found)
        for section in curves:
            context.show(section)
        return checks.metrics_frame(found).lazy()


class ModelInput(Input):
    """Reads a model bundle: a step that `predict` (model=) and `features` (plan=) may name."""

    type: ClassVar[str] = "model"
    example: ClassVar[str] = '<input name="m" type="model" path="out/model"/>'

    path: Location = Field(description="the folder of the bundle, or models:/NAME@ALIAS")

    def check(self, context: CheckContext) -> Checked:
        found, faults = checks.bundle_info(self.path, context)
        return Checked({"": found}, tuple(faults))

    def paths(self, context: CheckContext) -> tuple[str, ...]:
        if is_name(self.path):
            return ()  # its digest is in `code`
        folder = Path(self.path.removeprefix("file://"))
        return tuple(str(p) for p in sorted(folder.rglob("*")) if p.is_file()) if folder.is_dir() else ()

    def read(self, context: RunContext) -> Model:
        from penstock.training.bundle import load, place_of

        load(self.path)
        return Model(place_of(self.path))

    def code(self) -> str:
        return checks.user_code(self.path) if is_name(self.path) else ""


class ModelOutput(Output):
    """Writes a model as a bundle: a folder with manifest.json, the model in open formats and its feature plan."""

    type: ClassVar[str] = "model"
    example: ClassVar[str] = '<output name="bundle" type="model" from="m" path="out/model"/>'
    suffix: ClassVar[str | None] = ""

    from_: Annotated[str, Reference(accepts="model")] = Field(alias="from", description="the training step it writes")

    def folder(self) -> bool:
        return True

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        info = inputs[self.from_]
        faults = []
        if isinstance(info, Schema) and not info.open:
            said = f"'{self.from_}' is a frame, not a model"
            faults.append(Fault("TRAIN018", said, "write it with an output of type parquet or csv"))
        if self.mode == "append":
            said = "a model cannot be appended to a folder"
            faults.append(Fault("TRAIN018", said, 'mode="replace" or mode="error"'))
        return Checked({"": info}, tuple(faults))

    def twin(self) -> Mapping[str, str]:
        return {"type": "model"}

    def sink(self, value: Any, target: Path, context: RunContext) -> None:
        if not isinstance(value, Model):
            raise PenstockError(f"'{self.from_}' is not a model", "name a training step", "TRAIN018")
        shutil.copytree(value.path, target, dirs_exist_ok=True)

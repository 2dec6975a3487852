"""What the operators' checks have in common: schema-time faults, and what flows on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.data.schema import Column, Info, ModelInfo, Schema
from penstock.errors import PenstockError, did_you_mean
from penstock.operators.base import CheckContext, Checked, Fault, Model, RunContext
from penstock.operators.column_checks import listed
from penstock.operators.places import is_name
from penstock.training.faults import LearnerMissing, need_trees
from penstock.training.inputs import Layout, is_list, is_number

if TYPE_CHECKING:
    import polars as pl

    from penstock.features.plan import Plan

METRICS = ("auc", "gauc", "logloss", "ne", "calibration", "ece", "pr_auc", "accuracy", "rows")


def frame(info: Info | None) -> Schema:
    return info if isinstance(info, Schema) else Schema.unknown()


def model_info(algorithm: str, label: str, schema: Schema, layout: Layout) -> ModelInfo:
    """What is known of a model before it is trained. After `features` most raw columns are the plan's to say."""
    read = [c for c in schema if c.name in layout.columns]
    if any(map(_is_feature, read)):
        beside = {c.name: str(c.type or "") for c in read if not _is_feature(c)}
        return ModelInfo(algorithm, schema.plan, label, {"columns": beside} if beside else {})
    types = {name: str(column.type) for name in layout.columns if (column := schema.get(name)) and column.type}
    details = {} if schema.open else {"columns": {name: types.get(name, "") for name in layout.columns}}
    return ModelInfo(algorithm, "", label, details)


def trees_only(layout: Layout, columns: tuple[str, ...], keys: bool) -> Layout:
    """Trees take slots only where nothing else is there, or where they are named."""
    has_numbers = layout.numeric or layout.vectors or layout.categorical
    return layout if keys or columns or not has_numbers else replace(layout, slots=())


def trees_missing() -> list[Fault]:
    """TRAIN019 where trees cannot be grown: said before a node starts."""
    try:
        need_trees()
    except LearnerMissing as error:
        return [Fault(error.code, error.message, error.hint)]
    return []


def valid_columns(valid: Schema, layout: Layout, label: str, weight: str) -> list[Fault]:
    """TRAIN009 for each column that the valid frame lacks."""
    if valid.open:
        return []
    needed = dict.fromkeys((*layout.columns, label, *([weight] if weight else [])))
    return [
        Fault(
            "TRAIN009",
            f"the valid frame has no column '{name}'",
            did_you_mean(name, valid.names, "map it as the training frame is: features with plan="),
        )
        for name in needed
        if name not in valid
    ]


def plan_of(schema: Schema, layout: Layout, context: RunContext) -> Plan | None:
    """The plan that mapped the features the model reads; None where it reads raw columns alone."""
    if not _mapped(schema, layout):
        return None
    from penstock.features.plans import find_plan

    return find_plan(schema.plan, context)


def _mapped(schema: Schema, layout: Layout) -> bool:
    """Whether the model reads features of one plan. Columns that were kept may stand beside them, if it has one."""
    read = [c for c in schema if c.name in layout.columns]
    return any(map(_is_feature, read)) and (bool(schema.plan) or all(map(_is_feature, read)))


def _is_feature(column: Column) -> bool:
    return column.role in ("slot", "dense")


def raw_types(schema: Schema, plan: Plan | None, context: RunContext) -> Mapping[str, str]:
    """The Arrow types of the raw columns as the signature tells them."""
    if plan is None:
        return {c.name: str(c.type) for c in schema if c.type is not None}
    beside = {c.name: str(c.type) for c in schema if c.type is not None and not _is_feature(c)}
    try:
        stored = json.loads((context.plans / plan.fingerprint / "columns.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    return beside | {str(name): str(type_) for name, type_ in stored.items()}


def parent_of(start: str, inputs: Mapping[str, Any]) -> str:
    """What a warm start went on from, for the lineage: a `models:/` name, or the digest of a bundle; "" for none."""
    from penstock.registry.bundles import digest_of_folder

    given = inputs.get(start)
    if not start or is_name(start):
        return start
    return digest_of_folder(given.path if isinstance(given, Model) else Path(start.removeprefix("file://")))


def plain(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Lineage as JSON values."""
    found: dict[str, Any] = json.loads(json.dumps(dict(lineage), default=str))
    return found


def bundle_info(location: str, context: CheckContext) -> tuple[ModelInfo, list[Fault]]:
    """What a bundle's manifest says; faults where it cannot be read."""
    folder = location.removeprefix("file://")
    if any(folder == p.rstrip("/") or location == p for p in context.promised):
        return ModelInfo(), []
    from penstock.training.bundle import info_of

    try:
        return info_of(location), []
    except PenstockError as error:
        return ModelInfo(), [Fault(error.code, error.message, error.hint)]


def start_faults(start: str, algorithm: str, inputs: Mapping[str, Info], context: CheckContext) -> list[Fault]:
    """What is wrong with going on from the model `start`: it cannot be read, or is another algorithm's."""
    if not start:
        return []
    found = inputs.get(start)
    faults: list[Fault] = []
    if not isinstance(found, ModelInfo):
        found, faults = bundle_info(start, context)
    if found.algorithm and found.algorithm != algorithm:
        said = f"start is a model of '{found.algorithm}', and {algorithm} goes on from models of {algorithm} alone"
        faults.append(Fault("TRAIN020", said, "leave start out to begin anew"))
    return faults


def user_code(location: str) -> str:
    """What the cache must know of a bundle beside its files: the user functions that its plan calls.

    Of a version in the registry also the digest, which stands for its files.
    """
    from penstock.features.plans import function_sources

    return function_sources(location)


def model_columns(schema: Schema, model: ModelInfo) -> list[Fault]:
    """TRAIN013 for each raw column that the model needs and the frame lacks; mapped frames are left to the run."""
    if (
        schema.open
        or (model.plan and model.plan == schema.plan)
        or schema.with_role("slot")
        or schema.with_role("dense")
    ):
        return []
    return [
        Fault(
            "TRAIN013",
            f"the {model.algorithm} model reads '{name}', which is not a column of what arrives",
            did_you_mean(name, schema.names, f"the columns are {listed(schema.names)}"),
        )
        for name in model.details.get("columns", {})
        if name not in schema
    ]


def taken(schema: Schema, name: str) -> list[Fault]:
    if name not in schema:
        return []
    hint = f'score="{name}_2" gives it another name'
    return [Fault("TRAIN018", f"there is a column '{name}' already", hint)]


def itemsets(schema: Schema, name: str, rules: bool) -> Checked:
    import pyarrow as pa

    column = schema.get(name)
    faults = []
    if column is None and not schema.open:
        hint = did_you_mean(name, schema.names, f"the columns are {listed(schema.names)}")
        faults.append(Fault("TRAIN007", f"items: there is no column '{name}'", hint))
    item: pa.DataType | None = None
    if column is not None and column.type is not None:
        if is_list(column.type) and not pa.types.is_nested(column.type.value_type):
            item = column.type.value_type
        else:
            hint = "aggregate rows to a list, or split a string in a features step"
            faults.append(Fault("TRAIN008", f"items: column '{name}' is {column.type}, not a list of items", hint))
    items = pa.list_(item) if item is not None else None
    number, whole = pa.float64(), pa.int64()
    sets = Schema((Column("items", items), Column("support", number), Column("count", whole), Column("length", whole)))
    found = Schema(
        (
            Column("antecedent", items),
            Column("consequent", items),
            *(Column(n, number) for n in ("support", "confidence", "lift")),
        )
    )
    ports: dict[str, Info] = {"": found if rules else sets, "itemsets": sets}
    return Checked(ports | ({"rules": found} if rules else {}), tuple(faults))


def evaluate(schema: Schema, label: str, score: str, weight: str, by: Iterable[str]) -> Checked:
    import pyarrow as pa

    faults = []
    wanted = {"label": (label,), "score": (score,), "weight": (weight,) if weight else (), "by": tuple(by)}
    for field, names in wanted.items():
        for name in names:
            column = schema.get(name)
            if column is None:
                if not schema.open:
                    hint = did_you_mean(name, schema.names, f"the columns are {listed(schema.names)}")
                    code = "TRAIN001" if field == "label" else "TRAIN007"
                    faults.append(Fault(code, f"{field} '{name}' is not a column of what arrives", hint))
            elif column.type is not None and field != "by":
                fits = is_number(column.type) or (field == "label" and pa.types.is_boolean(column.type))
                if not fits:
                    said = "labels are 0 and 1, -1 and 1, or booleans" if field == "label" else f"a {field} is a number"
                    code = "TRAIN001" if field == "label" else "TRAIN008"
                    faults.append(Fault(code, f"{field} '{name}' is {column.type}; {said}"))
    types = {name: pa.float64() for name in METRICS} | {"rows": pa.int64()}
    return Checked({"": Schema(tuple(Column(n, t) for n, t in types.items()))}, tuple(faults))


def metrics_frame(found: Mapping[str, float | int | None]) -> pl.DataFrame:
    """One row, every metric of the contract, null where undefined."""
    import polars as pl

    types = {name: pl.Int64 if name == "rows" else pl.Float64 for name in METRICS}
    return pl.DataFrame({name: [found.get(name)] for name in METRICS}, schema=types)

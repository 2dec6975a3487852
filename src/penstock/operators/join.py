"""`join`: two frames side by side, by equal keys or by the nearest earlier moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from penstock.data.schema import Column, Info, Schema
from penstock.operators.base import CheckContext, Checked, Columns, Fault, Names, Process, Refs, RunContext
from penstock.operators.column_checks import frame, repeated, unknown
from penstock.operators.join_condition import ConditionError, Pair, pairs_of
from penstock.operators.join_keys import common_type, shared_type

if TYPE_CHECKING:
    import polars as pl

How = Literal["inner", "left", "right", "full", "semi", "anti", "cross", "asof"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|m|s|ms|us)")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds"}


class Join(Process):
    """Puts two frames side by side.

    Rows keep the left frame's order, matches of one row the right frame's; rows that only the right frame has come
    last. Columns: the left frame's, then the right frame's without its keys; a name the left frame has taken gets
    `_right`. Keys stand once, under the left name, filled from either side for `right` and `full`.
    Null keys never match. `asof` takes, for each left row, the right row with the nearest `on` at or before it
    (`direction`), among rows with equal `by`, no further away than `tolerance`; of equal ones the last (forward: the
    first). Errors: keys of types that cannot be compared, a condition other than equality.
    Needs memory for the right frame (`asof`: for both).
    """

    type: ClassVar[str] = "join"
    example: ClassVar[str] = '<process name="both" type="join" from="clicks users" on="user_id" how="left"/>'

    from_: Refs = Field(alias="from", description="the left and the right step")  # type: ignore[assignment]
    on: Columns = Field("", description='"id", "id, day" or "a.id = b.uid and a.day = b.day"')
    how: How = Field("inner", description="which rows to keep; asof: the nearest earlier one")
    by: Names = Field((), description="asof: columns that must be equal")
    tolerance: str = Field("", description='asof: how far away the match may be, "7d" or a number')
    direction: Literal["backward", "forward", "nearest"] = Field("backward", description="asof: where to look")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        plan = _plan(self, inputs)
        return Checked({"": plan.schema if not plan.faults else Schema.unknown()}, tuple(plan.faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        plan = _plan(self, {reference: context.info(reference) for reference in self.from_})
        left, right = (inputs[reference] for reference in self.from_)
        right = right.select(_renamed(plan))
        keys = [pair.left for pair in plan.keys]
        left, right = _cast_keys(left, plan), _cast_keys(right, plan)
        if self.how == "asof":
            return _asof(self, plan, left, right).select(plan.schema.names)
        if self.how == "cross":
            return left.join(right, how="cross", maintain_order="left_right")
        if self.how in ("semi", "anti"):
            return left.join(right, on=keys, how=self.how, maintain_order="left")
        joined = left.join(right, on=keys, how=self.how, coalesce=True, maintain_order="left_right")
        return joined.select(plan.schema.names)


@dataclass
class _Plan:
    """What a join will do, worked out from the two schemas."""

    keys: tuple[Pair, ...]  # asof: `by`, then the `on` column
    renames: Mapping[str, str]  # right name -> name in the result (keys: the left key's name)
    casts: Mapping[str, Any]  # key (left name) -> the Polars type both sides are cast to
    schema: Schema
    faults: list[Fault]


def _plan(join: Join, inputs: Mapping[str, Info]) -> _Plan:
    nothing = _Plan((), {}, {}, Schema.unknown(), [])
    if len(join.from_) != 2:
        said = f"from: a join reads two steps, not {len(join.from_)}"
        return _faulty(nothing, Fault("OPER105", said, "join the result with the next step in another join"))
    left, right = (frame(inputs.get(reference, Schema.unknown())) for reference in join.from_)
    faults = _attribute_faults(join)
    try:
        keys = pairs_of(join.on, join.from_) if join.on else ()
    except ConditionError as error:
        return _faulty(nothing, *faults, Fault("OPER105", f"on: {error}", error.hint))
    if join.how == "asof" and len(keys) > 1:
        said = f"on: asof compares one column by nearness, not {len(keys)}"
        faults.append(Fault("OPER105", said, 'columns that must be equal stand in by="..."'))
    keys = tuple(Pair(name, name) for name in join.by) + keys
    faults += _unknown_keys(join, keys, left, right)
    faults += repeated([pair.left for pair in keys], "on")
    if faults or left.open or right.open:
        return _faulty(nothing, *faults)
    casts = {}
    for pair in keys:
        a, b = left.get(pair.left), right.get(pair.right)
        if a is None or b is None or a.type is None or b.type is None:
            continue
        cast, fault = common_type(pair, a.type, b.type)
        faults += [fault] if fault else []
        if cast is not None:
            casts[pair.left] = cast
    faults += _asof_faults(join, keys, left)
    renames = _names(left, right, keys)
    schema = _joined(join, left, right, keys, renames)
    faults += repeated(schema.names, "the joined columns")
    return _Plan(keys, renames, casts, schema, faults)


def _faulty(plan: _Plan, *faults: Fault) -> _Plan:
    return _Plan(plan.keys, plan.renames, plan.casts, plan.schema, list(faults))


def _attribute_faults(join: Join) -> list[Fault]:
    faults = []
    if join.how == "cross" and join.on:
        faults.append(Fault("OPER105", "on: a cross join pairs every row with every row; it takes no keys"))
    if join.how != "cross" and not join.on:
        hint = 'write on="id", or how="cross" to pair every row with every row'
        faults.append(Fault("OPER105", f'on: a join with how="{join.how}" needs its keys', hint))
    for name in ("by", "tolerance"):
        if getattr(join, name) and join.how != "asof":
            faults.append(Fault("OPER105", f"{name}: only asof joins take it", 'write how="asof"'))
    if join.tolerance and _tolerance(join.tolerance) is None:
        hint = 'a duration like "7d", "12h", "30m", "10s", or a number'
        faults.append(Fault("OPER104", f"tolerance: '{join.tolerance}' is neither a duration nor a number", hint))
    return faults


def _unknown_keys(join: Join, keys: tuple[Pair, ...], left: Schema, right: Schema) -> list[Fault]:
    """A name that both sides lack is one mistake, not two."""
    faults = unknown([pair.left for pair in keys], left, f"on: '{join.from_[0]}'")
    both = {p.left for p in keys if p.left == p.right and p.left not in left and not left.open}
    return faults + unknown([p.right for p in keys if p.right not in both], right, f"on: '{join.from_[1]}'")


def _asof_faults(join: Join, keys: tuple[Pair, ...], left: Schema) -> list[Fault]:
    import pyarrow as pa

    column = left.get(keys[-1].left) if keys and join.how == "asof" else None
    if column is None or column.type is None:
        return []
    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not number and not pa.types.is_date(column.type) and not pa.types.is_timestamp(column.type):
        said = f"on: asof needs a number, date or timestamp, and '{column.name}' is {column.type}"
        return [Fault("OPER102", said)]
    tolerance = _tolerance(join.tolerance)
    if join.tolerance and tolerance is not None and number == isinstance(tolerance, timedelta):
        wanted = "a number" if number else 'a duration like "7d"'
        said = f"tolerance: '{column.name}' is {column.type}, so the tolerance is {wanted}, not '{join.tolerance}'"
        return [Fault("OPER104", said)]
    return []


def _tolerance(text: str) -> timedelta | float | None:
    if match := _DURATION.fullmatch(text.strip()):
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value >= 0 else None


def _names(left: Schema, right: Schema, keys: tuple[Pair, ...]) -> dict[str, str]:
    of_keys = {pair.right: pair.left for pair in keys}
    taken = set(left.names)
    return {name: of_keys.get(name, f"{name}_right" if name in taken else name) for name in right.names}


def _joined(join: Join, left: Schema, right: Schema, keys: tuple[Pair, ...], renames: Mapping[str, str]) -> Schema:
    by_key = {pair.left: pair.right for pair in keys}
    columns = []
    for column in left:
        other = right.get(by_key[column.name]) if column.name in by_key else None
        type_ = column.type if other is None else shared_type(column.type, other.type)
        columns.append(Column(column.name, type_, column.role))
    if join.how not in ("semi", "anti"):
        of_keys = {pair.right for pair in keys}
        columns += [Column(renames[c.name], c.type, c.role) for c in right if c.name not in of_keys]
    plans = {schema.plan for schema in (left, right) if schema.plan}
    return Schema(tuple(columns), plans.pop() if len(plans) == 1 else "")


def _renamed(plan: _Plan) -> list[pl.Expr]:
    import polars as pl

    return [pl.col(name).alias(new) for name, new in plan.renames.items()]


def _cast_keys(side: pl.LazyFrame, plan: _Plan) -> pl.LazyFrame:
    import polars as pl

    return side.with_columns(pl.col(name).cast(dtype) for name, dtype in plan.casts.items())


def _asof(join: Join, plan: _Plan, left: pl.LazyFrame, right: pl.LazyFrame) -> pl.LazyFrame:
    """Sorted by the `on` column on both sides for the join, and back into the left frame's order after it."""
    import polars as pl

    *by, on = [pair.left for pair in plan.keys]
    order = "__penstock_row"
    present = [pl.col(name).is_not_null() for name in (*by, on)]
    found = (
        left.with_row_index(order)
        .sort(on, nulls_last=True, maintain_order=True)
        .join_asof(
            right.filter(present).sort(on, maintain_order=True),
            on=on,
            by=by or None,
            strategy=join.direction,
            tolerance=_tolerance_for(join, plan),
            check_sortedness=False,
        )
    )
    return found.sort(order).drop(order)


def _tolerance_for(join: Join, plan: _Plan) -> timedelta | float | int | None:
    tolerance = _tolerance(join.tolerance)
    if not isinstance(tolerance, float):
        return tolerance
    import pyarrow as pa

    column = plan.schema.get(plan.keys[-1].left)
    whole = column is not None and column.type is not None and pa.types.is_integer(column.type)
    return int(tolerance) if whole else tolerance

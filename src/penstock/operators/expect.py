"""`expect`: what must hold of a frame before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from penstock.data.schema import Info, Schema
from penstock.errors import DataError
from penstock.operators.base import CheckContext, Checked, Expression, Fault, Form, Process, RunContext
from penstock.operators.column_checks import comma_list, frame, unknown
from penstock.operators.conditions import condition, condition_faults

if TYPE_CHECKING:
    import polars as pl

#: Failing rows that a message shows, and the characters of each.
_SHOWN_ROWS = 3
_SHOWN_CHARACTERS = 200


class Expect(Process):
    """Looks at its rows before anything below runs, and passes them on unchanged.

    `where` must be true for every row (null is not true); there must be at least `min_rows` rows; the share of nulls
    in a column may not be above its `max_null_share`. What does not hold ends the node, naming how many rows fail and
    showing the first few; with then="warn" it is only told. Reads its frame once beforehand (it ends a stage) and
    holds nothing in memory.
    """

    type: ClassVar[str] = "expect"
    example: ClassVar[str] = '<process name="sane" type="expect" from="kept" where="price &gt;= 0" min_rows="1000"/>'

    where: Expression = Field("", description="must be true for every row")
    min_rows: NonNegativeInt | None = Field(None, description="how many rows there must be at least")
    max_null_share: Annotated[str, Form("names")] = Field("", description='"a:0.1, b:0": the greatest share of nulls')
    then: Literal["fail", "warn"] = Field("fail", description="what happens when something does not hold")

    def staged(self) -> bool:
        return True

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        faults = condition_faults(self.where, schema, "where") if self.where else []
        shares, share_faults = _shares(self.max_null_share)
        faults += share_faults + unknown(shares, schema, "max_null_share")
        if not (self.where or self.max_null_share) and self.min_rows is None:
            hint = "write where=, min_rows= or max_null_share="
            faults.append(Fault("OPER104", "it expects nothing", hint))
        return Checked({"": schema}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        found: pl.LazyFrame = inputs[self.from_]
        schema = frame(context.info(self.from_))
        shares, _ = _shares(self.max_null_share)
        failing = (~condition(self.where, schema)).sum() if self.where else pl.lit(0)
        nulls = [pl.col(name).null_count().alias(f"nulls {name}") for name in shares]
        seen = context.collect(found.select(pl.len().alias("rows"), failing.alias("failing"), *nulls)).row(
            0, named=True
        )
        said = []
        if seen["failing"]:
            said.append(self._failing(found, schema, seen, context))
        if self.min_rows is not None and seen["rows"] < self.min_rows:
            said.append(f"there are {seen['rows']:,} rows, fewer than {self.min_rows:,}")
        for name, most in shares.items():
            count = seen[f"nulls {name}"]
            if count and count / seen["rows"] > most:
                share = count / seen["rows"]
                said.append(f"'{name}' is null in {share:.1%} of {seen['rows']:,} rows, more than {most:.1%}")
        if said:
            self._tell(said, context)
        return found

    def _failing(self, found: pl.LazyFrame, schema: Schema, seen: Mapping[str, Any], context: RunContext) -> str:
        first = context.collect(found.filter(~condition(self.where, schema)).head(_SHOWN_ROWS))
        rows = [_shown(row) for row in first.iter_rows(named=True)]
        count = seen["failing"]
        many = "1 row fails" if count == 1 else f"{count:,} rows fail"
        return f"{many} of {seen['rows']:,} '{self.where}', first {'; '.join(rows)}"

    def _tell(self, said: list[str], context: RunContext) -> None:
        if self.then == "fail":
            hint = 'repair the data above, or tell only, with then="warn"'
            raise DataError(f"step '{context.step}' expected otherwise: {'; '.join(said)}", hint, "OPER107")
        for line in said:
            context.progress(f"warning: OPER107 step '{context.step}' expected otherwise: {line}")
        title = f"{context.step} expected otherwise"
        context.show({"kind": "table", "title": title, "columns": ["what did not hold"], "rows": [[s] for s in said]})


def _shares(text: str) -> tuple[dict[str, float], list[Fault]]:
    """`a:0.1, b:0` as {"a": 0.1, "b": 0.0}."""
    if not text.strip():
        return {}, []
    hint = 'write max_null_share="a:0.1, b:0"'
    found: dict[str, float] = {}
    read, rest = comma_list(text)
    for entry, behind in read:
        name, _, share = (entry + behind).rpartition(":")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or not 0 <= value <= 1:
            return found, [Fault("OPER104", f"max_null_share: '{entry}{behind}' is not NAME:SHARE, 0 to 1", hint)]
        found[name] = value
    return found, [Fault("OPER104", f"max_null_share: '{rest}' is not NAME:SHARE", hint)] if rest else []


def _shown(row: Mapping[str, Any]) -> str:
    text = ", ".join(
        f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}" for name, value in row.items()
    )
    return f"({text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + '…'})"

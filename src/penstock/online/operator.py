"""`join_feedback`: the join of the closed loop over frames, for samples from logs that lie in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from penstock.data.schema import Column, Info, Schema
from penstock.operators.base import CheckContext, Checked, ColumnName, Fault, Names, Process, Refs, RunContext
from penstock.operators.column_checks import frame, repeated, unknown

from .settings import duration_ms
from .terms import Kind, Terms

if TYPE_CHECKING:
    import polars as pl

#: What a sample has beside its columns.
OWN = ("_id", "_kind", "_revision", "_time_ms", "_emit_ms", "_label", "_weight")


class JoinFeedback(Process):
    """Joins impressions with the feedback on them into weighted samples, as `penstock online join` does over topics.

    Two frames: impressions (`id`, `time` in ms, `score`, and columns to learn from) and feedback (`id`, `type`, `time`,
    and `value` if it has one). Gives the impressions' other columns and _id, _kind, _revision, _time_ms, _emit_ms,
    _label, _weight, with several types also _label_TYPE, in the order of (_emit_ms, _id, _kind). Rows without id, time
    or type are passed over. `arrived` names a column of both frames with the times at which their topics had them:
    with it the samples are those of the topics to the row, without it nothing is late. Needs memory for the feedback,
    and for the impressions' ids and times.
    """

    type: ClassVar[str] = "join_feedback"
    example: ClassVar[str] = (
        '<process name="samples" type="join_feedback" from="shown clicks" types="click" windows="30m" emit="at_close"/>'
    )

    from_: Refs = Field(alias="from", description="the impressions and the feedback")  # type: ignore[assignment]
    types: Names = Field(description="types of feedback")
    windows: Names = Field(description="how long after the impression each counts, such as 30m 7d")
    weights: Names = Field((), description="what a positive of each weighs, a number or value; default: 1")
    emit: Literal["at_once", "at_close"] = Field("at_once", description="a negative and a correction, or one sample")
    weighting: Literal["fake_negative", "none"] = Field("fake_negative", description="at_once: by the score, or not")
    negatives: float = Field(1.0, gt=0, le=1, description="the share of negatives to keep, by hash of their ids")
    lateness: str = Field("1m", description="how late feedback may be, and how long it waits for its impression")
    skew: str = Field("5m", description="how far clocks may differ")
    id: ColumnName = Field("id", description="the impression's id, in both")
    time: ColumnName = Field("time_ms", description="when it was, in both; milliseconds")
    event: ColumnName = Field("type", description="feedback: the column of its type")
    value: ColumnName = Field("", description="feedback: a number that may be its weight; default: 1")
    score: ColumnName = Field("", description="impressions: the probability that was served")
    arrived: ColumnName = Field("", description="when the topics had it, in both; default: time")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        faults = self._attribute_faults()
        if len(self.from_) != 2:
            said = f"from: impressions and feedback are two steps, not {len(self.from_)}"
            faults.append(Fault("OPER105", said, 'from="shown clicks"'))
        if faults:
            return Checked({"": Schema.unknown()}, tuple(faults))
        shown, done = (frame(inputs.get(one, Schema.unknown())) for one in self.from_)
        both = [self.id, self.time, *([self.arrived] if self.arrived else [])]
        scored = [self.score] if self.score else []
        valued = [self.value] if self.value else []
        faults += unknown([*both, *scored], shown, f"'{self.from_[0]}'")
        faults += unknown([*both, self.event, *valued], done, f"'{self.from_[1]}'")
        taken = [name for name in shown.names if name.startswith("_")]
        if taken:
            said = f"column '{taken[0]}': names beginning with _ are the join's own"
            faults.append(Fault("OPER103", said, "rename it before"))
        schema = self._schema(shown) if not shown.open and not faults else Schema.unknown()
        return Checked({"": schema}, tuple(faults))

    def _attribute_faults(self) -> list[Fault]:
        faults = repeated(self.types, "types")
        if len(self.windows) != len(self.types):
            said = f"windows: {len(self.windows)} for {len(self.types)} types"
            faults.append(Fault("OPER104", said, "a window for each type, in their order"))
        if self.weights and len(self.weights) != len(self.types):
            said = f"weights: {len(self.weights)} for {len(self.types)} types"
            faults.append(Fault("OPER104", said, "a weight for each type, in their order"))
        for name, text in (("lateness", self.lateness), ("skew", self.skew), *(("windows", w) for w in self.windows)):
            try:
                duration_ms(text)
            except ValueError as error:
                faults.append(Fault("OPER104", f"{name}: '{text}' is no time", str(error)))
        for text in self.weights:
            try:
                good = text == "value" or float(text) > 0
            except ValueError:
                good = False
            if not good:
                faults.append(Fault("OPER104", f"weights: '{text}'", "a number above 0, or value"))
        return faults

    @property
    def terms(self) -> Terms:
        weights = self.weights or ("1",) * len(self.types)
        each = zip(self.types, self.windows, weights, strict=True)
        kinds = (Kind(name, duration_ms(w), None if x == "value" else float(x)) for name, w, x in each)
        return Terms(
            tuple(sorted(kinds, key=lambda kind: kind.name)),
            emit=self.emit,
            lateness_ms=duration_ms(self.lateness),
            skew_ms=duration_ms(self.skew),
            negatives=self.negatives,
            weighting=self.weighting,
        )

    def _kept_columns(self, names: tuple[str, ...]) -> list[str]:
        own = {self.id, self.time, self.score, self.arrived}
        return [name for name in names if name not in own]

    def _schema(self, shown: Schema) -> Schema:
        import pyarrow as pa

        types = (pa.string(), pa.string(), pa.int32(), pa.int64(), pa.int64(), pa.int8(), pa.float64())
        own = [Column(name, type_) for name, type_ in zip(OWN, types, strict=True)]
        if len(self.types) > 1:
            own += [Column(f"_label_{kind.name}", pa.int8()) for kind in self.terms.kinds]
        columns = [column for column in shown if column.name in self._kept_columns(shown.names)]
        return Schema((*columns, *own))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        from .frames import Columns, joined

        shown, done = (inputs[one] for one in self.from_)
        kept = self._kept_columns(frame(context.info(self.from_[0])).names)
        named = Columns(self.id, self.time, self.event, self.value, self.score, self.arrived)
        return joined(shown, done, named, kept, self.terms, context.collect)

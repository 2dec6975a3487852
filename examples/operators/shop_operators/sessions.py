"""A process: number the sessions of each user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveFloat

from penstock.data.schema import Column
from penstock.errors import did_you_mean
from penstock.operators.base import CheckContext, Checked, Fault, Process, RunContext

if TYPE_CHECKING:
    import polars as pl


class Sessions(Process):
    """Add a column that numbers each user's sessions from 1, in time order; rows keep their order.

    A session ends where a user is silent for longer than `gap_minutes`. The new column is int64, null where the user or
    the time is null. Needs memory for the user, the time and the row's place.
    """

    type: ClassVar[str] = "sessions"
    example: ClassVar[str] = '<process name="s" type="sessions" from="clicks" user="user_id" time="ts"/>'

    user: str = Field(description="the column that names a user")
    time: str = Field(description="a timestamp column")
    gap_minutes: PositiveFloat = Field(30.0, description="the silence that ends a session")
    into: str = Field("session", description="the new column")

    def check(self, inputs: Mapping[str, Any], context: CheckContext) -> Checked:
        import pyarrow as pa

        schema = inputs[self.from_]
        faults = [
            Fault("OPER101", f"{field}: there is no column '{name}'", did_you_mean(name, schema.names))
            for field, name in (("user", self.user), ("time", self.time))
            if name not in schema and not schema.open
        ]
        time = schema.get(self.time)
        if time is not None and time.type is not None and not pa.types.is_timestamp(time.type):
            faults.append(Fault("OPER102", f"time: column '{self.time}' is {time.type}, not a timestamp"))
        if self.into in schema:
            faults.append(Fault("OPER103", f"into: there is a column '{self.into}' already"))
        return Checked({"": schema.with_columns([*schema, Column(self.into, pa.int64())])}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        known = pl.col(self.user).is_not_null() & pl.col(self.time).is_not_null()
        gap = pl.duration(microseconds=round(self.gap_minutes * 60_000_000))
        silence = pl.col(self.time).diff().over(self.user, order_by=self.time)
        starts = (silence.is_null() | (silence > gap)).cast(pl.Int64)
        number = starts.cum_sum().over(self.user, order_by=self.time)
        frame: pl.LazyFrame = inputs[self.from_]
        return frame.with_columns(pl.when(known).then(number).alias(self.into))

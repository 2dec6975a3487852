"""`views`: feature views joined to samples, as a step of a flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from penstock.data.schema import Column, Info, Schema
from penstock.errors import PenstockError, ProblemsFound, RequestError, did_you_mean
from penstock.features.views import offline, parse, sources
from penstock.features.views.model import ARROW, View
from penstock.operators.base import (
    CheckContext,
    Checked,
    ColumnName,
    Fault,
    Location,
    Names,
    Process,
    RunContext,
)
from penstock.operators.column_checks import frame as schema_of
from penstock.operators.column_checks import unknown

if TYPE_CHECKING:
    import polars as pl


class Views(Process):
    """Adds the columns of feature views, as of each row's time: the newest events up to it, and none after it.

    One row out for each row in, in order; the views' columns come last (int64, f64, string or bool). Null where the
    entity has no event yet or none within the view's TTL; counts and sums are 0 then. A row whose key or time is null
    is such a row. Of events at one time, the one that the source has later is the newest. Times are timestamps, dates
    or numbers with `unit`.
    Memory does not grow with the rows; files as large as what is joined lie in the run store meanwhile.
    Errors: a key or time of a wrong type, a column that two views have.
    """

    type: ClassVar[str] = "views"
    example: ClassVar[str] = (
        '<process name="known" type="views" from="clicks" map="views.xml" use="user_clicks" time="ts"/>'
    )

    map: Location = Field(description="the views file")
    use: Names = Field((), description="which of its views (default: all)")
    time: ColumnName = Field(description="the column of each row's time")
    unit: Literal["", "s", "ms", "us"] = Field("", description="of a time that is a number")

    def staged(self) -> bool:
        return True

    def files(self, context: CheckContext) -> tuple[Path, ...]:
        """The file, and what its views read: events that are added make the step run again."""
        path = Path(self.map)
        try:
            views = self.views()
        except PenstockError:
            return (path,)
        files = [(view.base, view.source) for view in views if view.source.type]
        found = [p for base, source in files for p in _paths(base, source.type, source.attrs)]
        return (path, *dict.fromkeys(found))

    def views(self) -> list[View]:
        file = parse.read(Path(self.map))
        return [file.view(name) for name in self.use or file.views]

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = schema_of(inputs.get(self.from_, Schema.unknown()))
        try:
            views = self.views()
            offline.refuse_taken(schema.names, views)
        except ProblemsFound as found:
            faults = [Fault(p.code, p.message, p.hint, p.severity, p.file, p.line) for p in found.problems]
            return Checked({"": Schema.unknown()}, tuple(faults))
        except RequestError as error:
            return Checked({"": Schema.unknown()}, (Fault(error.code, error.message, error.hint),))
        faults = list(unknown([self.time], schema, "time"))
        for view in views:
            for name, _ in view.entity.keys:
                if name not in schema and not schema.open:
                    hint = did_you_mean(name, schema.names, f"it has {', '.join(schema.names[:8])}")
                    said = f"view '{view.name}' is of '{name}', which is no column of the input"
                    faults.append(Fault("VIEW011", said, hint))
        added = (Column(name, _shown(ARROW[kind])) for view in views for name, kind in view.outputs.items())
        return Checked({"": schema.with_columns((*schema.columns, *added))}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        views = self.views()
        frame: pl.LazyFrame = inputs[self.from_]
        names = list(dict.fromkeys(name for view in views for name, _ in view.entity.keys))
        time = sources.timed(frame, self.time, self.unit).alias("\x01time")
        asked = frame.select(*(pl.col(name) for name in names), time)
        for view in views:
            sources.keyed(view, frame)

        def batches() -> Iterator[pa.RecordBatch]:
            yield from context.batches(asked)

        target = context.scratch / "views.parquet"
        offline.write(
            batches(), views, target, context.scratch, lambda what, rows: context.progress(f"{rows:,} {what}")
        )
        return pl.concat([frame, pl.scan_parquet(target)], how="horizontal")


def _paths(base: Path, type_: str, attrs: Mapping[str, str]) -> Iterator[Path]:
    from penstock.operators.base import Input
    from penstock.operators.catalog import operator

    found = operator("input", type_).model_validate(dict(attrs))
    assert isinstance(found, Input)
    yield from (Path(p) for p in found.paths(CheckContext(flow_dir=base)) if p.startswith("/"))


def _shown(type_: pa.DataType) -> pa.DataType:
    """As Polars hands it out."""
    return pa.string() if type_ == pa.large_string() else type_

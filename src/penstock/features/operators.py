"""`features`: a feature file as a step of a flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from penstock.data.frames import Source, source_of, with_source
from penstock.data.schema import Column, Info, ModelInfo, Schema
from penstock.errors import DataError, Problem, ProblemsFound, did_you_mean
from penstock.features import dictionaries, fit, plans, raw_rows
from penstock.features.check import CheckedFile, check
from penstock.features.parse import read
from penstock.features.plan import Plan, PlanError, mapped_columns
from penstock.features.resolve import resolve
from penstock.operators.base import (
    CheckContext,
    Checked,
    Fault,
    Location,
    Model,
    Names,
    Process,
    Ref,
    Reference,
    Result,
    RunContext,
)

if TYPE_CHECKING:
    import polars as pl

#: The row's number rides along, so that an error can name it. No column of a file is called so.
_ROW = "\x00row"


class Features(Process):
    """Maps raw columns to slots and dense numbers by a feature file, through the compiled kernel.

    One row out for each row in, in order. The columns are `keep`, then slots (a list of 64-bit keys, u64; with
    NAME__weight, a list of f32, where weighted), then dense (f32), in the file's order; form="flat" gives `keys`,
    `weights` and `dense` instead. Null, missing and NaN give no key, and a dense its default. A row that has no
    meaning under the file (an index out of range, too many combinations) fails the run and is named.

    Fitted items learn from `fit_from` alone. With `plan` the plan of another step, bundle or plan folder is applied
    and nothing is learnt again.
    """

    type: ClassVar[str] = "features"
    example: ClassVar[str] = '<process name="mapped" type="features" from="train" map="features.xml" keep="label"/>'
    row_wise: ClassVar[bool] = True
    spool: ClassVar[bool] = True

    map: Location = Field("", description="the feature file; may be left out where plan is given")
    keep: Names = Field((), description="raw columns carried along beside the features")
    form: Literal["slots", "flat"] = Field("slots", description="a column for each feature, or three lists")
    fit_from: Ref = Field("", description="the step that fitted functions learn from; without it, from")
    plan: Annotated[str, Reference(accepts="any", or_location=True)] = Field(
        "", description="a step, bundle or models:/ whose fitted plan is applied and never refitted"
    )

    # --- before it runs -------------------------------------------------------------------------------------

    def staged(self) -> bool:
        """Learning reads the rows when the step is built."""
        if self.plan or not self.map:
            return False
        file, _ = read(Path(self.map))
        return file is not None and any(
            item.attrs.get("fit") == "true"
            or item.attrs.get("bounds", "").startswith("quantile")
            or item.attrs.get("dict", "").startswith("fit")
            for item in file.items
        )

    def files(self, context: CheckContext) -> tuple[Path, ...]:
        if not self.map:
            return ()
        path = Path(self.map)
        file, _ = read(path, context.values)
        if file is None:
            return (path,)
        places = (dictionaries.locate(file, d, _places(context)) for d in file.dictionaries)
        return (path, *(place for place in places if isinstance(place, Path)))

    def node_references(self, context: CheckContext) -> tuple[str, ...]:
        if not self.map:
            return ()
        file, _ = read(Path(self.map), context.values)
        return tuple(d.source for d in file.dictionaries if d.source) if file else ()

    def code(self) -> str:
        """The sources of the user's functions: a change of one makes the step run again."""
        if self.plan:
            return plans.function_sources(self.plan)
        file, _ = read(Path(self.map)) if self.map else (None, [])
        named = [item for item in file.items if ":" in item.fn] if file else []
        if not named:
            return ""
        from penstock.features import user_functions

        found = []
        for item in named:
            try:
                found.append(user_functions.find(item.fn, item.attrs.get("takes", "")).sha256)
            except user_functions.UserFunctionError as error:
                found.append(str(error))  # the check says what is wrong; here it only has to differ
        return ",".join(found)

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        raw = _schema(inputs.get(self.from_))
        faults = [*_unknown_kept(self.keep, raw)]
        kept = [Column(name, (raw.get(name) or Column(name)).type) for name in self.keep]
        if not self.map and not self.plan:
            faults.append(Fault("FEAT003", "the step has neither map nor plan", 'map="features.xml" names the file'))
            return Checked({"": Schema.unknown()}, tuple(faults))
        mapped: Schema | None = None
        if self.map:
            checked = self.checked(raw, context)
            faults += checked if isinstance(checked, list) else checked.faults
            if isinstance(checked, CheckedFile):
                mapped = _mapped(checked, self.form)
                faults += self._fit_columns(checked, inputs)
        if self.plan:
            applied, wrong = self._applied(inputs.get(self.plan), self.plan in inputs)
            faults += wrong
            mapped = applied or mapped
        if mapped is None:
            return Checked({"": Schema(tuple(Column(c.name, c.type, "kept") for c in kept), open=True)}, tuple(faults))
        faults += [
            Fault("FEAT008", f"keep names '{c.name}', and the features give a column of that name")
            for c in kept
            if c.name in mapped
        ]
        columns = (*(Column(c.name, c.type, "kept") for c in kept), *mapped.columns)
        return Checked({"": Schema(columns, mapped.plan)}, tuple(faults))

    def checked(self, raw: Schema, context: CheckContext) -> CheckedFile | list[Fault]:
        """The file checked against the raw columns; faults alone where it cannot be read."""
        path = Path(self.map)
        file, faults = read(path, context.values, _shown(path))
        if file is None:
            return faults
        checked = check(file, raw, _places(context))
        return CheckedFile(file, checked.items, checked.places, (*faults, *checked.faults))

    def _fit_columns(self, checked: CheckedFile, inputs: Mapping[str, Info]) -> Iterator[Fault]:
        """Columns that `from` has and `fit_from` lacks."""
        source = _schema(inputs.get(self.fit_from)) if self.fit_from else Schema.unknown()
        if not checked.fitted or source.open:
            return
        for item in checked.fitted:
            for name in (s.column for s in item.sources if s.item < 0):
                if name not in source:
                    hint = did_you_mean(name, source.names, f"it has {', '.join(source.names)}")
                    message = f"'{item.item.name}' learns from '{name}', which step '{self.fit_from}' does not have"
                    yield Fault("FEAT010", message, hint)

    def _applied(self, info: Info | None, is_step: bool) -> tuple[Schema | None, list[Fault]]:
        """What the plan of `plan=` will give, as far as can be known before it runs."""
        if isinstance(info, Schema):
            columns = tuple(c for c in info.columns if c.role in ("slot", "dense"))
            if not columns and not info.open:
                hint = "plan names a features step, a model or a bundle"
                return None, [Fault("FEAT026", f"step '{self.plan}' carries no feature plan", hint)]
            return (Schema(columns, info.plan) if columns else None), []
        if isinstance(info, ModelInfo) or is_step:
            return None, []
        try:
            plan = plans.load(self.plan)
        except Exception as error:
            from penstock.errors import PenstockError

            if not isinstance(error, PenstockError):
                raise
            return None, [Fault(error.code, error.message, error.hint)]
        return plan.schema((), self.form), []

    # --- when it runs ---------------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Result:
        frame: pl.LazyFrame = inputs[self.from_]
        plan = self._plan(inputs, context)
        raw = frame.collect_schema()
        plan.require(raw.names(), self.keep)
        types = _schema(context.info(self.from_))
        plans.note_types(plan, types, context)
        kept = [Column(name, (types.get(name) or Column(name)).type) for name in self.keep]
        schema = plan.schema(kept, self.form)

        def note(rows: pa.Table) -> None:
            raw_rows.note(plan, rows, context)

        noted = note if raw_rows.wanted(plan, context) else None
        return Result({"": apply_lazily(plan, frame, self.keep, self.form, context.threads, noted)}, {"": schema})

    def _plan(self, inputs: Mapping[str, Any], context: RunContext) -> Plan:
        """The plan to apply, kept in the run store under its fingerprint."""
        if self.plan:
            given = inputs.get(self.plan)
            if isinstance(given, Model):
                return plans.keep(plans.load(str(given.path)), context)
            if given is None:
                return plans.keep(plans.load(self.plan), context)
            info = context.info(self.plan)
            if not isinstance(info, Schema) or not info.plan:
                raise PlanError(f"step '{self.plan}' carries no feature plan", "name a features step", "FEAT026")
            return plans.find_plan(info.plan, context)
        checking = CheckContext(
            flow_dir=context.flow_dir, step=context.step, values=context.values, written=context.node_outputs
        )
        checked = self.checked(_schema(context.info(self.from_)), checking)
        faults = checked if isinstance(checked, list) else list(checked.faults)
        if isinstance(checked, list) or checked.failed:
            raise ProblemsFound(Problem(f.file, f.line, f.code, f.message, f.hint, f.severity) for f in faults)
        learnt = None
        if checked.fitted:
            source: pl.LazyFrame = inputs[self.fit_from or self.from_]
            learnt = fit.learn(checked, _reader(source, context), context.scratch, context.progress)
        return plans.keep(resolve(checked, learnt), context)


def apply_lazily(
    plan: Plan, frame: pl.LazyFrame, keep: Sequence[str], form: Literal["slots", "flat"], threads: int,
    noted: Callable[[pa.Table], None] | None = None,
) -> pl.LazyFrame:  # fmt: skip
    """`frame` mapped by `plan`, batch by batch as it streams. `noted`, if any, is shown the first rows, raw."""
    import polars as pl

    raw = frame.collect_schema()
    columns = tuple(dict.fromkeys((*keep, *plan.columns)))
    lists, numbers = pl.List(pl.UInt64), pl.List(pl.Float32)
    arrow = {"keys": lists, "weights": numbers, "dense": numbers} if form == "flat" else None
    output: dict[str, Any] = {name: raw[name] for name in keep}
    for column in plan.schema((), form):
        if arrow is not None:
            output[column.name] = arrow[column.name]
        else:
            output[column.name] = (
                pl.Float32 if column.role == "dense" else numbers if column.name not in plan.slots else lists
            )

    def mapped(rows: pl.DataFrame) -> pl.DataFrame:
        first = int(rows[_ROW][0]) if rows.height else 0
        if first == 0 and noted is not None:
            noted(rows.select(columns).head(raw_rows.ROWS).to_arrow())
        features = plan.map_frame(rows, form, threads, first)
        return rows.select(keep).hstack(features.get_columns()) if keep else features

    found = (
        frame.select(columns)
        .with_row_index(_ROW)
        .map_batches(mapped, schema=pl.Schema(output), streamable=True, predicate_pushdown=False,
                     projection_pushdown=False, slice_pushdown=True)
    )  # fmt: skip
    source = source_of(frame)
    if source is None or not columns or any(raw[name] == pl.String for name in keep):
        return found  # strings come out as Polars has them

    def opened(_: Any) -> Iterator[pa.RecordBatch]:
        if noted is None:
            return plan.map_source(source, keep, form, threads)
        if source.first is not None:  # raw rows are seen nowhere else: they are mapped where they are parsed
            few = source.first(columns, raw_rows.ROWS)
            if few is not None:
                noted(pa.Table.from_batches([few]))
            return plan.map_source(source, keep, form, threads)
        seen = False

        def see(batch: pa.RecordBatch) -> None:
            nonlocal seen
            if not seen:
                noted(pa.Table.from_batches([batch.slice(0, raw_rows.ROWS)]))
                seen = True

        return plan.map_source(source.watched(see), keep, form, threads)

    return with_source(found, Source(opened))


def _reader(frame: pl.LazyFrame, context: RunContext) -> fit.Read:
    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        names = frame.collect_schema().names()
        missing = [name for name in columns if name not in names]
        if missing:
            hint = did_you_mean(missing[0], names)
            raise DataError(f"the rows to learn from have no column '{missing[0]}'", hint, "FEAT028")
        return context.batches(frame.select(columns))

    return batches


def _mapped(checked: CheckedFile, form: Literal["slots", "flat"]) -> Schema:
    """The columns a checked file gives; with the plan's fingerprint only once it is resolved."""
    slots = [(item.item.name, item.weighted) for item in checked.items if item.item.kind == "slot"]
    dense = [item.item.name for item in checked.items if item.item.kind == "dense"]
    return Schema(tuple(mapped_columns(slots, dense, form)))


def _unknown_kept(keep: Sequence[str], raw: Schema) -> Iterator[Fault]:
    for name in keep:
        if name not in raw and not raw.open:
            hint = did_you_mean(name, raw.names, f"the columns are: {', '.join(raw.names)}")
            yield Fault("FEAT010", f"keep names '{name}', which is no column of the input", hint)


def _schema(info: Info | None) -> Schema:
    return info if isinstance(info, Schema) else Schema.unknown()


def _places(context: CheckContext) -> dictionaries.Places:
    return dictionaries.Places(
        outputs=context.written,
        promised=frozenset(context.node_outputs),
        promised_paths=context.promised,
        within_flow=True,
    )


def _shown(path: Path) -> str:
    """The path as a person would write it: relative to where they stand, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


__all__ = ["Features", "apply_lazily"]

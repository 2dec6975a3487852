"""The base classes of every operator, built in or the user's own.

An operator is a frozen value: its fields are the attributes a flow file may write, and are the single source of
the XSD fragment, the canvas form (JSON Schema), the reference page and the run-time check. Flow reaches it only
through `check` (pure, at check time and again with the real types) and `run`/`read`/`sink` (in the worker).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from penstock.data.names import split_names, unquoted
from penstock.data.schema import Info, ModelInfo, Schema
from penstock.errors import Severity

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


# --- kinds of attribute -------------------------------------------------------------------------------------


def _split_names(value: object) -> object:
    if not isinstance(value, str):
        return value
    return split_names(value)


def _unquote(value: object) -> object:
    return unquoted(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Reference:
    """Marks a field whose value names a step (or STEP.PORT) of the same node: an edge.

    `accepts` says what may flow along it; `or_location` also allows a path or a models:/ name, which is no edge.
    """

    accepts: Literal["frame", "model", "any"] = "frame"
    or_location: bool = False


@dataclass(frozen=True)
class Form:
    """Marks what a string field holds, for the canvas, the XSD and the checks that flow does itself."""

    kind: Literal["path", "expression", "columns", "column", "names", "sql"]


#: One step, or one port of a step.
Ref = Annotated[str, Reference()]
ModelRef = Annotated[str, Reference(accepts="model", or_location=True)]
#: Several steps, separated by spaces or commas.
Refs = Annotated[tuple[str, ...], BeforeValidator(_split_names), Reference()]
#: One column; a name that is no identifier may stand in double quotes, as in a list of names.
ColumnName = Annotated[str, BeforeValidator(_unquote), Form("column")]
#: Names separated by spaces or commas; those that are no identifiers in double quotes.
Names = Annotated[tuple[str, ...], BeforeValidator(_split_names), Form("names")]
#: A path or URL; flow interpolates it and makes it absolute (relative to the flow file) before the operator sees it.
Location = Annotated[str, Form("path")]
#: An expression of the contract's SQL subset / a list of them with names.
Expression = Annotated[str, Form("expression")]
Columns = Annotated[str, Form("columns")]


# --- what check and run are given ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A problem as an operator sees it: flow adds the file and the element's line where they are not given."""

    code: str
    message: str
    hint: str = ""
    severity: Severity = "error"
    file: str = ""
    line: int = 0


@dataclass(frozen=True)
class Checked:
    """What a check found, and what will flow out of each port ("" is the only port of most operators)."""

    outputs: Mapping[str, Info] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @property
    def failed(self) -> bool:
        return any(f.severity == "error" for f in self.faults)


@dataclass(frozen=True)
class CheckContext:
    """The little of the world a check may look at. Paths are absolute; checks never write.

    `promised`: paths an earlier node writes, so they are not "missing". `node_outputs`: "node.output" -> what it
    will hold. `values`: the flow's interpolation values, for files with `${...}` of their own (features).
    `written`: "node.output" -> its path, of the outputs that are there already (in a running worker: all it names).
    """

    flow_dir: Path = field(default_factory=Path.cwd)
    step: str = ""
    promised: frozenset[str] = frozenset()
    node_outputs: Mapping[str, Info] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)


class RunContext(Protocol):
    """What the engine offers a running operator. Implemented by `engines`; tests may implement it in ten lines."""

    flow_dir: Path
    step: str
    threads: int
    scratch: Path  # a folder of this step's own in the run store
    kept: Path  # likewise, but a run that goes on with the same inputs finds it as it was left (may not exist yet)
    plans: Path  # where the run store keeps feature plans by fingerprint, for every node and run (may not exist yet)
    values: Mapping[str, str]
    node_outputs: Mapping[str, str]  # "node.output" -> its path or URL
    lineage: Mapping[str, Any]  # run, flow, node, inputs and code fingerprints: what a bundle's manifest records

    def info(self, reference: str) -> Info:
        """The schema (with roles) or model info of an input, as it really is."""

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Execute now, streaming; rows are in order."""

    def batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        """Execute now, batch by batch, in order: what training reads."""

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        """Tell the person waiting; cheap, call it as often as you like."""

    def metrics(self, values: Mapping[str, float | int | None]) -> None:
        """Record the step's metrics: they appear in the run's JSON, the report and the lineage."""

    def show(self, section: Mapping[str, Any]) -> None:
        """Add a section to the run's report (see `operators.report` for the kinds of section)."""


@dataclass(frozen=True)
class Model:
    """A trained model as it flows along edges: the folder of its bundle."""

    path: Path


@dataclass(frozen=True)
class Result:
    """What `run` gives when a bare frame or model does not say enough: ports, and infos only the run knows."""

    outputs: Mapping[str, Any]
    infos: Mapping[str, Info] = field(default_factory=dict)


# --- the base classes ---------------------------------------------------------------------------------------


class Operator(BaseModel):
    """Fields are attributes; the docstring is its reference page: shape, dtype, nulls, units, errors, in that order."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    kind: ClassVar[Literal["input", "process", "output"]]
    #: The name flows write in `type=`; "" for the user's own classes, which flows name by `class=`.
    type: ClassVar[str] = ""
    #: One element as a user would write it; shown by `penstock operators NAME`, checked by the conformance suite.
    example: ClassVar[str] = ""
    #: The engines that can compute it.
    engines: ClassVar[frozenset[str]] = frozenset({"local"})
    #: The field that the element's text fills, if any (`sql`).
    text_field: ClassVar[str] = ""

    def references(self) -> tuple[tuple[str, str, Reference], ...]:
        """Every edge this operator declares, as (field, "STEP" or "STEP.PORT", marker), in field order."""
        found = []
        for name, marker in _edges(type(self)):
            value = getattr(self, name)
            if value:
                names: Sequence[str] = (value,) if isinstance(value, str) else value
                found += [(name, reference, marker) for reference in names]
        return tuple(found)

    def ports(self) -> tuple[str, ...]:
        """The names after the dot; ("",) where there is one unnamed result, () while wrong attributes leave it open."""
        return ("",)

    def node_references(self, context: CheckContext) -> tuple[str, ...]:
        """Other nodes' outputs this operator reads by name ("node.output"), e.g. a dictionary: edges too."""
        return ()

    def files(self, context: CheckContext) -> tuple[Path, ...]:
        """Files read beside the data (a features file, its dictionaries): part of the cache key."""
        return ()

    def code(self) -> str:
        """A fingerprint of this operator's own code for the cache; built-ins count as the package's version."""
        return ""


@cache
def _edges(operator: type[Operator]) -> tuple[tuple[str, Reference], ...]:
    """The fields that are edges, each with its marker."""
    markers = (
        (name, next((m for m in info.metadata if isinstance(m, Reference)), None))
        for name, info in operator.model_fields.items()
    )
    return tuple((name, marker) for name, marker in markers if marker is not None)


class Input(Operator):
    """Reads one frame (or model) into the node."""

    kind: ClassVar[Literal["input", "process", "output"]] = "input"

    def check(self, context: CheckContext) -> Checked:
        """Look at headers only. An unreadable or missing file is a fault here, not at run time."""
        return Checked({"": Schema.unknown()})

    def paths(self, context: CheckContext) -> tuple[str, ...]:
        """The files it will read, globs expanded, sorted: their size and mtime are part of the cache key."""
        return ()

    def read(self, context: RunContext) -> pl.LazyFrame | Model:
        raise NotImplementedError


class Process(Operator):
    """Maps frames and models to frames and models. Building a frame is pure; nothing runs until an output needs it."""

    kind: ClassVar[Literal["input", "process", "output"]] = "process"

    from_: Ref = Field(alias="from", description="the step it reads")

    #: True where each output row depends on its own input row alone.
    row_wise: ClassVar[bool] = False
    #: True where running it twice is costly or unsafe (user code, `features`): what later stages share is spooled.
    spool: ClassVar[bool] = False

    def staged(self) -> bool:
        """Whether `run` itself reads its frames (fitting, a time cut, training): it then ends a stage."""
        return False

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        """Map input infos, keyed by reference as written, to an info a port."""
        return Checked({port: Schema.unknown() for port in self.ports()})

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> Any:
        """`inputs[reference]` is a LazyFrame or a `Model`. Return a frame, a `Model`, {port: either}, or a `Result`."""
        raise NotImplementedError


class Output(Operator):
    """Writes one frame (or model) out of the node. The engine hands it a staging place and makes the swap."""

    kind: ClassVar[Literal["input", "process", "output"]] = "output"

    from_: Ref = Field(alias="from", description="the step it writes")
    path: Location = Field("", description="where; without it the file lives in the run store")
    mode: Literal["replace", "error", "append"] = Field("replace", description="what happens to what is there")

    #: The suffix of a single file (".parquet"); "" where the output is always a folder; None: writes no file (print).
    suffix: ClassVar[str | None] = ""

    def folder(self) -> bool:
        """Whether the target is a folder of files rather than one file."""
        return not self.path.rstrip().lower().endswith(self.suffixes())

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        return (cls.suffix,) if cls.suffix else ("\0",)

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        """Port "" is what reading the output back will give: types the format cannot hold are faults here."""
        return Checked({"": inputs[self.from_]})

    def twin(self) -> Mapping[str, str]:
        """The attributes (with `type`) of the input that reads this back; {} where nothing can."""
        return {}

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        """Write `value` to `target`, a staging file or an existing empty folder.

        Return a lazy sink (`sink_parquet(..., lazy=True)`, `sink_batches(..., lazy=True)`) that the engine executes
        together with the node's other outputs, or None if it is written already. The engine fsyncs and swaps.
        """
        raise NotImplementedError


AnyOperator = Input | Process | Output
__all__ = [
    "AnyOperator",
    "CheckContext",
    "Checked",
    "ColumnName",
    "Columns",
    "Expression",
    "Fault",
    "Form",
    "Input",
    "Location",
    "Model",
    "ModelInfo",
    "ModelRef",
    "Names",
    "Operator",
    "Output",
    "Process",
    "Ref",
    "Reference",
    "Refs",
    "Result",
    "RunContext",
    "Schema",
]

"""What every operator promises, examined: built-ins and plugins pass the same suite (`penstock operators --conform`).

Each promise is one small function over a class, raising `Broken` with what it saw; `examine` runs all of them. The
frames it tries an operator on have the columns that the operator's own example names, and nulls in every one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from pydantic import ValidationError

from penstock.data.schema import Info, ModelInfo, Schema
from penstock.errors import PenstockError
from penstock.operators.base import CheckContext, Checked, Input, Operator, Output, Process, Result
from penstock.operators.describe import describe

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


class Broken(Exception):
    """A promise that is not kept; the message says what was seen."""


class NotTried(Exception):
    """The promise could not be examined on this operator, which is no fault of its own."""


@dataclass(frozen=True)
class Finding:
    """One promise, and whether it is kept."""

    promise: str
    kept: bool
    message: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"promise": self.promise, "kept": self.kept, "message": self.message}


def examine(cls: type[Operator]) -> list[Finding]:
    """Every promise that concerns this kind of operator."""
    findings = []
    for promise, look in PROMISES.items():
        try:
            look(cls)
        except NotTried as reason:
            findings.append(Finding(promise, True, f"not tried: {reason}"))
        except Broken as seen:
            findings.append(Finding(promise, False, str(seen)))
        except Exception as error:
            findings.append(Finding(promise, False, f"it raised {type(error).__name__}: {error}"))
        else:
            findings.append(Finding(promise, True))
    return findings


# --- what it says about itself ------------------------------------------------------------------------------


def _has_a_docstring(cls: type[Operator]) -> None:
    if not cls.__doc__ or cls.__doc__ == (cls.__mro__[1].__doc__ or ""):
        raise Broken("the class has no docstring of its own: it is the operator's reference page")


def _describes_its_attributes(cls: type[Operator]) -> None:
    silent = [a.name for a in describe(cls).attributes if not a.description]
    if silent:
        raise Broken(f"no description: {', '.join(silent)} (give Field(..., description=...))")


def _has_an_example(cls: type[Operator]) -> None:
    _example(cls)


def _refuses_unknown_attributes(cls: type[Operator]) -> None:
    try:
        cls.model_validate({**_example(cls), "no_such_attribute_here": "1"})
    except ValidationError as error:
        if any(e["type"] == "extra_forbidden" for e in error.errors()):
            return
    raise Broken("an attribute that it does not know is accepted: keep model_config as it is inherited")


def _is_a_value(cls: type[Operator]) -> None:
    one, other = _made(cls), _made(cls)
    if one != other:
        raise Broken("two operators made from the same attributes are not equal")
    name = next(iter(cls.model_fields), None)
    if name is None:
        return
    try:
        setattr(one, name, getattr(one, name))
    except ValidationError:
        return
    raise Broken(f"'{name}' can be changed after it was made: keep model_config frozen")


def _defaults_are_text(cls: type[Operator]) -> None:
    """What the reference page gives as the default, written out, means the same."""
    given = _example(cls)
    made = _made(cls)
    for attribute in describe(cls).attributes:
        if attribute.name not in given and attribute.default:
            again = cls.model_validate({**given, attribute.name: attribute.default})
            if again != made:
                raise Broken(f'{attribute.name}="{attribute.default}" is its default, but means something else')


def _example(cls: type[Operator]) -> dict[str, str]:
    """The attributes of the example element, its text included."""
    if not cls.example.strip():
        raise Broken("no example: set the class attribute `example` to one element as a user would write it")
    try:
        element = ElementTree.fromstring(cls.example.strip())  # noqa: S314  the operator's own text
    except ElementTree.ParseError as error:
        raise Broken(f"the example is not an element: {error}") from None
    if element.tag != cls.kind:
        raise Broken(f"the example is a <{element.tag}>, but the operator is an {cls.kind}")
    attributes = dict(element.attrib)
    attributes.pop("name", None)
    for which in ("type", "class"):
        said = attributes.pop(which, None)
        if which == "type" and said is not None and said != cls.type:
            raise Broken(f"the example is of the type '{said}', not '{cls.type}'")
    if cls.text_field and (element.text or "").strip():
        attributes[cls.model_fields[cls.text_field].alias or cls.text_field] = element.text or ""
    return attributes


def _made(cls: type[Operator]) -> Any:
    try:
        return cls.model_validate(_example(cls))
    except ValidationError as error:
        raise Broken(f"the example's attributes are refused: {error.errors()[0]['msg']}") from None


# --- what it does before anything runs ----------------------------------------------------------------------


def _checks_without_knowing(cls: type[Operator]) -> None:
    """With unknown schemas a check stays silent about columns, and never raises."""
    made = _made(cls)
    checked = _check(made, {r: _unknown(m.accepts) for _, r, m in made.references()})
    if not isinstance(checked, Checked):
        raise Broken(f"check gave {type(checked).__name__}, not a Checked")
    complaints = [f for f in checked.faults if f.severity == "error" and "column" in f.message and "no " in f.message]
    if complaints and not isinstance(made, Input):
        raise Broken(f"it misses columns although nothing is known of the frame: {complaints[0].message}")


def _checks_the_same_twice(cls: type[Operator]) -> None:
    made = _made(cls)
    inputs = {r: _unknown(m.accepts) for _, r, m in made.references()}
    first, second = _check(made, inputs), _check(made, inputs)
    if (first.outputs, first.faults) != (second.outputs, second.faults):
        raise Broken("two checks of the same thing differ")


def _ports_and_outputs_agree(cls: type[Operator]) -> None:
    made = _made(cls)
    ports = made.ports()
    if len(set(ports)) != len(ports) or not ports:
        raise Broken(f"its ports are {ports}")
    checked = _check(made, {r: _unknown(m.accepts) for _, r, m in made.references()})
    if not checked.failed and (strange := set(checked.outputs) - set(ports)):
        raise Broken(f"check speaks of the ports {sorted(strange)}, which ports() does not name")


def _unknown(accepts: str) -> Info:
    return ModelInfo() if accepts == "model" else Schema.unknown()


def _check(made: Any, inputs: Mapping[str, Info]) -> Checked:
    context = CheckContext(flow_dir=Path("/nowhere/penstock-conformance"), step="examined")
    checked: Checked = made.check(context) if isinstance(made, Input) else made.check(inputs, context)
    return checked


# --- what it does with rows ---------------------------------------------------------------------------------


def _gives_what_check_says(cls: type[Operator]) -> None:
    """The columns of each port, and their types where check knows them, are those that come out."""
    with _tried(cls) as tried:
        outputs = tried.run(tried.frames)
        for port, info in tried.checked.outputs.items():
            value = outputs.get(port)
            if not isinstance(info, Schema) or value is None or not hasattr(value, "collect_schema"):
                continue
            found = Schema.from_arrow(value.lazy().collect(engine="streaming").head(0).to_arrow().schema)
            if not info.open and found.names != info.names:
                where = f"port '{port}': " if port else ""
                raise Broken(f"{where}check promises the columns {info.names}, but {found.names} came out")


def _runs_the_same_twice(cls: type[Operator]) -> None:
    with _tried(cls) as tried:
        first, second = tried.rows(tried.frames), tried.rows(tried.frames)
        if not _same(first, second):
            raise Broken("the same rows gave different results")


def _row_wise_means_row_wise(cls: type[Operator]) -> None:
    """Halves and whole give the same rows, if it says that each row depends on its own input row alone."""
    if not (issubclass(cls, Process) and cls.row_wise):
        raise NotTried("it does not claim to be row-wise")
    with _tried(cls) as tried:
        if len(tried.frames) != 1:
            raise NotTried("it reads several frames")
        import polars as pl

        ((name, frame),) = tried.frames.items()
        whole = tried.rows(tried.frames)
        halves = [tried.rows({name: part}) for part in (frame.head(3), frame.slice(3))]
        for port, rows in whole.items():
            if not pl.concat([half[port] for half in halves]).equals(rows):
                raise Broken("row_wise = True, but the rows of two halves are not those of the whole")


def _bears_an_empty_frame(cls: type[Operator]) -> None:
    with _tried(cls) as tried:
        try:
            tried.rows({name: frame.head(0) for name, frame in tried.frames.items()})
        except PenstockError:
            return  # an error with words is an answer


def _writes_what_it_gets(cls: type[Operator]) -> None:
    """An output leaves something at its target, and leaves the rest of the folder alone."""
    if not issubclass(cls, Output):
        raise NotTried("it is no output")
    if cls.suffix is None:
        raise NotTried("it writes no file")
    with _tried(cls) as tried:
        tried.run(tried.frames)
        if not list(tried.target.parent.iterdir()):
            raise Broken("nothing was written")
        if strange := [p.name for p in tried.target.parent.iterdir() if p != tried.target]:
            raise Broken(f"beside its target it wrote {', '.join(strange)}")


@dataclass
class _Context:
    """A `RunContext` of the plainest kind."""

    flow_dir: Path
    scratch: Path
    kept: Path
    plans: Path
    infos: Mapping[str, Info]
    step: str = "examined"
    threads: int = 1
    values: Mapping[str, str] = field(default_factory=dict)
    node_outputs: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def info(self, reference: str) -> Info:
        return self.infos[reference]

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        return frame.collect(engine="streaming")

    def batches(self, frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        yield from self.collect(frame).to_arrow().to_batches()

    def progress(self, message: str, done: int = 0, total: int = 0) -> None: ...
    def metrics(self, values: Mapping[str, float | int | None]) -> None: ...
    def show(self, section: Mapping[str, Any]) -> None: ...


@dataclass
class _Tried:
    """An operator over small frames that its own check accepts."""

    made: Any
    frames: dict[str, pl.LazyFrame]
    checked: Checked
    context: _Context
    target: Path

    def run(self, frames: Mapping[str, pl.LazyFrame]) -> dict[str, Any]:
        if isinstance(self.made, Output):
            (frame,) = frames.values()
            if self.made.folder():
                self.target.mkdir(exist_ok=True)
            sink = self.made.sink(frame, self.target, self.context)
            if sink is not None:
                sink.collect(engine="streaming")
            return {}
        result = self.made.run(dict(frames), self.context)
        if isinstance(result, Result):
            return dict(result.outputs)
        return result if isinstance(result, dict) else {"": result}

    def rows(self, frames: Mapping[str, pl.LazyFrame]) -> dict[str, pl.DataFrame]:
        found = self.run(frames)
        return {p: v.lazy().collect(engine="streaming") for p, v in found.items() if hasattr(v, "collect_schema")}


def _same(first: Mapping[str, pl.DataFrame], second: Mapping[str, pl.DataFrame]) -> bool:
    return first.keys() == second.keys() and all(first[p].equals(second[p]) for p in first)


@contextmanager
def _tried(cls: type[Operator]) -> Iterator[_Tried]:
    if issubclass(cls, Input):
        raise NotTried("inputs are examined by what they read")
    made = _made(cls)
    references = {reference: marker.accepts for _, reference, marker in made.references()}
    if any(accepts != "frame" for accepts in references.values()):
        raise NotTried("it reads a model")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scratch").mkdir()
        (Path(folder) / "out").mkdir()
        for frame in _frames(cls):
            infos: dict[str, Info] = {name: Schema.from_arrow(frame.to_arrow().schema) for name in references}
            checked = made.check(infos, CheckContext(flow_dir=Path(folder), step="examined"))
            if checked.failed:
                continue
            suffix = getattr(cls, "suffix", "") or ""
            target = Path(folder) / "out" / (f"examined{suffix}" if isinstance(made, Output) else "")
            frames = {name: frame.lazy() for name in references}
            home = Path(folder)
            context = _Context(home, home / "scratch", home / "kept", home / "plans", infos)
            try:
                yield _Tried(made, frames, checked, context, target)
            except PenstockError as refused:
                raise NotTried(f"it refused the rows it was tried on: {refused.message}") from None
            return
    raise NotTried("its check refuses every frame that its example's names make")


def _frames(cls: type[Operator]) -> Iterator[pl.DataFrame]:
    """Frames with a column for every word of the example, of one type after another, among columns of other types."""
    import re

    import polars as pl

    words = {w for v in _example(cls).values() for w in re.findall(r"[A-Za-z_]\w*", v)}
    usual: dict[str, pl.Series] = {
        "label": pl.Series([0, 1, 1, 0, 1, 0]),
        "price": pl.Series([1.5, None, -2.0, float("nan"), 0.0, 1e12]),
        "age": pl.Series([30, 41, None, 18, 77, 30]),
        "city": pl.Series(["paris", None, "", "zürich", "lima", "paris"]),
        "ts": pl.Series([f"2026-01-0{d}" for d in (3, 1, 2, 6, 5, 4)]).str.to_datetime("%Y-%m-%d"),
        "tags": pl.Series([["a", "b"], [], None, ["b"], ["a", None], ["c"]], dtype=pl.List(pl.String)),
    }
    columns: tuple[pl.Series, ...] = (usual["city"], usual["age"], usual["price"], usual["ts"], usual["tags"])
    for filler in columns:
        named = {w: filler for w in sorted(words) if w not in usual}
        yield pl.DataFrame({**usual, **named})


PROMISES: dict[str, Callable[[type[Operator]], None]] = {
    "it has a reference page: the docstring": _has_a_docstring,
    "every attribute says what it is for": _describes_its_attributes,
    "it has an example that it accepts": _has_an_example,
    "an unknown attribute is refused": _refuses_unknown_attributes,
    "it is a value: equal by its attributes, never changed": _is_a_value,
    "a default that is written out changes nothing": _defaults_are_text,
    "it can be checked while nothing is known of its inputs": _checks_without_knowing,
    "two checks say the same": _checks_the_same_twice,
    "check speaks of the ports it has": _ports_and_outputs_agree,
    "what comes out has the columns that check promised": _gives_what_check_says,
    "the same rows give the same result": _runs_the_same_twice,
    "row-wise means row by row": _row_wise_means_row_wise,
    "a frame without rows is no accident": _bears_an_empty_frame,
    "an output writes its target and nothing else": _writes_what_it_gets,
}

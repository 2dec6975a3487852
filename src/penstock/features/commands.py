"""What `penstock features` does: check a file alone, map one file into another, explain a row."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from penstock.data.schema import Schema
from penstock.engines.base import Events
from penstock.engines.spec import NodeSpec, StepSpec
from penstock.errors import Problem, ProblemsFound, RequestError
from penstock.features import plans
from penstock.features.check import CheckedFile, check
from penstock.features.names import split
from penstock.features.parse import read
from penstock.features.plan import Plan
from penstock.features.resolve import resolve
from penstock.features.views import parse as views_file
from penstock.flow.values import run_date
from penstock.operators.base import CheckContext, Fault
from penstock.operators.catalog import operator

#: Suffix (a compression's is looked through) -> type of the input and output.
FORMATS = {
    ".parquet": "parquet", ".orc": "orc", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json",
    ".ndjson": "json", ".libsvm": "libsvm", ".svm": "libsvm", ".txt": "text",
}  # fmt: skip
#: Rows of a JSON file in which a text is looked for that says whether a column holds days or times.
_LOOKED_AT = 10_000


def check_file(file: Path, data: str | None = None, values: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Every problem of a feature file, or one of views, sorted; `data` has the columns that a feature file reads."""
    if views_file.is_views_file(file):
        return views_file.check(file)
    checked = _checked(file, _columns(data), values or {})
    faults = checked if isinstance(checked, list) else checked.faults
    return tuple(sorted(_problem(fault) for fault in faults))


def apply_file(
    file: Path,
    source: str,
    target: str,
    keep: str = "",
    form: str = "slots",
    fit_from: str = "",
    plan: str = "",
    values: Mapping[str, str] | None = None,
    events: Events | None = None,
) -> dict[str, Any]:
    """Map `source` into `target`: {"rows", "seconds", "rejected"}. The target is whole or untouched."""
    from penstock.engines.local import LocalEngine

    started = time.monotonic()
    checked = _checked(file, Schema.unknown(), values or {})
    if isinstance(checked, list) or checked.failed:
        raise ProblemsFound(map(_problem, checked if isinstance(checked, list) else checked.faults))
    events = events or _Silent()
    if checked.fitted and not (fit_from or plan):
        learns = ", ".join(item.item.name for item in checked.fitted)
        events.log(f"{learns}: learnt from {source} itself; --fit-from and --plan name other rows or a bundle's plan")
    features = {"from": "rows", "map": str(file.absolute()), "keep": keep, "form": form}
    moments = _moment_columns(checked)
    steps = [_input("rows", source, moments)]
    if checked.fitted and fit_from:
        steps.append(_input("learnt_from", fit_from, moments))
        features["fit_from"] = "learnt_from"
    if plan:
        features["plan"] = plan
    steps.append(StepSpec(kind="process", name="mapped", type="features", attrs=features))
    kind = _format(target, "output")
    written = {"from": "mapped", "path": str(Path(target).absolute()), **_separator(target), **_label(kind, keep)}
    steps.append(StepSpec(kind="output", name="out", type=kind, attrs=written))
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        spec = NodeSpec(
            run="apply", node="features", engine="local", folder=folder, flow_dir=str(Path.cwd()), flow_file=target,
            steps=tuple(steps), values=_values(values or {}),
        )  # fmt: skip
        try:
            result = LocalEngine().run(spec, events)
        except ProblemsFound as found:
            raise ProblemsFound(_placed(p, source, target, kind) for p in found.problems) from None
    rows = result.outputs["out"].rows
    return {
        "rows": rows if rows is not None else result.rows.get("mapped", 0),
        "seconds": round(time.monotonic() - started, 3),
        "rejected": 0,
    }


def explain_row(
    file: Path, row: Mapping[str, Any], plan: str = "", values: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What each key and number of one row is: slots in file order, then denses."""
    if plan:
        found = plans.load(plan)
    else:
        checked = _checked(file, Schema.unknown(), values or {})
        if isinstance(checked, list) or checked.failed:
            raise ProblemsFound(map(_problem, checked if isinstance(checked, list) else checked.faults))
        if checked.fitted:
            raise _needs_rows(checked, "--plan BUNDLE explains what a bundle's plan has learnt")
        found = resolve(checked)
    return explain(found, row)


def explain(plan: Plan, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys of one row with the text each stands for, and its dense numbers. Keys are decimal strings."""
    moments = {
        source["column"] for item in plan.items if item["fn"] == "bucketize_time" for source in item["from"]
        if "column" in source
    }  # fmt: skip
    given = {name: _moments(value) if name in moments else value for name, value in row.items()}
    keys = [
        {"slot": name, "id": plan.slots[name], "key": str(key), "text": text, "weight": weight}
        for name, key, text, weight in plan.explain_row(given)
        if name in plan.slots
    ]
    dense = [{"dense": name, "value": value} for name, _, _, value in plan.apply_row(given) if name in plan.dense]
    return [*keys, *dense]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """`explain`'s result for a person to read."""
    keys = [("slot", "id", "key", "weight", "text")]
    keys += [(f["slot"], str(f["id"]), f["key"], f"{f['weight']:g}", f["text"]) for f in found if "slot" in f]
    dense = [("dense", "value")] + [(f["dense"], f"{f['value']:.9g}") for f in found if "dense" in f]
    return "\n\n".join(aligned(rows) for rows in (keys, dense) if len(rows) > 1)


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _checked(file: Path, schema: Schema, values: Mapping[str, str]) -> CheckedFile | list[Fault]:
    parsed, faults = read(file.absolute(), _values(values), str(file))
    if parsed is None:
        return faults
    checked = check(parsed, schema)
    return CheckedFile(parsed, checked.items, checked.places, (*faults, *checked.faults))


def _values(given: Mapping[str, str]) -> dict[str, str]:
    return {"run.date": run_date(None), "run.id": "apply", "flow.dir": str(Path.cwd()), **given}


def _columns(data: str | None) -> Schema:
    """The columns of a data file, as its input sees them."""
    if data is None:
        return Schema.unknown()
    step = _input("data", data)
    checked = operator("input", step.type).model_validate(dict(step.attrs)).check(CheckContext())  # type: ignore[attr-defined]
    if checked.failed:
        raise ProblemsFound(Problem(data, f.line, f.code, f.message, f.hint, f.severity) for f in checked.faults)
    found = checked.outputs[""]
    return found if isinstance(found, Schema) else Schema.unknown()


def _label(kind: str, keep: str) -> dict[str, str]:
    """Libsvm has one label: the column `label`, else the one that is kept."""
    try:
        kept = split(keep)
    except ValueError:
        return {}
    return {"label": kept[0]} if kind == "libsvm" and len(kept) == 1 else {}


def _placed(problem: Problem, source: str, target: str, kind: str) -> Problem:
    """There is no flow file here: what is at fault without a file of its own is the data that came or goes."""
    if problem.file != target:
        return problem
    if not problem.message.startswith("output "):
        return replace(problem, file=source)
    if problem.code == "DATA022" and kind == "libsvm":
        return replace(problem, hint="carry the label along: --keep label, or --keep the one column that is it")
    return problem


def _moment_columns(checked: CheckedFile) -> tuple[str, ...]:
    """The raw columns that are read as times. JSON has no times of its own, so it must be told."""
    found = (
        source.column
        for item in checked.items
        if item.function.name == "bucketize_time" and "unit" not in item.item.attrs
        for source in item.sources
    )
    return tuple(dict.fromkeys(name for name in found if re.fullmatch(r"\w+", name)))


def _day_or_time(path: Path, column: str) -> str:
    """What the first text of a column in a JSON file says: a day has ten characters, and no time zone shifts it."""
    if path.suffix not in (".gz", ".json", ".jsonl", ".ndjson") or not path.is_file():
        return "timestamp"
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            values = (json.loads(line).get(column) for line in islice(lines, _LOOKED_AT) if line.strip())
            first = next((value for value in values if isinstance(value, str)), "")
    except (OSError, EOFError, ValueError, AttributeError):  # the input itself says what is wrong with its rows
        return "timestamp"
    return "date" if len(first) == len("2026-01-31") else "timestamp"


def _input(name: str, path: str, moments: Sequence[str] = ()) -> StepSpec:
    kind = _format(path, "input")
    attrs = {"path": path if "://" in path else str(Path(path).absolute()), **_separator(path)}
    if kind == "json" and moments:
        attrs["types"] = " ".join(f"{column}:{_day_or_time(Path(path), column)}" for column in moments)
    return StepSpec(kind="input", name=name, type=kind, attrs=attrs)


def _separator(path: str) -> dict[str, str]:
    return {"sep": "\\t"} if path.endswith((".tsv", ".tsv.gz", ".tsv.zst")) else {}


def _format(path: str, kind: str) -> str:
    suffixes = [s for s in Path(path).suffixes if s not in (".gz", ".zst")]
    if not suffixes and Path(path).is_dir():
        return "parquet"
    if not suffixes or suffixes[-1] not in FORMATS:
        raise RequestError(
            f"the format of the {kind} '{path}' cannot be told by its suffix", f"suffixes: {' '.join(FORMATS)}"
        )
    return FORMATS[suffixes[-1]]


def _needs_rows(checked: CheckedFile, hint: str) -> ProblemsFound:
    return ProblemsFound(
        Problem(
            checked.file.shown,
            item.item.line,
            "FEAT023",
            f"{item.item.kind} '{item.item.name}' learns from data, and there is none to learn from here",
            hint,
        )
        for item in checked.fitted
    )


def _moments(value: Any) -> Any:
    """Dates and times as JSON writes them, alone or in a list."""
    return [_moment(element) for element in value] if isinstance(value, list) else _moment(value)


def _moment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    except ValueError:
        raise RequestError(f"'{value}' is no date or time", "write 2026-01-31 or 2026-01-31T08:30:00") from None


def _problem(fault: Fault) -> Problem:
    return Problem(fault.file, fault.line, fault.code, fault.message, fault.hint, fault.severity)


class _Silent:
    def progress(self, step: str, message: str = "", rows: int = 0, done: int = 0, total: int = 0) -> None:
        """Nobody is waiting."""

    def log(self, message: str) -> None:
        """Nobody reads."""


__all__ = ["apply_file", "check_file", "explain", "explain_row", "table"]

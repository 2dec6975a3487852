"""A join file (TOML): which topics, what is feedback, and for how long; every problem it has, by line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from penstock.data.toml_lines import line_of, lines_of
from penstock.errors import Problem, ProblemsFound, did_you_mean

from . import faults
from .terms import MOST_TYPES, Kind, Terms

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")


def duration_ms(value: object) -> int:
    """`250ms`, `30s`, `10m`, `2h`, `7d` in milliseconds. Raises ValueError."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("a time such as 250ms, 30s, 10m, 2h or 7d")
    return int(float(found[1]) * _UNITS_MS[found[2]])


Duration = Annotated[int, BeforeValidator(duration_ms), Field(ge=0, le=366 * 86_400_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Input(_Part):
    """topic: its address; relative paths of `log:` start at the file. ticks: the join writes them, so often."""

    topic: str
    ticks: Duration | None = None


class Output(_Part):
    topic: str


class FeedbackType(_Part):
    """weight: of a positive; "value": what the feedback says."""

    window: Duration
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["value"] = 1.0


class Document(_Part):
    name: str
    state: str
    impressions: Input
    feedback: Input
    samples: Output
    types: Mapping[str, FeedbackType] = Field(min_length=1, max_length=MOST_TYPES)
    model: str = ""
    emit: Literal["at_once", "at_close"] = "at_once"
    weighting: Literal["fake_negative", "none"] = "fake_negative"
    negatives: float = Field(default=1.0, gt=0, le=1)
    lateness: Duration = 60_000
    skew: Duration = 300_000
    jump: Duration = 3_600_000
    start: Literal["oldest", "newest"] = "oldest"
    commit: Duration = 250
    metrics: str = ""

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("1 to 80 letters, digits, '.', '_' and '-'")
        return value

    @field_validator("types")
    @classmethod
    def _are_names(cls, value: Mapping[str, FeedbackType]) -> Mapping[str, FeedbackType]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}': a type has 1 to 80 letters, digits, '.', '_' and '-'")
        return value

    @field_validator("metrics")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"\S+:\d{1,5}", value):
            raise ValueError("HOST:PORT; 127.0.0.1:0 takes a free port")
        return value


@dataclass(frozen=True)
class JoinFile:
    path: Path
    document: Document

    @property
    def terms(self) -> Terms:
        given = self.document
        kinds = tuple(
            Kind(name, one.window, None if one.weight == "value" else float(one.weight))
            for name, one in sorted(given.types.items())
        )
        return Terms(
            kinds, given.model, given.emit, given.lateness, given.skew, given.jump, given.negatives, given.weighting
        )

    @property
    def state(self) -> Path:
        return (self.path.parent / Path(self.document.state).expanduser()).absolute()

    def address(self, given: str) -> str:
        """An address of the file: relative paths start at its folder."""
        if not given.startswith("log:"):
            return given
        path, mark, query = given[len("log:") :].partition("?")
        return f"log:{(self.path.parent / Path(path).expanduser()).absolute()}{mark}{query}"


def read(path: Path) -> JoinFile:
    """Read and check a join file. Raises `ProblemsFound` (JOIN002), `RequestError` (JOIN001) where it is no TOML."""
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise faults.not_read(path, getattr(error, "strerror", None) or str(error)) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else 0
        hint = "docs/samples-from-behaviour.md shows a join file"
        raise ProblemsFound([Problem(str(path), line, "JOIN001", f"it is no TOML: {error}", hint)]) from None
    lines = lines_of(text)
    try:
        document = Document.model_validate(values)
    except ValidationError as error:
        found_faults = {_place(fault["loc"]): fault for fault in error.errors()}
        raise ProblemsFound(_problem(path, lines, at, fault) for at, fault in found_faults.items()) from None
    same = len({document.impressions.topic, document.feedback.topic, document.samples.topic}) < 3
    if same:
        said = "impressions, feedback and samples are three topics"
        raise ProblemsFound([Problem(str(path), line_of(lines, ("samples", "topic")), "JOIN002", said)])
    return JoinFile(path, document)


def _place(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a fault is; a value that may be of two types has two faults in one place."""
    last = location[-1] if location else ""
    return location[:-1] if isinstance(last, str) and (last == "float" or last.startswith("literal[")) else location


def _problem(path: Path, lines: dict[Any, int], at: tuple[int | str, ...], fault: Any) -> Problem:
    dotted, line = ".".join(map(str, at)), line_of(lines, at)
    if fault["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {
            "impressions": Input, "feedback": Input, "samples": Output, "types": FeedbackType,
        }  # fmt: skip
        known = sorted((parts[str(at[0])] if len(at) > 1 else Document).model_fields)
        hint = did_you_mean(str(at[-1]), known, f"known here: {', '.join(known)}")
        return Problem(str(path), line, "JOIN002", f"'{dotted}' is no setting", hint)
    if fault["type"] in ("missing", "too_short"):
        return Problem(str(path), line, "JOIN002", f"'{dotted}' is missing", _MISSING.get(dotted, f"add {dotted}"))
    said = fault["msg"].removeprefix("Value error, ")
    return Problem(str(path), line, "JOIN002", f"{dotted} = {fault['input']!r}: {said[:1].lower()}{said[1:]}")


_MISSING = {"types": 'add [types.click] with window = "30m"'}

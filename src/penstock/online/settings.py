"""A join file (TOML): which topics, what is feedback, and for how long; every problem it has, by line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from penstock.data import toml_files
from penstock.data.toml_files import Codes, Part, TomlFile
from penstock.errors import ProblemsFound

from .terms import MOST_TYPES, Kind, Terms

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")
CODES = Codes("JOIN001", "JOIN002", "JOIN002", "JOIN002", "docs/samples-from-behaviour.md")


def duration_ms(value: object) -> int:
    """`250ms`, `30s`, `10m`, `2h`, `7d` in milliseconds. Raises ValueError."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("a time such as 250ms, 30s, 10m, 2h or 7d")
    return int(float(found[1]) * _UNITS_MS[found[2]])


Duration = Annotated[int, BeforeValidator(duration_ms), Field(ge=0, le=366 * 86_400_000)]


class Input(Part):
    """topic: its address; relative paths of `log:` start at the file. ticks: the join writes them, so often."""

    topic: str
    ticks: Duration | None = None


class Output(Part):
    topic: str


class FeedbackType(Part):
    """weight: of a positive; "value": what the feedback says."""

    window: Duration
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["value"] = 1.0


class Document(Part):
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
class JoinFile(TomlFile[Document]):
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
        return self.at(self.document.state)


def read(path: Path) -> JoinFile:
    """Read and check a join file. Raises `ProblemsFound` (JOIN001 where it cannot be read, JOIN002)."""
    found = toml_files.read(path, Document, CODES)
    file = JoinFile(found.path, found.document, found.lines, found.values)
    document = file.document
    if len({document.impressions.topic, document.feedback.topic, document.samples.topic}) < 3:
        said = "impressions, feedback and samples are three topics"
        raise ProblemsFound([file.problem(("samples", "topic"), "JOIN002", said)])
    return file

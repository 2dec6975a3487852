"""The file of `penstock online run`, as docs/online-training.md describes it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from penstock.data import toml_files
from penstock.data.toml_files import Part, TomlFile
from penstock.errors import Problem, ProblemsFound, RequestError

CODES = toml_files.Codes("LIVE001", "LIVE002", "LIVE003", "LIVE004", "docs/online-training.md")

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Model(Part):
    """`name`: in the registry. `start`: the bundle to go on from. `anew`: with its plan and settings, without what it
    has learnt. `chain`: of its generations and deltas, where the model has another loop already."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    start: str
    anew: bool = False
    chain: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,64}$")

    @property
    def writes(self) -> str:
        """The chain that this loop writes."""
        return self.chain or self.name


class Samples(Part):
    """`from`: where a model that has no checkpoint begins: start, end, a time (ISO, or ms since the epoch)."""

    topic: str
    from_: str | int = Field(default="start", alias="from")
    idle_s: Seconds = 2.0
    quarantine: str = ""


class History(Part):
    """Files that are learnt from before the topic: Parquet, or JSON lines. Without `label` they are sample records."""

    path: str
    label: str = "_label"
    weight: str = ""


class Train(Part):
    """`wait_ms`: how long a batch that is not full waits for more. `deterministic`: only full batches, in an order that
    the records alone decide: the same samples give the same weights to the bit."""

    batch: Positive = 256
    wait_ms: float = Field(default=20.0, ge=0, le=10_000)
    threads: int = Field(default=0, ge=0)
    deterministic: bool = False


class Cuts(Part):
    folder: str
    every_s: Seconds = 60.0


class Publish(Part):
    """`every_ms`, `dense_every_ms`: of rows, and of dense weights."""

    topic: str
    every_ms: float = Field(default=250.0, ge=50)
    dense_every_ms: float = Field(default=1000.0, ge=50)
    values: Literal["f32", "f16"] = "f32"


class Bases(Part):
    """Whole snapshots, as versions in the registry. `alias` names each once it has proved good."""

    every_s: Seconds = 1800.0
    keep: int = Field(default=3, ge=2)
    alias: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_.-]{0,63})?$")


class Gates(Part):
    """Bands that publishing keeps to. `half_life`: samples after which one counts half. `positives`: effective ones
    before which nothing is judged."""

    half_life: float = Field(default=100_000.0, ge=1)
    auc: float | None = Field(default=None, ge=0, le=1)
    calibration: tuple[float, float] | None = None
    positives: float = Field(default=100.0, ge=1)

    @field_validator("calibration", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = tuple(float(x) if type(x) is int else x for x in value)
        if isinstance(value, tuple) and len(value) == 2 and not value[0] < value[1]:
            raise ValueError("the lower bound comes first")
        return value


class Lag(Part):
    """What to do beyond `most_s` behind: wait, or learn from a share `keep` of them, each weighing 1 / `keep`."""

    policy: Literal["wait", "sample"] = "wait"
    most_s: Seconds = 60.0
    keep: float = Field(default=0.1, gt=0, lt=1)


class Drift(Part):
    """`reference`: the first samples of the stream, which later ones are compared with. `alert`: a PSI that is told."""

    reference: Positive = 10_000
    alert: float = Field(default=0.25, gt=0)


class Watch(Part):
    """`listen`: Prometheus metrics on a loopback port. `webhook`: gets each alert as JSON."""

    listen: str = ""
    webhook: str = ""
    tell_s: Seconds = 5.0

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and (host not in ("127.0.0.1", "localhost", "[::1]") or not port.isdigit() or int(port) > 65_535):
            raise ValueError("127.0.0.1:PORT; metrics are for this machine, a proxy takes them elsewhere")
        return value

    @field_validator("webhook")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("an address begins with http:// or https://")
        return value


class Document(Part):
    model: Model
    samples: Samples
    history: History | None = None
    train: Train = Train()
    checkpoints: Cuts
    publish: Publish | None = None
    bases: Bases | None = None
    gates: Gates = Gates()
    lag: Lag = Lag()
    drift: Drift = Drift()
    watch: Watch = Watch()


File = TomlFile[Document]


def read(path: Path) -> File:
    """Read and check the file by itself. Raises `ProblemsFound` with everything that is wrong with it."""
    file = toml_files.read(path, Document, CODES)
    problems: list[Problem] = []
    document = file.document
    try:
        begin(document.samples.from_)
    except RequestError as error:
        problems.append(file.problem(("samples", "from"), "LIVE003", error.message, error.hint))
    if document.lag.policy == "sample" and document.train.deterministic:
        said = "what is left out depends on the clock, so lag.policy = 'sample' cannot be deterministic"
        problems.append(file.problem(("lag", "policy"), "LIVE003", said, "wait, or leave train.deterministic out"))
    if problems:
        raise ProblemsFound(problems)
    return file


def begin(given: str | int) -> str | int:
    """ "start", "end", or a time in ms since the epoch. Raises `RequestError` (LIVE003)."""
    if given in ("start", "end") or isinstance(given, int):
        return given
    if given.isdigit():
        return int(given)
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        hint = "start, end, 2026-11-22T08:00:00Z, or milliseconds since the epoch"
        raise RequestError(f"from '{given}' is no time", hint, "LIVE003") from None
    return math.floor((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)

"""The serving configuration (CONTRACT §3): a TOML file becomes one frozen value, or every problem it has, by line."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote

from pydantic import Field, field_validator, model_validator

from penstock.data import toml_files
from penstock.data.toml_files import Part, TomlFile
from penstock.errors import Problem, ProblemsFound, did_you_mean
from penstock.streams.faults import AddressError
from penstock.streams.settings import Settings, settings

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=100)]


CODES = toml_files.Codes("SERV001", "SERV002", "SERV003", "SERV004", "docs/serving.md")


class Listen(Part):
    """`threads`: of reading and writing; models have their own. `insecure`: beyond loopback without tokens."""

    http: str = "127.0.0.1:0"
    grpc: str = "127.0.0.1:0"
    threads: Positive = 1
    insecure: bool = False

    @field_validator("http", "grpc")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"'{value}' is no HOST:PORT; 127.0.0.1:0 takes a free port")
        return value


class Tls(Part):
    """PEM files. With `client_ca`, clients without a certificate of theirs are turned away."""

    certificate: str
    key: str
    client_ca: str = ""


class Token(Part):
    """`sha256`: of the token, in hex (`penstock serve --token` makes one). `models` empty: all."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    scopes: tuple[Literal["infer", "admin", "metrics"], ...] = ("infer",)
    models: tuple[str, ...] = ()

    @field_validator("scopes", "models", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Limits(Part):
    """Of a request and of the host; `memory_mb` 0: models take what they take."""

    body_mb: Positive = 64
    rows: Positive = 100_000
    connections: Positive = 4096
    memory_mb: int = Field(default=0, ge=0)


class Lifecycle(Part):
    """`state_dir`: releases and what the host remembers; default beside the file."""

    state_dir: str = ""
    drain_s: float = Field(default=5.0, ge=0, le=60)
    finish_s: float = Field(default=8.0, ge=0, le=600)
    aliases_every_s: float = Field(default=10.0, gt=0)


class Samples(Part):
    """The sample log: answered requests with their features, for the closed loop."""

    path: str
    rows_per_s: float = Field(default=1000.0, gt=0)
    deny: tuple[str, ...] = ()

    @field_validator("deny", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Impressions(Part):
    """Every answered row, unsampled, in a topic before its reply is sent. `ack`: what the reply waits for."""

    topic: str
    ack: Literal["none", "written", "synced"] = "written"
    deny: tuple[str, ...] = ()
    tick_ms: Annotated[int, Field(ge=1, le=60_000)] = 100

    @field_validator("deny", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("topic")
    @classmethod
    def _is_log(cls, value: str) -> str:
        _log_parts(value)
        return value

    @property
    def log(self) -> tuple[str, Settings]:
        """The log's folder as the file names it, and what stands behind its `?`."""
        return _log_parts(self.topic)


def _log_parts(address: str) -> tuple[str, Settings]:
    path, _, query = address.removeprefix("log:").partition("?")
    if not address.startswith("log:") or not path:
        raise ValueError("hosts append to log:PATH; copy it to a broker from there")
    try:
        given = settings("log", dict(parse_qsl(query, keep_blank_values=True)))
    except AddressError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
    if given.backlog is not None or "ack=" in query:
        raise ValueError("a host does not wait for readers (backlog), and says ack in a line of its own")
    return unquote(path), given


class Guards(Part):
    """When a canary is taken back (docs/serving.md); `false` turns a guard off."""

    error_rate: float | Literal[False] = 0.01
    latency: float | Literal[False] = 1.25
    score_shift: float | Literal[False] = 0.25
    score_shift_acts: bool = False
    min_requests: Positive = 200
    min_scores: Positive = 1000


class Room(Part):
    """What each version of a model may take. `timeout_ms`: the deadline of requests that bring none.

    `rows_mb`: mapped rows of at most so much are brought into memory, where look-ups are faster; "auto": of half of
    what is free, and none where `limits.memory_mb` bounds what models hold.
    """

    concurrency: Positive = 1
    queue: Positive = 256
    threads: Positive = 1
    max_batch_rows: Positive = 1024
    timeout_ms: int = Field(default=30_000, ge=0)
    rows_mb: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"


class Following(Part):
    """The chain that a model follows: `topic` (an address), its records being of `chain`: by default that of the loop
    which made the version, else the model's name. `{chain}` in the address stands for it.

    `version`: the label that follows it; by default the one that gets the traffic. `overlay_mb`: the most that changed
    rows of a table take beside its snapshot, twice.
    """

    topic: str = Field(min_length=1)
    chain: str = ""
    version: str = ""
    max_lag_s: float = Field(default=30.0, gt=0)
    overlay_mb: Positive = 256


class Views(Part):
    """Feature views that the host fetches: an online store (`lmdb:PATH`, `redis://HOST:PORT/DB`) and names of views."""

    store: str
    use: tuple[str, ...] = Field(min_length=1)

    @field_validator("use", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Model(Part):
    """`versions`: label -> bundle folder, `models:/ctr/3` or `models:/ctr@live`; `traffic`: label -> percent."""

    versions: Mapping[str, str] = Field(min_length=1)
    traffic: Mapping[str, Share] = {}
    sticky: str = ""
    shadow: tuple[str, ...] = ()
    optional: bool = False
    allow_code: bool = False
    guards: Guards = Guards()
    limits: Room = Room()
    live: Following | None = None
    views: Views | None = None

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, value: Any) -> Any:
        """`sticky` stands among the shares."""
        if isinstance(value, dict):
            value = dict(value)
            if isinstance(value.get("shadow"), list):
                value["shadow"] = tuple(value["shadow"])
            traffic = value.get("traffic")
            if isinstance(traffic, dict) and "sticky" in traffic:
                value["sticky"] = traffic["sticky"]
                value["traffic"] = {label: share for label, share in traffic.items() if label != "sticky"}
            value["traffic"] = {k: float(v) if type(v) is int else v for k, v in (value.get("traffic") or {}).items()}
        return value


class Document(Part):
    listen: Listen = Listen()
    tls: Tls | None = None
    tokens: tuple[Token, ...] = ()
    limits: Limits = Limits()
    host: Lifecycle = Lifecycle()
    samples: Samples | None = None
    impressions: Impressions | None = None
    models: Mapping[str, Model] = Field(min_length=1)

    @field_validator("tokens", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def exposed(address: str) -> bool:
    """Whether HOST:PORT is reached from other machines; a name that is no address is the resolver's to say."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Config(TomlFile[Document]):
    """A configuration that was read."""

    @cached_property
    def blocks(self) -> Mapping[str, str]:
        """A hash of each model's part of the file."""
        return {name: _hash(self.values["models"][name]) for name in self.document.models}

    @property
    def state_dir(self) -> Path:
        given = self.document.host.state_dir
        return self.at(given) if given else self.path.parent / ".penstock-serve" / self.path.stem

    def store(self, address: str) -> str:
        """The address of an online store; an LMDB folder, or a file of authorities, is from this file's folder on."""
        place, mark, options = address.partition("?")
        if address.startswith("lmdb:"):
            return f"lmdb:{self.at(place.removeprefix('lmdb:'))}{mark}{options}"
        name, _, ca = options.partition("=")
        return f"{place}?ca={self.at(ca)}" if name == "ca" else address


def read(path: Path) -> Config:
    """Read and check the file by itself. Raises `ProblemsFound` with everything that is wrong with it."""
    found = toml_files.read(path, Document, CODES)
    config = Config(found.path, found.document, found.lines, found.values)
    document = config.document
    problems = [problem for name, model in document.models.items() for problem in _model_problems(config, name, model)]
    if not document.tokens and not document.listen.insecure:
        problems += _open_doors(config)
    if problems:
        raise ProblemsFound(problems)
    return config


def _open_doors(config: Config) -> list[Problem]:
    listen = config.document.listen
    said = "listen.{} = '{}': beyond loopback and without tokens everybody could score"
    hint = "add [[tokens]] (`penstock serve --token` makes one), or set insecure = true"
    return [
        config.problem(("listen", door), "SERV003", said.format(door, address), hint)
        for door, address in (("http", listen.http), ("grpc", listen.grpc))
        if exposed(address)
    ]


def _model_problems(config: Config, name: str, model: Model) -> list[Problem]:
    at: tuple[str, ...] = ("models", name)
    found = []
    for given, where in ((name, at), *((label, (*at, "versions", label)) for label in model.versions)):
        if not NAME.fullmatch(given):
            hint = "letters, digits, _ and -, at most 64 of them"
            found.append(config.problem(where, "SERV003", f"'{given}' is not a name of a model or version", hint))
    for label, what in (*((s, "traffic") for s in model.traffic), *((s, "shadow") for s in model.shadow)):
        if label not in model.versions:
            hint = did_you_mean(label, list(model.versions), f"its versions are {', '.join(model.versions)}")
            said = f"'{label}' gets {what} and is none of the versions of '{name}'"
            found.append(config.problem((*at, what, label), "SERV005", said, hint))
    live = model.live
    if live is not None:
        if live.version and live.version not in model.versions:
            hint = did_you_mean(live.version, list(model.versions), f"its versions are {', '.join(model.versions)}")
            said = f"'{live.version}' is to follow a chain and is none of the versions of '{name}'"
            found.append(config.problem((*at, "live", "version"), "SERV005", said, hint))
        if live.topic.partition(":")[0] not in ("log", "kafka", "redis", "rediss"):
            hint = "log:PATH, kafka://HOST:PORT/TOPIC or redis://HOST:PORT/TOPIC"
            said = f"'{live.topic}' is no address of a topic"
            found.append(config.problem((*at, "live", "topic"), "SERV003", said, hint))
    total = sum(model.traffic.values())
    if model.traffic and abs(total - 100) > 1e-6:
        said = f"the traffic of '{name}' sums to {total:g}, not 100"
        found.append(config.problem((*at, "traffic"), "SERV005", said, "shares are percent"))
    return found


def _hash(block: Any) -> str:
    return hashlib.sha256(json.dumps(block, sort_keys=True, default=str).encode()).hexdigest()

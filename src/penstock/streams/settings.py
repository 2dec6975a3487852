"""What stands behind the `?` of an address: typed once, every wrong word said by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.errors import did_you_mean

from .faults import AddressError

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_UNITS_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class Settings:
    """partitions: None takes what is there, or 1. ack: what appends wait for. timeout_s: how long to try.

    retention_s, retention_bytes (a partition's): what is kept; None for ever. backlog: records that the slowest group
    of backlog_of may be behind before appends wait. segment_bytes, sync_s (None: when the system likes): the log's.
    transactional_id, replication, client (librdkafka's own settings): Kafka's. db, ca (PEM file of the authorities that
    are trusted; None: the system's): Redis's.
    """

    partitions: int | None = None
    ack: Literal["none", "written", "synced"] = "written"
    timeout_s: float = 120.0
    retention_s: float | None = None
    retention_bytes: int | None = None
    backlog: int | None = None
    backlog_of: tuple[str, ...] = ()
    segment_bytes: int = 64 << 20
    sync_s: float | None = 0.05
    transactional_id: str | None = None
    replication: int = 1
    db: int = 0
    ca: str | None = None
    client: Mapping[str, str] = field(default_factory=dict)


def duration_s(text: str) -> float:
    """`50ms`, `10s`, `5m`, `2h`, `7d` in seconds."""
    number, unit = _parts(text)
    return number * _UNITS_S[unit]


def size_bytes(text: str) -> int:
    """`4096`, `64MB`, `1GiB` in bytes."""
    number, unit = _parts(text)
    return int(number * _UNITS_BYTES[unit])


def _parts(text: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text.strip())
    if not found:
        raise ValueError
    return float(found[1]), found[2]


def _between(low: float, high: float, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parsed


def _one_of(*words: str) -> Callable[[str], str]:
    def parsed(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return parsed


def _groups(text: str) -> tuple[str, ...]:
    return tuple(check_group(name) for name in re.split(r"[ ,]+", text.strip()))


def check_group(name: str) -> str:
    """A group's name, if it is one. Raises `AddressError` (STRM002)."""
    if not _GROUP.fullmatch(name):
        raise AddressError(f"group '{name}' cannot be", "1 to 100 letters, digits, '.', '_' and '-'", "STRM002")
    return name


def _name(text: str) -> str:
    if not text:
        raise ValueError
    return text


_YEARS_S = 100 * 366 * 86_400.0
#: name -> (field, parser, what it must be, the backends that have it)
_OPTIONS: dict[str, tuple[str, Callable[[str], Any], str, tuple[str, ...]]] = {
    "partitions": ("partitions", _between(1, 1024, int), "a number from 1 to 1024", ("log", "kafka", "redis")),
    "ack": ("ack", _one_of("none", "written", "synced"), "none, written or synced", ("log", "kafka", "redis")),
    "timeout": ("timeout_s", _between(0.1, 3600, duration_s), "a time such as 30s", ("log", "kafka", "redis")),
    "retention": ("retention_s", _between(1, _YEARS_S, duration_s), "a time such as 7d", ("log", "kafka", "redis")),
    "retention_bytes": (
        "retention_bytes",
        _between(4096, 1 << 60, size_bytes),
        "a size such as 10GB",
        ("log", "kafka"),
    ),
    "backlog": ("backlog", _between(1, 1 << 60, int), "a number of records", ("log", "kafka", "redis")),
    "backlog_of": ("backlog_of", _groups, "names of groups", ("log", "kafka", "redis")),
    "segment": ("segment_bytes", _between(4096, 1 << 30, size_bytes), "a size from 4KiB to 1GiB", ("log",)),
    "sync": (
        "sync_s",
        lambda text: None if text == "system" else _between(0.001, 3600, duration_s)(text),
        "a time such as 50ms, or system",
        ("log",),
    ),
    "transactional_id": ("transactional_id", _name, "a name", ("kafka",)),
    "replication": ("replication", _between(1, 10, int), "a number from 1 to 10", ("kafka",)),
    "db": ("db", _between(0, 1 << 16, int), "a number", ("redis",)),
    "ca": ("ca", _name, "a file", ("redis",)),
}


def settings(backend: str, given: Mapping[str, str]) -> Settings:
    """The settings of an address. Names with a point are librdkafka's own. Raises `AddressError` (STRM002)."""
    found: dict[str, Any] = {}
    client = {}
    names = [name for name, option in _OPTIONS.items() if backend in option[3]]
    for name, text in given.items():
        if "." in name and backend == "kafka":
            client[name] = text
            continue
        if name not in names:
            others = f"'{backend}' takes {', '.join(names)}"
            raise AddressError(
                f"a {backend} topic has no option '{name}'", did_you_mean(name, names, others), "STRM002"
            )
        key, parse, wanted, _ = _OPTIONS[name]
        try:
            found[key] = parse(text)
        except (ValueError, KeyError):
            raise AddressError(f"option {name}='{text}'", f"it must be {wanted}", "STRM002") from None
    made = Settings(**found, client=client)
    if (made.backlog is None) != (not made.backlog_of):
        raise AddressError(
            "backlog and backlog_of belong together", "such as backlog=100000&backlog_of=joiner", "STRM002"
        )
    return made

"""Names of models and what they name: `models:/ctr@live`, `models:/ctr/3`, and the version behind them."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from penstock.registry.faults import UnknownVersion

SCHEME = "models:/"
_MODEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
#: Every host may follow this alias without being told.
LIVE = "live"


@dataclass(frozen=True)
class Name:
    """A model with an alias or a number: exactly one of the two is set."""

    model: str
    alias: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{SCHEME}{self.model}@{self.alias}" if self.alias else f"{SCHEME}{self.model}/{self.number}"


@dataclass(frozen=True)
class Version:
    """One immutable version. `digest`: of the whole bundle (`bundles.digest_of`); `files`: path -> (SHA-256, bytes).

    `manifest` is in today's format. Times are ISO 8601 in UTC. `remembered`: the registry did not answer, and this is
    what the local cache knew of the name when it last did.
    """

    name: str
    number: int
    digest: str
    manifest: Mapping[str, Any]
    files: Mapping[str, tuple[str, int]]
    size_bytes: int
    pushed_at: str
    pushed_by: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    aliases: tuple[str, ...] = ()
    pinned: str = ""
    swept_at: str = ""
    remembered: bool = False

    @property
    def uri(self) -> str:
        """The name that will always mean this version."""
        return f"{SCHEME}{self.name}/{self.number}"

    @property
    def signature(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest.get("signature", {})
        return found

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of commands, without the manifest's long lists."""
        return {
            "name": self.name,
            "version": self.number,
            "uri": self.uri,
            "digest": self.digest,
            "algorithm": self.manifest.get("algorithm", ""),
            "aliases": list(self.aliases),
            "size_bytes": self.size_bytes,
            "pushed_at": self.pushed_at,
            "pushed_by": self.pushed_by,
            "metrics": dict(self.metrics),
            "tags": dict(self.tags),
            "notes": self.notes,
            "pinned": self.pinned,
            "swept_at": self.swept_at,
        }

    def to_json(self) -> str:
        """As the local cache remembers it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Version:
        stored = json.loads(text)
        stored["files"] = {path: (sha, int(size)) for path, (sha, size) in stored["files"].items()}
        stored["aliases"] = tuple(stored["aliases"])
        return replace(Version(**stored), remembered=True)


def is_name(text: str) -> bool:
    """Whether a place is meant as a name of the registry."""
    return text.startswith("models:")


def parse(text: str) -> Name:
    """`models:/NAME@ALIAS` or `models:/NAME/NUMBER`; without the scheme too. Raises `UnknownVersion` (REG001)."""
    rest = text.removeprefix(SCHEME)
    hint = "models:/NAME@ALIAS or models:/NAME/NUMBER, such as models:/ctr@live or models:/ctr/3"
    model, mark, which = rest.partition("@") if "@" in rest else rest.partition("/")
    if not mark or not _MODEL.fullmatch(model):
        raise UnknownVersion(f"'{text}' names no version of a model", hint, "REG001")
    if mark == "@":
        return Name(model, alias=check_alias(which))
    if not which.isascii() or not which.isdigit() or not 0 < int(which[:12]) < 2**31:
        raise UnknownVersion(f"'{text}' names no version of a model: '{which}' is no number", hint, "REG001")
    return Name(model, number=int(which))


def check_model(name: str) -> str:
    """Raises `UnknownVersion` (REG001) for what cannot be a model's name."""
    if not _MODEL.fullmatch(name):
        raise UnknownVersion(f"'{name}' is no name for a model", "letters, digits, _ and -, at most 64", "REG001")
    return name


def check_alias(alias: str) -> str:
    """Raises `UnknownVersion` (REG001) for what cannot be an alias."""
    if not _ALIAS.fullmatch(alias):
        hint = "a letter, then letters, digits, _ . and -, at most 64"
        raise UnknownVersion(f"'{alias}' is no alias", hint, "REG001")
    return alias


def who() -> str:
    """USER@HOST, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def iso(seconds: float | None) -> str:
    """Seconds since the epoch as ISO 8601; "" for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

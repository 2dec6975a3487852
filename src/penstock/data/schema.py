"""Column schemas and roles: what the checks know about a frame before anything runs.

Types are Arrow's, so that every engine can translate them. A `Schema` is immutable; operators map input
schemas to output schemas in `check`, and the engine does the same again with the real types when it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

Role = Literal["", "slot", "dense", "kept", "label"]

#: The key of Parquet's file-level metadata that holds roles.
ROLES_KEY = "penstock.columns"


@dataclass(frozen=True)
class Column:
    """One column. `type` is None where only the name is known (a CSV of a file that does not exist yet)."""

    name: str
    type: pa.DataType | None = None
    role: Role = ""


@dataclass(frozen=True)
class Schema:
    """The columns of a frame, in order, with the fingerprint of the feature plan that mapped them ("" = none).

    `open` means further columns may exist that are not known here: checks of names then stay silent.
    """

    columns: tuple[Column, ...] = ()
    plan: str = ""
    open: bool = False

    @staticmethod
    def unknown() -> Schema:
        return Schema(open=True)

    @staticmethod
    def from_arrow(schema: pa.Schema) -> Schema:
        """Read types, and roles where the metadata holds `penstock.columns`."""
        roles: Mapping[str, Role] = {}
        plan = ""
        if schema.metadata and ROLES_KEY.encode() in schema.metadata:
            stored = json.loads(schema.metadata[ROLES_KEY.encode()])
            roles, plan = stored.get("roles", {}), stored.get("plan", "")
        return Schema(tuple(Column(f.name, f.type, roles.get(f.name, "")) for f in schema), plan)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __contains__(self, name: str) -> bool:
        return any(c.name == name for c in self.columns)

    def get(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)

    def with_role(self, role: Role) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.role == role)

    def with_columns(self, columns: Iterable[Column]) -> Schema:
        return Schema(tuple(columns), self.plan, self.open)

    def roles_json(self) -> str:
        """What Parquet files carry under `ROLES_KEY`; "" where no column has a role."""
        roles = {c.name: c.role for c in self.columns if c.role}
        return json.dumps({"plan": self.plan, "roles": roles}, sort_keys=True) if roles else ""


@dataclass(frozen=True)
class ModelInfo:
    """What the checks know of a model: its algorithm, the plan it was fitted with, the raw columns it reads."""

    algorithm: str = ""
    plan: str = ""
    label: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


#: What flows along an edge, as the checks see it.
Info = Schema | ModelInfo

"""Models by name, from Python: `version = penstock.models.push(name="ctr", path="out/model")`.

What `penstock models` does on the command line; `penstock.registry.Registry` is the same with an address of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.registry import Version

__all__ = ["fetch", "push", "resolve"]


def push(
    name: str,
    path: str | Path,
    *,
    aliases: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None,
    notes: str = "",
    registry: str = "",
) -> Version:
    """Store the bundle in the folder `path` as the next version of `name`. Raises as `Registry.push` does."""
    from penstock.registry import Registry

    with Registry(registry or None) as opened:
        return opened.push(path, name, aliases=aliases, tags=tags, metrics=metrics, lineage=lineage, notes=notes)


def resolve(name: str, registry: str = "") -> Version:
    """The version behind `models:/ctr@live` or `models:/ctr/3`. Raises `UnknownVersion`, `RegistryLost`."""
    from penstock.registry import Registry

    with Registry(registry or None) as opened:
        return opened.resolve(name)


def fetch(name: str, registry: str = "") -> Path:
    """The folder of a version's bundle in the local cache, whole and verified; to be read only."""
    from penstock.registry import Registry

    with Registry(registry or None) as opened:
        folder: Path = opened.fetch(name)
        return folder

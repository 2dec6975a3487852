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
    framework: str = "",
    framework_version: str = "",
    rows: Any = None,
    *,
    tolerance: float = 0.0,
    unproven: bool = False,
    trust_pickle: bool = False,
    factory: str = "",
    aliases: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None,
    notes: str = "",
    registry: str = "",
) -> Version:
    """Store a model as the next version of `name`: the folder of a bundle, or another framework's file.

    A foreign model is converted, and proved on `rows` (a frame, columns by name, or an array; or a file of them) and
    on awkward rows that are added: `ProofError` (REG020) names the row where the served score would differ by more
    than 1e-5 + 1e-4 |score|. `tolerance` (absolute) and `unproven` are recorded in the version. `framework`: by the
    file where it is not given. `factory`: `module:function` making the module of a PyTorch state dict. `trust_pickle`:
    a pickle runs whatever it holds; it is opened in a limited process, but opened. Raises as `Registry.push` does, and
    `ConversionError` (REG015 to REG019, REG021).
    """
    from penstock.registry import Registry
    from penstock.registry.arriving import arriving
    from penstock.registry.converting.request import Request

    request = Request(
        str(path), framework, "", framework_version=framework_version, tolerance=tolerance, unproven=unproven,
        trust_pickle=trust_pickle, factory=factory, code_folder=str(Path.cwd()),
    )  # fmt: skip
    with arriving(request, rows) as (folder, proof), Registry(registry or None) as opened:
        return opened.push(
            folder, name, aliases=aliases, tags=tags, metrics=metrics, lineage=lineage, notes=notes, proof=proof
        )


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

"""Models that have a name: bundles come in, numbered versions stay, a whole verified folder goes out.

In: the folder of a bundle (or a model of another framework, converted and proved on the way). Out: `models:/ctr@live`,
`models:/ctr/3`, and their files in a local cache. Read `registry.py` first; `bundles.py` is the format that all share.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Public names and where they live; SQLAlchemy is imported with `Registry`, not with the package.
_PUBLIC = {
    "Registry": "penstock.registry.registry",
    "Version": "penstock.registry.versions",
    "Cache": "penstock.registry.cache",
}
__all__ = ["Cache", "Registry", "Version"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

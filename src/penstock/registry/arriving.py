"""What was given to push, as the folder of a bundle: itself, or what a foreign model was converted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.data.stores import local_path
from penstock.registry.bundles import MANIFEST
from penstock.registry.converting.process import converted
from penstock.registry.converting.request import Request

OWN = "penstock"


@contextmanager
def arriving(request: Request, rows: Any = None) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The bundle's folder until the block ends, and its proof ({} for a bundle of our own).

    Raises `ConversionError`, `ProofError`.
    """
    folder = local_path(request.path)
    if request.framework.lower() == OWN or (not request.framework and (folder / MANIFEST).is_file()):
        yield folder, {}
        return
    with converted(replace(request, path=str(folder)), rows) as made:
        yield made

"""Where `models:/` names lead. The registry lies above the operators that name models: it comes by entry point."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from penstock.errors import RequestError

GROUP, SCHEME = "penstock.places", "models:"


class Places(Protocol):
    """What stands behind a scheme."""

    def fixed(self, name: str) -> str:
        """The name that will always mean what `name` means now: aliases move."""

    def digest(self, name: str) -> str:
        """What stands for the whole content behind a name."""

    def folder(self, name: str) -> Path:
        """The bundle behind a name, on this machine, for as long as this process lives."""


def is_name(location: str) -> bool:
    """Whether a place is a `models:/` name rather than a path."""
    return location.startswith(SCHEME)


def models() -> Places:
    """The registry. Raises `RequestError` where the installation lacks it; its own errors come from its methods."""
    found = _installed()
    if found is None:
        said = "models:/ names need the model registry, which is not installed"
        raise RequestError(said, "reinstall penstock", "REG004")
    return found


@cache
def _installed() -> Places | None:
    for entry in entry_points(group=GROUP, name="models"):
        return cast(Places, entry.load())
    return None

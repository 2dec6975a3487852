"""`models:/` names for flows: what fixes an alias to a number, says which bundle that is, and gives its folder.

Layers below the registry come in here through the entry point `penstock.places` (`operators/places.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from penstock.registry import settings
from penstock.registry.cache import Held
from penstock.registry.registry import Registry
from penstock.registry.versions import Version, parse


def fixed(name: str) -> str:
    """The name that will always mean what `name` means now. Raises `UnknownVersion`, `RegistryLost`."""
    return name if parse(name).number else version(name).uri


def version(name: str) -> Version:
    """The version behind a name."""
    return _registry(settings.registry_url()).resolve(name)


def digest(name: str) -> str:
    """What stands for the version's whole content."""
    return version(name).digest


def folder(name: str) -> Path:
    """The version's bundle in the local cache, held there while this process lives. A number is looked up once."""
    found = parse(name)
    if found.number:
        return _held(settings.registry_url(), str(found)).folder
    return _held(settings.registry_url(), version(name).uri).folder


def held(name: str) -> Held:
    """The version's bundle in the local cache, there for as long as the caller holds it."""
    return _registry(settings.registry_url()).hold(name)


def discard(digest: str) -> None:
    """Let the local copy of a bundle go, which is damaged; `folder` fetches it anew. What has it mapped keeps it."""
    _registry(settings.registry_url()).cache.discard(digest)
    _held.cache_clear()


def lease(holder: str, names: Iterable[str], seconds: float) -> None:
    """What a running host serves: gc spares these versions for so long. Raises `RegistryLost`."""
    registry = _registry(settings.registry_url())
    registry.lease(holder, [registry.resolve(name) for name in names], seconds)


@cache
def _registry(url: str) -> Registry:
    return Registry(url)


@cache
def _held(url: str, name: str) -> Held:
    return _registry(url).hold(name)

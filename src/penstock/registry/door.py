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
    """The version's bundle in the local cache, held there while this process lives or until `let_go`. A number is
    looked up once."""
    wanted = (settings.registry_url(), fixed(str(parse(name))))
    if wanted not in _holding:
        _holding[wanted] = _registry(wanted[0]).hold(wanted[1])
    return _holding[wanted].folder


def held(name: str) -> Held:
    """The version's bundle in the local cache, for as long as the caller holds it."""
    return _registry(settings.registry_url()).hold(name)


def let_go(but: Iterable[str]) -> None:
    """Hold only these bundles (digests) of all that `folder` gave. A process that goes on and on would hold every
    version that there ever was, and the cache could bound nothing. What is mapped stays mapped."""
    stay = set(but)
    for wanted, bundle in list(_holding.items()):
        if bundle.folder.name not in stay:
            del _holding[wanted]
            bundle.release()


def discard(digest: str) -> None:
    """Let the local copy of a bundle go, which is damaged; `folder` fetches it anew. What has it mapped keeps it."""
    _registry(settings.registry_url()).cache.discard(digest)
    _holding.clear()


def lease(holder: str, names: Iterable[str], seconds: float) -> None:
    """What a running host serves: gc spares these versions for so long. Raises `RegistryLost`."""
    registry = _registry(settings.registry_url())
    registry.lease(holder, [registry.resolve(name) for name in names], seconds)


@cache
def _registry(url: str) -> Registry:
    return Registry(url)


#: By registry and name, a number.
_holding: dict[tuple[str, str], Held] = {}

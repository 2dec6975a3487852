"""From what a configuration calls a version to a folder on this machine, its digest, and what it takes and gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.registry import bundles
from penstock.serving.config import Config

if TYPE_CHECKING:
    from penstock.registry.cache import Held

MODELS = "models:/"
#: What `bundle_of` fetched, by the names that always mean it.
_held: dict[str, Held] = {}


@dataclass(frozen=True)
class Bundle:
    """A version that can be served. `reference`: as the configuration names it."""

    reference: str
    folder: Path
    digest: str
    manifest: Mapping[str, Any]
    #: The name that always means it: `models:/ctr/3`, or the folder.
    fixed: str
    #: Which copy of it lies in the folder: another one has another stamp.
    stamp: str

    @cached_property
    def inputs(self) -> dict[str, str]:
        """What it takes: name -> type."""
        model = self.manifest["model"]
        if model.get("form") == "onnx":
            return {i["name"]: f"{i['datatype']} {i['shape']}" for i in model["inputs"]}
        if model.get("input"):
            return {model["input"]["name"]: f"FP64 [-1, {model['input']['width']}]"}
        return {i["name"]: i["type"] for i in self.manifest["signature"]["inputs"]}

    @cached_property
    def outputs(self) -> dict[str, str]:
        model = self.manifest["model"]
        if model.get("form") == "onnx":
            return {o["name"]: o["datatype"] for o in model["outputs"]}
        return {o["name"]: "FP32" for o in self.manifest["signature"]["outputs"]}

    @property
    def functions(self) -> Mapping[str, Any]:
        """The user functions of its plan: name -> what the plan recorded of them."""
        path = self.folder / "features.plan"
        if not path.is_file():
            return {}
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("functions", {})
        return found


def bundle_of(config: Config, reference: str) -> Bundle:
    """Find a version: a folder beside the configuration, or one of the registry, fetched into the local cache.

    That one is held there until `let_go`. Raises `PenstockError` saying what is wrong with it.
    """
    if not reference.startswith(MODELS):
        folder = config.at(reference)
        manifest = bundles.read_manifest(folder)
        return Bundle(reference, folder, bundles.digest_of_folder(folder), manifest, reference, _stamp(folder))
    from penstock.registry import door

    version = door.version(reference)
    if version.uri not in _held:
        _held[version.uri] = door.held(version.uri)
    folder = _held[version.uri].folder
    return Bundle(reference, folder, version.digest, bundles.read_manifest(folder), version.uri, _stamp(folder))


def held(reference: str) -> Held:
    """A version of the registry in the local cache, for as long as the caller holds it. Raises `PenstockError`."""
    from penstock.registry import door

    return door.held(reference)


def let_go(but: Iterable[Bundle]) -> None:
    """Hold only these of the versions that `bundle_of` gave, so that the cache can let go of others: a host that holds
    all that it ever served fills the disk. What is mapped stays mapped."""
    stay = {bundle.fixed for bundle in but}
    for name in [name for name in _held if name not in stay]:
        _held.pop(name).release()


def misfits(live: Bundle, other: Bundle) -> list[str]:
    """Why `other` cannot answer requests that were written for `live`; nothing where it can."""
    found = []
    for name, kind in live.inputs.items():
        theirs = other.inputs.get(name)
        if theirs is None:
            found.append(f"it does not take '{name}'")
        elif _plain(theirs) != _plain(kind):
            found.append(f"it takes '{name}' as {theirs}, not {kind}")
    for name, kind in live.outputs.items():
        if other.outputs.get(name) != kind:
            found.append(f"it does not give '{name}' ({kind})")
    return found


def functions_of(bundle: Bundle, allowed: bool) -> dict[str, int]:
    """Addresses of the plan's user functions. Raises `PenstockError` where they are not allowed or not installed."""
    named = bundle.functions
    if not named:
        return {}
    if not allowed:
        said = f"{bundle.reference} runs user code: its plan calls {', '.join(sorted(named))}"
        raise PenstockError(said, "allow_code = true for this model lets it, if you trust that code", "SERV010")
    from penstock.features import user_functions

    return dict(user_functions.addresses(named))


def discard(bundle: Bundle) -> bool:
    """Let a damaged copy go, if it can be had anew: whether it was one of the registry's."""
    if not bundle.fixed.startswith(MODELS):
        return False
    from penstock.registry import door

    door.discard(bundle.digest)
    if bundle.fixed in _held:
        _held.pop(bundle.fixed).release()
    return True


def lease(holder: str, served: Iterable[Bundle], seconds: float) -> None:
    """Tell the registry what runs here, so that gc spares it for so long. Raises `PenstockError`."""
    names = sorted({bundle.fixed for bundle in served if bundle.fixed.startswith(MODELS)})
    if names:
        from penstock.registry import door

        door.lease(holder, names, seconds)


def _stamp(folder: Path) -> str:
    about = (folder / bundles.MANIFEST).stat()
    return f"{about.st_dev}-{about.st_ino}-{about.st_mtime_ns}"


def _plain(kind: str) -> str:
    """Types that requests do not tell apart."""
    if kind in ("int8", "int16", "int32", "int64"):
        return "integer"
    if kind in ("float", "double"):
        return "number"
    return "string" if kind in ("large_string", "string_view") else kind

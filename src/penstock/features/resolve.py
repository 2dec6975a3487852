"""From a checked file to a plan: parameters in their final form, dictionaries and user functions by their hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock import native
from penstock.features import dictionaries
from penstock.features.check import CheckedFile, CheckedItem
from penstock.features.plan import VERSION, Plan


@dataclass(frozen=True)
class Learnt:
    """What fitted items learnt, by item name: the parameters that take their fit's place, and compiled dictionaries."""

    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dictionaries: Mapping[str, Path] = field(default_factory=dict)

    def __or__(self, other: Learnt) -> Learnt:
        return Learnt({**self.params, **other.params}, {**self.dictionaries, **other.dictionaries})


def resolve(checked: CheckedFile, learnt: Learnt | None = None) -> Plan:
    """The plan of a file without faults, of whose fitted items all have learnt."""
    learnt = learnt or Learnt()
    compiled: dict[str, Path] = {}
    functions: dict[str, dict[str, str]] = {}
    items = []
    for item in checked.items:
        items.append(_item(item, learnt))
        if item.user is not None:
            functions[item.user.path] = {"sha256": item.user.sha256, "takes": item.user.takes}
        name = items[-1]["params"].get("dict")
        if name in compiled or name is None:
            continue
        fitted = learnt.dictionaries.get(item.item.name)
        compiled[name] = fitted if name == fitted_name(item) and fitted else dictionaries.compiled(checked.places[name])
    document: dict[str, Any] = {
        "penstock": VERSION,
        "name": checked.file.name,
        "seed": checked.file.seed,
        "dicts": {name: _described(path) for name, path in compiled.items()},
        "functions": functions,
        "items": items,
    }
    return Plan(document, compiled)


def fitted_name(item: CheckedItem) -> str:
    """The name of an item's own learnt dictionary; no `<dict>` can have a name with a dot."""
    return f"fit.{item.item.name}"


def _item(checked: CheckedItem, learnt: Learnt) -> dict[str, Any]:
    item, common = checked.item, checked.common
    document: dict[str, Any] = {
        "as": item.kind,
        "name": item.name,
        "fn": "udf" if checked.user else item.fn,
        "rev": checked.function.revision,
        "from": [source.as_json() for source in checked.sources],
        "params": _params(checked) | dict(learnt.params.get(item.name, {})),
    }
    if item.kind == "slot":
        document["id"] = common["id"]
        if common.get("null") == "key":
            document["null_key"] = True
        if checked.weight is not None:
            document["weight"] = checked.weight.as_json()
    elif item.kind == "dense" and common.get("default"):
        document["default"] = common["default"]
    return document


def _params(checked: CheckedItem) -> dict[str, Any]:
    """The kernel's parameters; what only the file needs (fit, a formula's text) is left out."""
    if checked.user is not None:
        return {"function": checked.user.path}
    params = {key: value for key, value in checked.params.items() if key != "fit"}
    if checked.item.fn == "normalize":
        kept = ("method", "mean", "std") if params["method"] == "zscore" else ("method", "min", "max")
        params = {key: params[key] for key in kept if key in params}
    if checked.fit is not None and checked.item.fn == "pickcat":
        params["dict"] = fitted_name(checked)
    return params


def _described(path: Path) -> dict[str, Any]:
    opened = native.Dictionary.open(str(path))
    return {"sha256": opened.sha256, "entries": opened.entries}

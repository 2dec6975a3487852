"""What keys stand for, as far as a feature plan can say: values of a dictionary, ranges, parts of a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from penstock import native
from penstock.features.plan import FILE, Plan

VALUE = (1 << 52) - 1


class KeyTexts:
    """Slot names to ids and keys to texts of one plan. Dictionaries are opened when they are first asked."""

    def __init__(self, plan: Plan) -> None:
        self.slots: Mapping[str, int] = plan.slots
        self._plan = plan
        self._values: dict[str, list[str]] = {}

    @cached_property
    def _items(self) -> dict[str, Mapping[str, Any]]:
        return {item["name"]: item for item in self._plan.items if item["as"] == "slot"}

    def text(self, slot: str, key: int) -> str:
        """What a key of a slot stands for, "" where only its hash is known."""
        item, value = self._items.get(slot), key & VALUE
        if item is None:
            return ""
        if value == VALUE:
            return "null"
        given = item["params"]
        match item["fn"]:
            case "pickcat":
                values = self._dictionary(given["dict"])
                return values[value - 1] if 0 < value <= len(values) else "not in the dictionary"
            case "piecewise":
                return _range(given["bounds"], value)
            case "bucketize_time":
                return f"{given['part']} {value}"
            case _:
                return ""

    def _dictionary(self, name: str) -> list[str]:
        if name not in self._values:
            self._values[name] = native.Dictionary.open(self._plan.dictionaries[name]).values()
        return self._values[name]


def _range(bounds: Sequence[float], place: int) -> str:
    below = f"{bounds[place - 1]:g}" if 0 < place <= len(bounds) else ""
    above = f"{bounds[place]:g}" if place < len(bounds) else ""
    if below and above:
        return f"in [{below}, {above})"
    return f"below {above}" if above else f"from {below} up"


def texts_beside(path: Path) -> KeyTexts | None:
    """The texts of a bundle's plan, where `path` is the bundle, a folder in it, or a file of it."""
    for folder in (path, path.parent):
        if (folder / FILE).is_file():
            return KeyTexts(Plan.load(folder))
    return None

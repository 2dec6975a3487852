"""Reading a feature file: XML to `FeatureFile`, with everything that is wrong with its structure.

What names and functions mean is `check`'s; here an element is known or not, and `${...}` gets its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.data import safe_xml
from penstock.data.safe_xml import Element
from penstock.errors import did_you_mean
from penstock.features.model import Dictionary, FeatureFile, Item
from penstock.flow.values import ValueFault, interpolate
from penstock.operators.base import Fault

NAMESPACE = "urn:penstock:features:1"
_ITEMS = ("define", "slot", "dense")

Report = Callable[..., None]


def read(
    path: Path, values: Mapping[str, str] | None = None, shown: str = ""
) -> tuple[FeatureFile | None, list[Fault]]:
    """Parse `path`; None where nothing of it can be used.

    `values` fills `${...}` (None: they stay as written), `shown` names the file in faults.
    """
    shown = shown or str(path)
    faults: list[Fault] = []

    def report(line: int, code: str, message: str, hint: str = "") -> None:
        faults.append(Fault(code, message, hint, file=shown, line=line))

    try:
        root = safe_xml.read(path).root
    except safe_xml.XmlError as error:
        report(error.line, "FEAT001", error.message, error.hint)
        return None, faults
    except OSError as error:
        report(0, "FEAT001", f"the feature file cannot be read: {error.strerror or error}")
        return None, faults
    if root.name != "features" or root.namespace != NAMESPACE:
        report(
            root.line,
            "FEAT001",
            f"the root element is <{root.name}> of namespace '{root.namespace}'",
            f'a feature file begins with <features xmlns="{NAMESPACE}" name="...">',
        )
        return None, faults
    return _Reading(values, report).file(root, path, shown), faults


class _Reading:
    """One pass over the elements; `report` collects what is wrong."""

    def __init__(self, values: Mapping[str, str] | None, report: Report) -> None:
        self.values = values
        self.report = report

    def file(self, root: Element, path: Path, shown: str) -> FeatureFile:
        attrs = self.attributes(root)
        self.only(root, attrs, ("name", "seed", "description"))
        self.no_text(root)
        if not attrs.get("name"):
            self.report(root.line, "FEAT003", "<features> has no name", 'write name="..." on it')
        dictionaries, items = [], []
        for child in root.children:
            self.no_text(child)
            for grandchild in child.children:
                self.report(grandchild.line, "FEAT002", f"<{grandchild.name}> may not stand inside <{child.name}>")
            if child.namespace != NAMESPACE or child.name not in ("dict", *_ITEMS):
                hint = did_you_mean(child.name, ("dict", *_ITEMS), "a feature file holds dict, define, slot and dense")
                self.report(child.line, "FEAT002", f"<{child.name}> is no element of a feature file", hint)
            elif child.name == "dict":
                dictionaries.append(self.dictionary(child))
            else:
                items.append(self.item(child))
        seed = attrs.get("seed", "0").strip()
        if not (seed.isascii() and seed.isdecimal() and int(seed) < 1 << 64):
            self.report(root.line, "FEAT013", f"seed is '{seed}', not a whole number from 0 to 2^64 - 1")
            seed = "0"
        return FeatureFile(
            path, shown, attrs.get("name", ""), str(int(seed)), root.line, tuple(dictionaries), tuple(items)
        )

    def dictionary(self, element: Element) -> Dictionary:
        attrs = self.attributes(element)
        self.only(element, attrs, ("name", "path", "from", "description"))
        name, path, source = attrs.get("name", ""), attrs.get("path", ""), attrs.get("from", "")
        if not name:
            self.report(element.line, "FEAT003", "<dict> has no name")
        if ("path" in attrs) == ("from" in attrs):
            said = "both path and from" if "path" in attrs else "neither path nor from"
            hint = 'path="FILE" for a file, from="node.output" for another node\'s output'
            self.report(element.line, "FEAT003", f"dict '{name}' has {said}", hint)
        return Dictionary(name, path, source, element.line)

    def item(self, element: Element) -> Item:
        attrs = self.attributes(element)
        name, fn = attrs.pop("name", ""), attrs.pop("fn", "")
        attrs.pop("description", None)
        if not name:
            self.report(element.line, "FEAT003", f"<{element.name}> has no name")
        if not fn:
            self.report(element.line, "FEAT003", f"{element.name} '{name}' has no fn", "fn names its function")
        return Item(element.name, name, fn, attrs, element.line)  # type: ignore[arg-type]  # one of _ITEMS

    def attributes(self, element: Element) -> dict[str, str]:
        return {name: self.filled(value, element.line) for name, value in element.attrs.items()}

    def filled(self, text: str, line: int) -> str:
        """`text` with the flow's values in it."""
        if self.values is None or "${" not in text:
            return text
        try:
            return interpolate(text, self.values)
        except ValueFault as fault:
            self.report(line, fault.code, fault.message, fault.hint)
        except KeyError as error:
            self.report(line, "FEAT029", f"'{text}' needs the flow's value {error}", "check this file in its flow")
        return ""

    def only(self, element: Element, attrs: Mapping[str, str], known: tuple[str, ...]) -> None:
        for name in attrs:
            if name not in known:
                hint = did_you_mean(name, known, f"<{element.name}> takes {', '.join(known)}")
                self.report(element.line, "FEAT004", f"<{element.name}> has no attribute '{name}'", hint)

    def no_text(self, element: Element) -> None:
        if element.text.strip():
            text = " ".join(element.text.split())[:40]
            self.report(element.line, "FEAT002", f"<{element.name}> holds text: '{text}'", "everything is an attribute")

"""Reading a views file: XML to `ViewsFile`, with every problem it has at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from penstock.data import safe_xml
from penstock.data.safe_xml import Element
from penstock.errors import Problem, ProblemsFound, did_you_mean
from penstock.features.views.model import Aggregate, Column, Entity, Source, View, ViewsFile
from penstock.features.views.sources import source_faults
from penstock.operators.catalog import installed

NAMESPACE = "urn:penstock:views:1"
MOST_PANES = 10_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SPAN = re.compile(r"(\d{1,9})(us|ms|s|m|h|d)")
_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_KINDS = ("int", "float", "str", "bool")
_FUNCTIONS = ("count", "sum", "mean", "last")


def read(path: Path) -> ViewsFile:
    """Read and check a file; its sources are not looked at. Raises `ProblemsFound` with all that is wrong with it."""
    file, problems = _parsed(path)
    if file is None or problems:
        raise ProblemsFound(problems)
    return file


def check(path: Path) -> tuple[Problem, ...]:
    """Every problem of a file, sorted, those of its sources (lost files, columns that are not there) among them."""
    file, problems = _parsed(path)
    for view in file.views.values() if file else ():
        problems += [
            Problem(str(path), view.source.line, code, message, hint) for code, message, hint in source_faults(view)
        ]
    return tuple(sorted(problems))


def is_views_file(path: Path) -> bool:
    """Whether it is XML of this language."""
    try:
        return safe_xml.read(path).root.namespace == NAMESPACE
    except (safe_xml.XmlError, OSError):
        return False


def _parsed(path: Path) -> tuple[ViewsFile | None, list[Problem]]:
    try:
        root = safe_xml.read(path).root
    except safe_xml.XmlError as error:
        return None, [Problem(str(path), error.line, "VIEW001", error.message, error.hint)]
    except OSError as error:
        said = f"the views file cannot be read: {error.strerror or error}"
        return None, [Problem(str(path), 0, "VIEW001", said)]
    if (root.namespace, root.name) != (NAMESPACE, "views"):
        said = f"the root element is <{root.name}> of namespace '{root.namespace}'"
        hint = f'a views file begins with <views xmlns="{NAMESPACE}" name="...">'
        return None, [Problem(str(path), root.line, "VIEW001", said, hint)]
    reading = _Reading(path)
    return reading.file(root), reading.problems


class _Reading:
    """One pass over the elements; `problems` are what is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.entities: dict[str, Entity] = {}

    def report(self, element: Element, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(str(self.path), element.line, code, message, hint))

    def file(self, root: Element) -> ViewsFile:
        attrs = self.attributes(root, ("name", "description"), ("name",))
        for child in self.children(root, ("entity", "view")):
            if child.name == "entity":
                entity = self.entity(child)
                self.unique(child, entity.name, self.entities, "entity")
                self.entities[entity.name] = entity
        views: dict[str, View] = {}
        for child in root.children:
            if child.name == "view" and child.namespace == NAMESPACE:
                view = self.view(child)
                self.unique(child, view.name, views, "view")
                views[view.name] = view
        return ViewsFile(self.path, attrs.get("name", ""), self.entities, views, attrs.get("description", ""))

    def entity(self, element: Element) -> Entity:
        attrs = self.attributes(element, ("name", "key", "type", "description"), ("name", "key"))
        names = attrs.get("key", "").replace(",", " ").split()
        kinds = attrs.get("type", "str").replace(",", " ").split()
        if len(kinds) == 1:
            kinds *= len(names)
        if len(kinds) != len(names) or any(kind not in ("str", "int") for kind in kinds):
            hint = "one type for all keys or one for each: str or int"
            self.report(element, "VIEW006", f"type '{attrs.get('type')}' does not fit key '{attrs.get('key')}'", hint)
            kinds = ["str"] * len(names)
        self.children(element, ())
        return Entity(attrs.get("name", ""), tuple(zip(names, kinds, strict=True)), element.line)  # type: ignore[arg-type]

    def view(self, element: Element) -> View:
        known = ("name", "entity", "ttl", "owner", "description")
        attrs = self.attributes(element, known, ("name", "entity"))
        name, of = attrs.get("name", ""), attrs.get("entity", "")
        if of and of not in self.entities:
            hint = did_you_mean(of, self.entities, f"declared are: {', '.join(self.entities) or 'none'}")
            self.report(element, "VIEW007", f"view '{name}' is of entity '{of}', which is not declared", hint)
        sources: list[Source] = []
        columns: list[Column] = []
        aggregates: list[Aggregate] = []
        for child in self.children(element, ("source", "column", "aggregate")):
            if child.name == "source":
                sources.append(self.source(child))
            elif child.name == "column":
                columns.append(self.column(child))
            else:
                aggregates.append(self.aggregate(child))
        if len(sources) != 1:
            hint = '<source type="parquet" path="..." time="..."/> or <source topic="log:..."/>'
            self.report(element, "VIEW003", f"view '{name}' has {len(sources)} sources and needs one", hint)
        if not columns and not aggregates:
            self.report(element, "VIEW003", f"view '{name}' has neither column nor aggregate")
        self.consistent(element, columns, aggregates, self.entities.get(of))
        ttl = self.span(element, "ttl", attrs["ttl"]) if "ttl" in attrs else None
        return View(
            name, self.entities.get(of, Entity(of, ())), sources[0] if sources else Source(), tuple(columns),
            tuple(aggregates), ttl, attrs.get("owner", ""), attrs.get("description", ""), self.path.parent.absolute(),
            element.line,
        )  # fmt: skip

    def consistent(
        self, view: Element, columns: list[Column], aggregates: list[Aggregate], entity: Entity | None
    ) -> None:
        """Output names differ, and a column of the events has one type wherever it is read."""
        names: dict[str, Column | Aggregate] = {}
        kinds: dict[str, str] = {}
        elements = [child for child in view.children if child.name in ("column", "aggregate")]
        items: list[Column | Aggregate] = [*columns, *aggregates]
        items.sort(key=lambda item: item.line)
        for element, item in zip(elements, items, strict=False):
            self.unique(element, item.name, names, "output")
            names[item.name] = item
            if entity and item.name in [key for key, _ in entity.keys]:
                self.report(element, "VIEW005", f"'{item.name}' is a key of entity '{entity.name}', and an output too")
            told = element.attrs.get("type", item.kind) in _KINDS
            if told and item.source and kinds.setdefault(item.source, item.kind) != item.kind:
                said = f"column '{item.source}' is {item.kind} here and {kinds[item.source]} above"
                self.report(element, "VIEW008", said, "write the same type wherever the column is read")

    def source(self, element: Element) -> Source:
        self.children(element, ())
        attrs = dict(element.attrs)
        topic, kind = attrs.pop("topic", ""), attrs.pop("type", "")
        time, unit = attrs.pop("time", ""), attrs.pop("unit", "")
        inputs = sorted(name for what, name in installed() if what == "input" and name != "model")
        if bool(topic) == bool(kind):
            said = "both topic and type" if topic else "neither topic nor type"
            self.report(element, "VIEW003", f"<source> has {said}", "topic=ADDRESS, or type and path of files")
        elif kind and kind not in inputs:
            hint = did_you_mean(kind, inputs, f"known are {', '.join(inputs)}")
            self.report(element, "VIEW009", f"<source> has type '{kind}', which is no input", hint)
        elif kind and not (attrs.get("path") and time):
            what = "time" if attrs.get("path") else "path"
            self.report(element, "VIEW003", f"<source> of files has no {what}", "time names the column of event times")
        elif topic and attrs:
            self.report(element, "VIEW004", f"<source> of a topic has no attribute '{next(iter(attrs))}'")
        if unit not in ("", "s", "ms", "us"):
            self.report(element, "VIEW004", f"unit is '{unit}'", "s, ms or us")
        return Source(kind, topic, attrs, time, unit, element.line)

    def column(self, element: Element) -> Column:
        attrs = self.attributes(element, ("name", "type", "from", "description"), ("name", "type"))
        self.children(element, ())
        kind = self.one_of(element, "type", attrs.get("type", "str"), _KINDS)
        return Column(attrs.get("name", ""), kind, attrs.get("from", attrs.get("name", "")), element.line)  # type: ignore[arg-type]

    def aggregate(self, element: Element) -> Aggregate:
        known = ("name", "function", "from", "type", "sliding", "every", "tumbling", "decimals", "description")
        attrs = self.attributes(element, known, ("name", "function"))
        self.children(element, ())
        name, source = attrs.get("name", ""), attrs.get("from", "")
        function = self.one_of(element, "function", attrs.get("function", "count"), _FUNCTIONS)
        kind = self.one_of(element, "type", attrs.get("type", "float"), _KINDS)
        if function != "count" and not source:
            self.report(element, "VIEW003", f"{function} '{name}' has no from", "from names the events' column")
        if source and "type" not in attrs:
            self.report(element, "VIEW003", f"'{name}' does not say the type of '{source}'", f"{', '.join(_KINDS)}")
        if function in ("sum", "mean") and kind not in ("int", "float"):
            self.report(element, "VIEW008", f"{function} '{name}' adds '{source}', which is {kind}")
        decimals = attrs.get("decimals", "6" if kind == "float" else "0")
        if not (decimals.isascii() and decimals.isdecimal() and int(decimals) <= 15):
            self.report(element, "VIEW008", f"decimals of '{name}' are '{decimals}'", "a whole number from 0 to 15")
            decimals = "0"
        size, every, tumbling = self.window(element, attrs)
        return Aggregate(name, function, source, kind, size, every, tumbling, int(decimals), element.line)  # type: ignore[arg-type]

    def window(self, element: Element, attrs: Mapping[str, str]) -> tuple[int, int, bool]:
        name = attrs.get("name", "")
        hint = 'sliding="1h" every="5m" or tumbling="1d"'
        if ("sliding" in attrs) == ("tumbling" in attrs):
            said = "two windows" if "sliding" in attrs else "no window"
            self.report(element, "VIEW010", f"'{name}' has {said}", hint)
            return 1, 1, False
        if "tumbling" in attrs:
            if "every" in attrs:
                self.report(element, "VIEW010", f"'{name}' is tumbling, and every is of sliding windows", hint)
            size = self.span(element, "tumbling", attrs["tumbling"])
            return size, size, True
        size = self.span(element, "sliding", attrs["sliding"])
        every = self.span(element, "every", attrs["every"]) if "every" in attrs else size
        if "every" not in attrs:
            self.report(element, "VIEW010", f"'{name}' does not say every", "how finely the window's far end moves")
        elif size % every or size // every > MOST_PANES:
            said = f"'{name}': {attrs['sliding']} is not a whole number, up to {MOST_PANES:,}, of {attrs['every']}"
            self.report(element, "VIEW010", said, hint)
            every = size
        return size, every, False

    # --- what all elements share ------------------------------------------------------------------------------

    def attributes(self, element: Element, known: tuple[str, ...], needed: tuple[str, ...]) -> Mapping[str, str]:
        for name in element.attrs:
            if name not in known:
                hint = did_you_mean(name, known, f"<{element.name}> takes {', '.join(known)}")
                self.report(element, "VIEW004", f"<{element.name}> has no attribute '{name}'", hint)
        for name in needed:
            if not element.attrs.get(name):
                self.report(element, "VIEW003", f"<{element.name}> has no {name}", f'write {name}="..." on it')
        name = element.attrs.get("name", "")
        if name and not _NAME.fullmatch(name):
            hint = "letters, digits and _, not beginning with a digit, at most 64 of them"
            self.report(element, "VIEW005", f"'{name}' is no name", hint)
        return element.attrs

    def children(self, element: Element, known: tuple[str, ...]) -> list[Element]:
        if element.text.strip():
            text = " ".join(element.text.split())[:40]
            self.report(element, "VIEW002", f"<{element.name}> holds text: '{text}'", "everything is an attribute")
        good = []
        for child in element.children:
            if child.namespace == NAMESPACE and child.name in known:
                good.append(child)
                continue
            hint = did_you_mean(child.name, known, f"<{element.name}> holds {', '.join(known) or 'nothing'}")
            self.report(child, "VIEW002", f"<{child.name}> may not stand in <{element.name}>", hint)
        return good

    def unique(self, element: Element, name: str, taken: Mapping[str, object], what: str) -> None:
        if name and name in taken:
            self.report(element, "VIEW005", f"{what} '{name}' is declared twice")

    def one_of(self, element: Element, what: str, value: str, known: tuple[str, ...]) -> str:
        if value in known:
            return value
        self.report(
            element, "VIEW008", f"{what} is '{value}'", did_you_mean(value, known, f"one of {', '.join(known)}")
        )
        return known[0]

    def span(self, element: Element, what: str, text: str) -> int:
        found = _SPAN.fullmatch(text.strip())
        if found and int(found[1]) > 0:
            return int(found[1]) * _UNITS_US[found[2]]
        self.report(element, "VIEW010", f"{what} is '{text}', which is no span of time", "30s, 5m, 1h, 7d")
        return 1

"""XML from a file nobody vouches for, as a tree that knows its lines.

No DTD, no entity beyond the five of XML itself, no network; size, depth and the number of elements are capped before
they can hurt. Raises `XmlError` with the line of the `<` at fault: the caller adds its own error code and file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from xml.parsers import expat

#: A flow of 10,000 steps is 2 MB; what is larger is not written by people.
MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 32
MAX_ELEMENTS = 500_000


class XmlError(Exception):
    """`message` is what a colleague would say, `line` is 1-based (0: the file as a whole), `hint` what to do next."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


@dataclass
class Element:
    """One element. Names in a namespace other than "" are held apart: `namespace` and `name`.

    `attrs` has the plain attributes in written order; `foreign` those of another namespace, by (namespace, name).
    `comments` stand before the element or behind it on the line where it ends, `last_comments` after its last child,
    each as written between `<!--` and `-->`.
    """

    namespace: str
    name: str
    attrs: Mapping[str, str]
    foreign: Mapping[tuple[str, str], str]
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    last_comments: list[str] = field(default_factory=list)


@dataclass
class Document:
    """The root element, and the comments after it."""

    root: Element
    after_comments: list[str]


def read(path: Path) -> Document:
    """Parse a file. Raises `XmlError`, and `OSError` where the file cannot be read."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    return parse(data)


def parse(data: bytes) -> Document:
    """Parse one document. Raises `XmlError`."""
    if len(data) > MAX_BYTES:
        raise XmlError(0, f"the file is larger than {MAX_BYTES // 1024 // 1024} MB, which no such file needs")
    return _Reader().run(data)


@lru_cache(1024)
def _split(qualified: str) -> tuple[str, str]:
    namespace, _, name = qualified.rpartition(" ")
    return namespace, name


class _Reader:
    """Expat's handlers over one document."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.ordered_attributes = True
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self.refuse_doctype
        self.parser.EntityDeclHandler = self.refuse_entity
        self.parser.ProcessingInstructionHandler = self.refuse_instruction
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.CommentHandler = self.comment
        self.root: Element | None = None
        self.open: list[Element] = []
        self.pending: list[str] = []
        self.count = 0
        # The element that ended last, as long as only spaces came after it on its line: a comment there is its own.
        self.ended: Element | None = None

    def run(self, data: bytes) -> Document:
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            raise _explained(error) from None
        except (LookupError, ValueError) as error:
            raise XmlError(1, f"the file's encoding cannot be read: {error}", "save it as UTF-8") from None
        if self.root is None:
            raise XmlError(1, "the file has no element")
        return Document(self.root, self.pending)

    def refuse_doctype(self, *_: object) -> None:
        raise XmlError(
            self.parser.CurrentLineNumber, "the file has a DOCTYPE, which is refused", "delete the <!DOCTYPE ...> line"
        )

    def refuse_entity(self, *_: object) -> None:
        raise XmlError(self.parser.CurrentLineNumber, "the file declares an entity, which is refused")

    def refuse_instruction(self, target: str, _: str) -> None:
        message = f"the file has the processing instruction <?{target} ...?>, which is refused"
        raise XmlError(self.parser.CurrentLineNumber, message, "delete it")

    def start(self, qualified: str, attributes: list[str]) -> None:
        line = self.parser.CurrentLineNumber
        namespace, name = _split(qualified)
        self.count += 1
        if len(self.open) >= MAX_DEPTH:
            raise XmlError(line, f"elements are nested deeper than {MAX_DEPTH} levels")
        if self.count > MAX_ELEMENTS:
            raise XmlError(line, f"the file has more than {MAX_ELEMENTS:,} elements")
        attrs: dict[str, str] = {}
        foreign: dict[tuple[str, str], str] = {}
        for key, value in zip(attributes[::2], attributes[1::2], strict=True):
            space, plain = _split(key)
            if space:
                foreign[space, plain] = value
            else:
                attrs[plain] = value
        element = Element(namespace, name, attrs, foreign, line, comments=self.pending)
        self.pending = []
        self.ended = None
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def end(self, _: str) -> None:
        self.ended = self.open.pop()
        self.ended.last_comments = self.pending
        self.pending = []

    def characters(self, text: str) -> None:
        self.open[-1].text += text
        if "\n" in text:
            self.ended = None

    def comment(self, text: str) -> None:
        if self.ended is not None and self.open:
            self.ended.comments.append(text)
        else:
            self.pending.append(text)


def _explained(error: expat.ExpatError) -> XmlError:
    """Expat's terse words, said so that the reader knows what to mend."""
    said = expat.ErrorString(error.code) or str(error)
    hints = {
        "mismatched tag": "an element is closed by another one's name, or never closed",
        "not well-formed (invalid token)": "in attribute values write &lt; for < and &amp; for &",
        "undefined entity": "only &lt; &gt; &amp; &quot; &apos; are known; write other characters as they are",
        "duplicate attribute": "one attribute stands twice on this element",
        "no element found": "the file is empty or ends too early",
        "syntax error": "is this the right file? XML begins with <",
        "unclosed token": "the file ends inside an element",
        "unbound prefix": "declare the prefix with xmlns:PREFIX=...",
    }
    return XmlError(error.lineno, f"the XML cannot be read: {said}, at column {error.offset + 1}", hints.get(said, ""))

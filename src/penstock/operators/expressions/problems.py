"""What is wrong with an expression, and where inside its text."""

from __future__ import annotations

from penstock.errors import RequestError
from penstock.operators.base import Fault


def line_column(text: str, at: int) -> tuple[int, int]:
    """The 1-based line and column of a character offset."""
    before = text[: max(at, 0)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def place(text: str, at: int) -> str:
    """How a message names a position: "at character 7", or "at line 2, character 3" in a text of several lines."""
    if at < 0:
        return ""
    line, column = line_column(text, at)
    return f"at line {line}, character {column}" if "\n" in text.strip() else f"at character {column}"


class ExpressionError(RequestError):
    """A text that is not an expression of our subset. `line` and `column` are 1-based positions in that text."""

    def __init__(self, code: str, message: str, hint: str = "", text: str = "", at: int = -1) -> None:
        where = place(text, at)
        super().__init__(f"{message} ({where})" if where else message, hint, code)
        self.text = text
        self.at = at
        self.line, self.column = line_column(text, at)

    def fault(self) -> Fault:
        return Fault(self.code, self.message, self.hint)

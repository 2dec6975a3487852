"""What goes wrong, said once: where, what, and what next.

`Problem` is one finding in a user's file; `PenstockError` and its few children carry findings to the door (`cli`),
which alone prints them and chooses the exit status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, order=True)
class Problem:
    """One finding: `FILE:LINE: CODE message`, then a hint.

    `line` is the 1-based line of the `<` of the element at fault; 0 means the file as a whole.
    `code` is FAMILY plus three digits, never reused; `docs/errors/CODE.md` explains it.
    """

    file: str
    line: int
    code: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        warning = "warning: " if self.severity == "warning" else ""
        head = f"{self.file}:{self.line}: {self.code} {warning}{self.message}"
        return f"{head}\n  hint: {self.hint}" if self.hint else head

    def as_dict(self) -> dict[str, str | int]:
        return {
            "file": self.file,
            "line": self.line,
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
        }


class PenstockError(Exception):
    """It ran and failed (exit 1). `message` is one line a colleague would say; `hint` is what to do next."""

    exit_status = 1

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        head = f"{self.code} {self.message}" if self.code else self.message
        return f"{head}\n  hint: {self.hint}" if self.hint else head


class RequestError(PenstockError):
    """The request itself was wrong (exit 2): nothing has run, nothing was written."""

    exit_status = 2


class ProblemsFound(RequestError):
    """A user's file has problems; all of them, sorted."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        errors = sum(p.severity == "error" for p in self.problems)
        super().__init__(f"{errors} problem{'s' if errors != 1 else ''} found")

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)


class DataError(PenstockError):
    """Data that cannot be what it should be: a broken file, a bad row under on_error="fail", a wrong type."""


class Interrupted(PenstockError):
    """Stopped by the user or the system (exit 130)."""

    exit_status = 130


def did_you_mean(name: str, known: Sequence[str] | Iterable[str], otherwise: str = "") -> str:
    """A hint naming the closest known name, else `otherwise`."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else otherwise

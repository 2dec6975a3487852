"""Formulas: arithmetic over names, read into the kernel's expression tree.

sum     = term  {("+" | "-") term}
term    = unary {("*" | "/" | "%") unary}
unary   = "-" unary | "+" unary | atom
atom    = NUMBER | NAME | '"' name '"' | FUNCTION "(" sum {"," sum} ")" | "(" sum ")"
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import did_you_mean

#: Function -> least and most arguments.
CALLS: Mapping[str, tuple[int, int]] = {
    "log": (1, 1), "log10": (1, 1), "log1p": (1, 1), "sqrt": (1, 1), "abs": (1, 1), "exp": (1, 1),
    "floor": (1, 1), "ceil": (1, 1), "round": (1, 1), "trunc": (1, 1), "sign": (1, 1), "log2": (1, 1),
    "expm1": (1, 1), "sin": (1, 1), "cos": (1, 1), "tan": (1, 1), "tanh": (1, 1), "pow": (2, 2),
    "min": (1, 64), "max": (1, 64),
}  # fmt: skip
#: The kernel's JSON reader takes 128 levels, and a call is two.
MAX_DEPTH = 56

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r'|"(?P<quoted>(?:[^"]|"")*)"|(?P<sign>[-+*/%(),])|(?P<end>$)|(?P<other>.))',
    re.DOTALL,
)


class FormulaError(ValueError):
    """What is wrong, and `position`: the 1-based character where."""

    def __init__(self, message: str, position: int, hint: str = "") -> None:
        super().__init__(f"{message}, at character {position}")
        self.position = position
        self.hint = hint


@dataclass(frozen=True)
class Formula:
    """`tree` is the kernel's AST; {"arg": i} in it is the i-th of `names`, which stand in order of first use."""

    tree: Mapping[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(expression: str) -> Formula:
    """Read an expression. Raises `FormulaError`."""
    return _Parser(_tokens(expression)).formula()


def _tokens(expression: str) -> list[_Token]:
    found, at = [], 0
    while True:
        match = _TOKEN.match(expression, at)
        if match is None or match.lastgroup is None:  # `other` takes any character, so this is never reached
            raise FormulaError("this is no formula", at + 1)
        kind = match.lastgroup
        position = match.start(kind) + (0 if kind == "quoted" else 1)
        found.append(_Token(kind, match[kind], position))
        if kind == "end":
            return found
        if kind == "other":
            hint = {"^": "a power is pow(x, y)", "'": "names stand in double quotes, and there is no text"}
            raise FormulaError(f"'{match[kind]}' means nothing here", position, hint.get(match[kind], ""))
        at = match.end()


def _depth(tree: Mapping[str, Any]) -> int:
    deepest, level = 0, [tree]
    while level:
        deepest += 1
        level = [arg for node in level for arg in node.get("args", ())]
    return deepest


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.names: dict[str, int] = {}

    def formula(self) -> Formula:
        if self.tokens[0].kind == "end":
            raise FormulaError("the formula is empty", 1)
        tree = self.sum()
        left = self.tokens[self.at]
        if left.kind != "end":
            hint = "a power is pow(x, y)" if left.text == "*" else ""
            raise FormulaError(f"'{left.text}' is one too many", left.position, hint)
        if _depth(tree) > MAX_DEPTH:
            raise FormulaError(
                f"it is nested deeper than {MAX_DEPTH} levels", 1, "give a part of it a name by <define>"
            )
        return Formula(tree, tuple(self.names))

    def take(self, *signs: str) -> str:
        token = self.tokens[self.at]
        if token.kind == "sign" and token.text in signs:
            self.at += 1
            return token.text
        return ""

    def expect(self, sign: str, opened: _Token) -> None:
        if not self.take(sign):
            raise FormulaError(f"the '(' of character {opened.position} is not closed", self.tokens[self.at].position)

    def sum(self) -> Mapping[str, Any]:
        left = self.term()
        while sign := self.take("+", "-"):
            left = {"op": sign, "args": [left, self.term()]}
        return left

    def term(self) -> Mapping[str, Any]:
        left = self.unary()
        while sign := self.take("*", "/", "%"):
            left = {"op": sign, "args": [left, self.unary()]}
        return left

    def unary(self) -> Mapping[str, Any]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise FormulaError(f"it is nested deeper than {MAX_DEPTH} levels", self.tokens[self.at].position)
        sign = self.take("-", "+")
        tree = self.atom() if not sign else self.unary()
        self.depth -= 1
        return {"op": "neg", "args": [tree]} if sign == "-" else tree

    def atom(self) -> Mapping[str, Any]:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "number":
            value = float(token.text)
            if not math.isfinite(value):
                raise FormulaError(f"{token.text} is too large for a number", token.position)
            return {"num": value}
        if token.kind == "quoted":
            return self.name(token.text.replace('""', '"'))
        if token.kind == "name":
            if not self.take("("):
                return self.name(token.text)
            return self.call(token)
        if token.text == "(":
            inner = self.sum()
            self.expect(")", token)
            return inner
        said = f"'{token.text}' stands where" if token.text else "it ends where"
        raise FormulaError(f"{said} a number, a name or '(' should", token.position)

    def name(self, name: str) -> Mapping[str, Any]:
        return {"arg": self.names.setdefault(name, len(self.names))}

    def call(self, token: _Token) -> Mapping[str, Any]:
        if token.text not in CALLS:
            hint = did_you_mean(token.text, CALLS, f"formulas know {', '.join(sorted(CALLS))}")
            raise FormulaError(f"there is no function '{token.text}'", token.position, hint)
        args = [self.sum()]
        while self.take(","):
            args.append(self.sum())
        self.expect(")", token)
        least, most = CALLS[token.text]
        if not least <= len(args) <= most:
            wanted = str(least) if least == most else f"{least} or more"
            raise FormulaError(f"'{token.text}' takes {wanted} arguments, not {len(args)}", token.position)
        return {"call": token.text, "args": args}

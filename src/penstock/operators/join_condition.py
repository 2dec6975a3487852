"""The `on` of a join: names that both sides share, or equalities between qualified names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.data.names import spelled
from penstock.errors import did_you_mean

_TOKEN = re.compile(
    r'\s*(?:"((?:[^"]|"")+)"|([^\W\d]\w*)|(<=|>=|<>|!=|[=.,<>()])|(\d+(?:\.\d+)?|\'[^\']*\')|(\S))', re.UNICODE
)
_COMPARISONS = {"<", ">", "<=", ">=", "<>", "!=", "between", "like", "or", "not", "is", "in"}


@dataclass(frozen=True)
class Pair:
    """One equality: the key's name on the left and on the right."""

    left: str
    right: str


@dataclass(frozen=True)
class _Token:
    text: str
    kind: str  # name, word (an unquoted name), sign, other


class ConditionError(Exception):
    """What a join cannot do with its `on`."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def qualifier(reference: str) -> str:
    """`parts_train` for the port `parts.train`."""
    return reference.replace(".", "_")


def pairs_of(text: str, references: Sequence[str]) -> tuple[Pair, ...]:
    """`id`, `id, day`, `a.id = b.uid and a.day = b.day`. Raises `ConditionError`."""
    tokens = _tokens(text)
    found: list[Pair] = []
    at = 0
    while at < len(tokens):
        first, at = _operand(tokens, at)
        if at < len(tokens) and tokens[at].text == "=" and tokens[at].kind == "sign":
            second, at = _operand(tokens, at + 1)
            found.append(_equality(first, second, references))
        elif first[0]:
            if at < len(tokens) and tokens[at].text.lower() in _COMPARISONS:
                raise _refused(tokens[at])
            raise ConditionError(f"'{first[0]}.{first[1]}' is compared with nothing", "write a.id = b.uid, or id")
        else:
            found.append(Pair(first[1], first[1]))
        if at < len(tokens):
            at = _separator(tokens, at)
            if at == len(tokens):
                raise ConditionError(f"'{text}' ends after '{tokens[-1].text}'")
    if not found:
        raise ConditionError("it names no key")
    return tuple(found)


def _tokens(text: str) -> list[_Token]:
    found = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            break
        at = match.end()
        if match[1] is not None:
            found.append(_Token(match[1].replace('""', '"'), "name"))
        elif match[2] is not None:
            found.append(_Token(match[2], "word"))
        elif match[3] is not None:
            found.append(_Token(match[3], "sign"))
        else:
            found.append(_Token(match[4] or match[5], "other"))
    return found


def _operand(tokens: Sequence[_Token], at: int) -> tuple[tuple[str, str], int]:
    """`a.id` as ("a", "id"), `id` as ("", "id"), and where it ends."""
    if at >= len(tokens):
        raise ConditionError("something is missing after '='")
    token = tokens[at]
    if token.kind not in ("name", "word"):
        raise _refused(token)
    if at + 1 < len(tokens) and tokens[at + 1].text == "." and tokens[at + 1].kind == "sign":
        if at + 2 >= len(tokens) or tokens[at + 2].kind not in ("name", "word"):
            raise ConditionError(f"a column's name is missing after '{token.text}.'")
        return (token.text, tokens[at + 2].text), at + 3
    return ("", token.text), at + 1


def _separator(tokens: Sequence[_Token], at: int) -> int:
    token = tokens[at]
    if token.text == "," or (token.kind == "word" and token.text.lower() == "and"):
        return at + 1
    if token.kind in ("name", "word") and token.text.lower() not in _COMPARISONS:
        return at  # names separated by spaces, as everywhere in a flow
    raise _refused(token)


def _refused(token: _Token) -> ConditionError:
    if token.text.lower() in _COMPARISONS:
        hint = 'join on equal keys, then filter the result; how="asof" finds the nearest earlier row'
        return ConditionError(f"a join compares by '=' only, not by '{token.text}'", hint)
    return ConditionError(f"'{token.text}' does not belong in a join's keys", 'write "id" or "a.id = b.uid"')


def _equality(first: tuple[str, str], second: tuple[str, str], references: Sequence[str]) -> Pair:
    known = [qualifier(reference) for reference in references]
    for name, column in (first, second):
        if not name:
            hint = f"write {known[0]}.{spelled(first[1])} = {known[-1]}.{spelled(second[1])}"
            raise ConditionError(f"it is not clear which step '{column}' belongs to", hint)
        if name not in known:
            raise ConditionError(f"'{name}' is not one of the joined steps", did_you_mean(name, known, " ".join(known)))
    if first[0] == second[0]:
        raise ConditionError(
            f"both sides of '=' belong to '{first[0]}'", "compare a column of one step with the other's"
        )
    return Pair(first[1], second[1]) if first[0] == known[0] else Pair(second[1], first[1])

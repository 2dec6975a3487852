"""Our dialect of sqlglot: texts to sqlglot's nodes, and what it cannot read as our errors.

Functions are parsed as they are written (no dialect's renaming or argument juggling), so that our own table alone says
what a name means. Import this module lazily: sqlglot costs about 0.2 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.parser import Parser as SqlglotParser
from sqlglot.tokenizer_core import Token, TokenType

from penstock.operators.expressions.problems import ExpressionError

#: A text longer than this, or nested deeper, is refused before any recursion sees it.
MAX_CHARACTERS = 500_000
MAX_BRACKETS = 32


class Penstock(Dialect):
    """Standard SQL with every function left as written."""

    NULL_ORDERING = "nulls_are_last"

    class Parser(SqlglotParser):
        FUNCTIONS: ClassVar[dict[str, Callable[..., Any]]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Callable[..., Any]]] = {
            name: SqlglotParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT")
        }
        FUNC_TOKENS: ClassVar[set[TokenType]] = {*SqlglotParser.FUNC_TOKENS, TokenType.DIV}
        NO_PAREN_FUNCTIONS: ClassVar[dict[TokenType, type[exp.Expr]]] = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Callable[..., Any]]] = {
            "CASE": SqlglotParser.NO_PAREN_FUNCTION_PARSERS["CASE"]
        }


#: What other languages write, and what is written here.
SPELLINGS = {
    "&&": "write `and`",
    "`": "names stand in double quotes",
    "~": "use regexp_like(text, 'pattern')",
    "as": "names (`as`) go into `columns` only",
}


def tokens_of(text: str) -> list[Token]:
    """Tokenise, and refuse what sqlglot would let pass or choke on: stray commas, unclosed quotes, deep nesting."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(
            "EXPR004", f"the expression has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}",
            "join with a table of the values instead",
        )  # fmt: skip
    try:
        tokens: list[Token] = Penstock().tokenize(text)
    except TokenError as error:
        raise _unclosed(text) from error
    if not tokens:
        raise ExpressionError("EXPR001", "the expression is empty", "write a column or a condition")
    opened: list[Token] = []
    previous: Token | None = None
    for token in tokens:
        kind = token.token_type
        if kind in (TokenType.L_PAREN, TokenType.L_BRACKET):
            opened.append(token)
            if len(opened) > MAX_BRACKETS:
                raise ExpressionError(
                    "EXPR004", f"brackets are nested more than {MAX_BRACKETS} deep",
                    "compute the inner part in a `derive` step first", text, token.start,
                )  # fmt: skip
        elif kind in (TokenType.R_PAREN, TokenType.R_BRACKET):
            if not opened:
                raise ExpressionError("EXPR001", f"'{token.text}' closes nothing", "remove it", text, token.start)
            opened.pop()
        elif kind in (TokenType.L_BRACE, TokenType.SEMICOLON):
            raise ExpressionError("EXPR001", f"unexpected '{token.text}'", "", text, token.start)
        stray_before = previous is None or previous.token_type in (
            TokenType.COMMA, TokenType.L_PAREN, TokenType.L_BRACKET,
        )  # fmt: skip
        if kind is TokenType.COMMA and stray_before:
            raise ExpressionError("EXPR001", "unexpected ','", "remove it", text, token.start)
        closes = kind in (TokenType.R_PAREN, TokenType.R_BRACKET)
        if closes and previous is not None and previous.token_type is TokenType.COMMA:
            raise ExpressionError("EXPR001", "unexpected ','", "remove it", text, previous.start)
        if kind is TokenType.NUMBER and previous is not None and previous.end + 1 == token.start and (
            previous.token_type in (TokenType.VAR, TokenType.NUMBER)
        ):  # fmt: skip
            raise ExpressionError("EXPR001", f"unexpected '{token.text}'", "", text, token.start)
        if kind is TokenType.VAR and previous is not None and previous.token_type is TokenType.NUMBER and (
            previous.end + 1 == token.start
        ):  # fmt: skip
            written = text[previous.start : token.end + 1]
            raise ExpressionError(
                "EXPR001", f"'{written}' is not a number",
                "numbers are digits with at most one point, e.g. 1000 or 1.5e3", text, previous.start,
            )  # fmt: skip
        previous = token
    if opened:
        missing = {TokenType.L_PAREN: ")", TokenType.L_BRACKET: "]"}[opened[-1].token_type]
        raise ExpressionError(
            "EXPR001", f"'{opened[-1].text}' is never closed", f"add the missing '{missing}'", text, opened[-1].start
        )
    if previous is not None and previous.token_type is TokenType.COMMA:
        raise ExpressionError("EXPR001", "unexpected ','", "remove it", text, previous.start)
    return tokens


def _unclosed(text: str) -> ExpressionError:
    """The error for a quote (or comment) that never ends: its opening position, found by a scan of our own."""
    at = 0
    while at < len(text):
        if text[at] in "'\"":
            quote, end = text[at], at + 1
            while end < len(text):
                if text[end] == quote:
                    if text[end + 1 : end + 2] != quote:
                        break
                    end += 1
                end += 1
            else:
                return ExpressionError("EXPR001", f"the quote {quote} is never closed", f"add {quote}", text, at)
            at = end + 1
        elif text.startswith("/*", at) and "*/" not in text[at + 2 :]:
            return ExpressionError("EXPR001", "the comment is never closed", "add */", text, at)
        else:
            at += 1
    return ExpressionError("EXPR001", "the expression cannot be read", "", text, 0)


def parsed(text: str, method: Callable[[Any], Any]) -> Any:
    """Run one of sqlglot's parsing methods over the text; what it cannot read becomes an `ExpressionError`."""
    tokens = tokens_of(text)
    try:
        found = Penstock().parser()._parse(method, tokens, text)
    except RecursionError as error:
        raise too_deep(text) from error
    except ParseError as error:
        raise _syntax(text, tokens, error) from error
    except SqlglotError as error:
        raise ExpressionError("EXPR001", "the expression cannot be read", "", text, 0) from error
    if len(found) != 1 or found[0] is None:
        raise ExpressionError("EXPR001", "the expression is empty", "write a column or a condition")
    return found[0]


def too_deep(text: str) -> ExpressionError:
    return ExpressionError(
        "EXPR004", "the expression is nested too deeply", "compute the inner part in a `derive` step first", text
    )


def _syntax(text: str, tokens: list[Token], error: ParseError) -> ExpressionError:
    details = error.errors[0] if error.errors else {}
    description = str(details.get("description", ""))
    line, end_column = details.get("line"), details.get("col")
    token = next((t for t in tokens if t.line == line and t.col == end_column), tokens[-1])
    last = token is tokens[-1]
    if description.startswith("Required keyword") or "No expression" in description:
        if last:
            return ExpressionError("EXPR001", f"something is missing after '{token.text}'", "", text, token.start)
        return ExpressionError("EXPR001", f"something is missing before '{token.text}'", "", text, token.start)
    if "END after CASE" in description:
        return ExpressionError("EXPR001", "`case` has no `end`", "case when a then b else c end", text, token.start)
    if "THEN" in description.upper():
        return ExpressionError("EXPR001", "`when` has no `then`", "case when a then b else c end", text, token.start)
    hint = "names stand in double quotes" if text[token.start - 1 : token.start] == "`" else ""
    if token.token_type is TokenType.STRING:
        hint = "a quote inside a string is doubled: 'it''s'"
    elif token.text in SPELLINGS:
        hint = SPELLINGS[token.text]
    elif token.text == "!":
        hint = "write `not`, or <> for 'not equal'"
    elif token.text.upper() in ("SELECT", "FROM", "WHERE"):
        hint = "write the condition or the columns alone; a whole query goes into a `sql` step"
    return ExpressionError("EXPR001", f"unexpected '{token.text}'", hint, text, token.start)

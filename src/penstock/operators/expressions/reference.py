"""The reference page, generated from the function table: `python -m penstock.operators.expressions.reference PAGE`."""
# ruff: noqa: E501 - rows of Markdown tables

from __future__ import annotations

import sys
from pathlib import Path

from penstock.operators.expressions.function_rows import STRICT
from penstock.operators.expressions.functions import FUNCTIONS, Function

INTRODUCTION = """\
# Expressions

*Generated from the function table; change `src/penstock/operators/expressions/function_rows.py`, then run
`python -m penstock.operators.expressions.reference docs/reference/expressions.md`.*

`where`, `columns`, `on` and `by` hold expressions: one subset of SQL that means the same on every engine. The table
`tests/conformance/expressions.json` fixes its edge cases.

## Values and types

A column that is only named keeps its type. Everything computed has one of these types:

| type | also written in `cast` | values |
|---|---|---|
| `bool` | boolean | true, false |
| `bigint` | int, integer, smallint, tinyint | 64 bits; results wrap. Narrower integers widen; unsigned 64-bit columns compute as the bigint of the same bits |
| `double` | float, real | 64 bits; float32 and decimal columns compute as double |
| `string` | text, varchar, str | Unicode; ordered by its UTF-8 bytes. Dictionary (categorical) columns compute as string |
| `date` | | a day |
| `timestamp` | datetime | microseconds, UTC. Columns with a zone compute as the same instant; nanoseconds are cut |
| `list(...)` | | a list of one of these |

Literals: `42` bigint, `4.2`, `.5`, `1e3` double, `'it''s'` string, `true`, `false`, `null`, `date '2024-01-31'`,
`timestamp '2024-01-31 23:59:59.5'` (also with `T`, `Z` or `+02:00`), `[1, 2]`. Names that are not identifiers stand in
double quotes: `"my column"`. Column names keep their case; keywords and functions ignore it.

## Operators, weakest first

| operator | meaning |
|---|---|
| `or`, `and`, `not` | three-valued: null is "unknown" |
| `=` `<>` `!=` `<` `<=` `>` `>=` | null if a side is null. NaN equals NaN and is greater than every number; -0.0 equals 0.0. A string never compares with a number |
| `is [not] null`, `is [not] true`, `is [not] false`, `is [not] distinct from` | never null |
| `[not] between a and b` | both ends belong to it |
| `[not] in (a, b)` | null if nothing equals and a value is null |
| `[not] like 'pattern' [escape '!']` | % any characters, _ one; case matters; nothing escapes unless `escape` says so |
| `\\|\\|` | joins strings |
| `+` `-` `*` | bigint if both sides are, else double; bigints wrap |
| `/` | always double; null if the divisor is 0 |
| `%`, `div` | remainder with the sign of the dividend; whole division towards zero; null if the divisor is 0 |
| `case when a then b else c end`, `case a when 1 then b end` | the first true branch; null without `else` |
| `cast(a as type)`, `a::type` | null where it fails. Doubles to bigint cut the fraction |
| `list[n]` | as `list_get` |

Casts of strings: whole numbers are an optional sign and digits; doubles may have a point and an exponent, or be `inf`,
`infinity`, `nan` in any case; bools are `true` and `false` in any case; dates YYYY-MM-DD; timestamps as their literals.
Spaces around them are not trimmed. Doubles become strings in their shortest form (`1.0`, `1e+16`, `1e-6`, `NaN`, `inf`).

Limits: 500,000 characters, 32 nested brackets, 200 nested operations; chains of `and`, `or`, `+`, `*`,
`||` count once, but `+`, `*` and the branches of a `case` stop at 1,000. Whether a zero that is computed is 0.0 or -0.0 is not defined.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group in dict.fromkeys(function.group for function in FUNCTIONS.values()):
        parts.append(f"\n## {group}\n")
        if group == "Aggregates":
            parts.append("One value a group, in `aggregate` and `sql`; the examples compute over x = 1, null, 4, 2.\n")
        parts.append("| function | what it gives | nulls | example |\n|---|---|---|---|")
        parts += [_row(function) for function in FUNCTIONS.values() if function.group == group]
    return "\n".join(parts) + "\n"


def _row(function: Function) -> str:
    text, result = function.example
    nulls = "null" if function.nulls == STRICT else function.nulls
    cells = (f"`{function.signature}`", function.does, nulls, f"`{text}` = `{_written(result)}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _written(value: object) -> str:
    """The value as a literal of the language."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())

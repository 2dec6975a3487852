"""Every function of the language, once: what it takes, what it gives, what nulls do, and an example that a test runs.

The check, the reference page and the hints read this table (its rows are in `function_rows.py`); each engine's
translation has one entry a name. A signature reads `name(argument type, [optional type], repeated type...) -> result`.
Types are those of `types.py`, and: `number` (bigint or double; a result `number` is double if any argument is), `time`
(date or timestamp; a date may stand for a timestamp), `any`, `T` (all arguments marked T meet in one type), `list(T)`.
A `!` asks for a literal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from penstock.operators.expressions.function_rows import ROWS, STRICT


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    optional: bool = False
    repeated: bool = False
    literal: bool = False


@dataclass(frozen=True)
class Function:
    """One row of the table. `example` is (expression, result) over no columns, or for aggregates over `x`."""

    signature: str
    does: str
    example: tuple[str, object]
    group: str
    nulls: str = STRICT

    @property
    def aggregate(self) -> bool:
        return self.group == "Aggregates"

    @cached_property
    def name(self) -> str:
        return self.signature.partition("(")[0]

    @cached_property
    def result(self) -> str:
        return self.signature.rpartition("-> ")[2]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        inside = self.signature[self.signature.index("(") + 1 : self.signature.rindex(") ->")]
        found = []
        for part in filter(None, (piece.strip() for piece in inside.split(","))):
            match = re.fullmatch(r"(\[?)(\w+) ([\w()]+)(!?)(\.\.\.)?\]?", part)
            if match is None:
                raise AssertionError(f"{self.signature}: cannot read '{part}'")
            found.append(Parameter(match[2], match[3], match[1] == "[", match[5] is not None, match[4] == "!"))
        return tuple(found)

    @property
    def least(self) -> int:
        return sum(not (p.optional or p.repeated) for p in self.parameters)

    @property
    def most(self) -> int | None:
        return None if any(p.repeated for p in self.parameters) else len(self.parameters)


UNITS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
EPOCH_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
#: The codes of strftime and strptime: those that mean the same, with the same width, in every engine.
TIME_CODES = "YmdHMSfjy%"

FUNCTIONS: dict[str, Function] = {
    (found := Function(row[0], row[1], (row[2], row[3]), group, row[4] if len(row) > 4 else STRICT)).name: found
    for group, rows in ROWS.items()
    for row in rows
}
AGGREGATES = frozenset(name for name, function in FUNCTIONS.items() if function.aggregate)

#: What people write who come from elsewhere, and what it is called here.
KNOWN_ELSEWHERE = {
    "nvl": "coalesce", "len": "length", "char_length": "length", "substring": "substr", "mean": "avg", "average": "avg",
    "log": "ln", "pow": "power", "ceiling": "ceil", "instr": "strpos", "position": "strpos", "std": "stddev",
    "var": "variance", "truncate": "trunc", "iff": "if", "to_timestamp": "strptime", "to_date": "strptime",
    "date_format": "strftime", "datediff": "date_diff", "dateadd": "date_add", "dow": "weekday", "dayofweek": "weekday",
    "dayofyear": "day_of_year", "doy": "day_of_year", "size": "list_length", "array_length": "list_length",
    "array_contains": "list_contains", "rlike": "regexp_like", "regexp_matches": "regexp_like", "bool_or": "any",
    "bool_and": "every", "all": "every", "isnan": "is_nan", "nunique": "count", "startswith": "starts_with",
    "endswith": "ends_with", "from_unixtime": "from_epoch", "unix_timestamp": "epoch", "percentile": "quantile",
    "lcase": "lower", "ucase": "upper", "countif": "count_if", "isnull": "ifnull",
}  # fmt: skip

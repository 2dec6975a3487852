"""What is wrong with arguments that must be written out: units, formats, patterns, positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from penstock.errors import did_you_mean
from penstock.operators.expressions.functions import EPOCH_UNITS, TIME_CODES, UNITS
from penstock.operators.expressions.tree import Call, Literal

#: (message, position, hint)
Finding = tuple[str, int, str]


def constant_faults(call: Call) -> list[Finding]:
    """Every finding about the literal arguments of a call whose arguments already have the right number and types."""
    rule = RULES.get(call.name)
    if rule is None:
        return []
    literals = [arg if isinstance(arg, Literal) else None for arg in call.args]
    return list(rule(literals))


Arguments = list[Literal | None]


def _unit(at: int, known: tuple[str, ...]) -> Callable[[Arguments], Iterator[Finding]]:
    def rule(args: Arguments) -> Iterator[Finding]:
        arg = args[at] if at < len(args) else None
        if arg is not None and arg.value not in known:
            hint = did_you_mean(str(arg.value), known, f"units: {', '.join(known)}")
            yield f"there is no unit '{arg.value}'", arg.at, hint

    return rule


def _whole(at: int, least: int, most: int, what: str) -> Callable[[Arguments], Iterator[Finding]]:
    def rule(args: Arguments) -> Iterator[Finding]:
        arg = args[at] if at < len(args) else None
        if arg is not None and not (isinstance(arg.value, int) and least <= arg.value <= most):
            yield f"{what} must lie between {least} and {most}, not {arg.value}", arg.at, ""

    return rule


def _pad(args: Arguments) -> Iterator[Finding]:
    yield from _whole(1, 0, 100_000, "the width")(args)
    fill = args[2] if len(args) > 2 else None
    if fill is not None and len(str(fill.value)) != 1:
        yield f"the fill must be one character, not '{fill.value}'", fill.at, ""


def _separator(at: int) -> Callable[[Arguments], Iterator[Finding]]:
    def rule(args: Arguments) -> Iterator[Finding]:
        arg = args[at]
        if arg is not None and arg.value == "":
            yield "the separator must not be empty", arg.at, "substr(a, n, 1) gives single characters"

    return rule


def _split_part(args: Arguments) -> Iterator[Finding]:
    yield from _separator(1)(args)
    n = args[2]
    if n is not None and n.value == 0:
        yield "pieces are numbered from 1 (or -1 from the end)", n.at, ""


def _regex(args: Arguments) -> Iterator[Finding]:
    pattern = args[1]
    if pattern is None:
        return
    groups = regex_groups(str(pattern.value))
    if isinstance(groups, str):
        hint = "the syntax is Rust's: no look-around, no back-references"
        yield f"the regular expression is wrong: {groups}", pattern.at, hint


def _regex_extract(args: Arguments) -> Iterator[Finding]:
    found = list(_regex(args))
    yield from found
    group = args[2] if len(args) > 2 else None
    if found or group is None or args[1] is None:
        return
    groups = regex_groups(str(args[1].value))
    if isinstance(groups, int) and not (isinstance(group.value, int) and 0 <= group.value <= groups):
        yield f"the pattern has {groups} group{'s' if groups != 1 else ''}, not {group.value}", group.at, ""


@lru_cache(maxsize=1024)
def regex_groups(pattern: str) -> int | str:
    """How many groups a pattern has, or what Rust's regex says is wrong with it."""
    import polars as pl

    try:
        pl.select(pl.lit("").str.contains(pattern, strict=True))
        # The line break ends a comment of (?x) mode; only the groups are counted here, nothing is matched.
        found = pl.select(pl.lit("").str.extract_groups(f"(?:{pattern}\n)|()"))
    except pl.exceptions.PolarsError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("error:")), lines[0])
        return reason.removeprefix("error:").strip()
    return len(found.to_series().struct.fields) - 1


def _time_format(allowed: str) -> Callable[[Arguments], Iterator[Finding]]:
    def rule(args: Arguments) -> Iterator[Finding]:
        arg = args[1]
        if arg is None:
            return
        codes = time_codes(str(arg.value))
        for code in codes:
            if code not in allowed:
                known = " ".join(f"%{c}" for c in allowed)
                yield f"the format code '%{code}' is not understood", arg.at, f"codes: {known}"
        if not codes:
            yield f"the format '{arg.value}' has no code", arg.at, "e.g. '%Y-%m-%d'"

    return rule


def time_codes(written: str) -> list[str]:
    """The characters after each %, "" for a % at the end."""
    found, at = [], 0
    while (at := written.find("%", at)) >= 0:
        found.append(written[at + 1 : at + 2])
        at += 2
    return found


def _strptime(args: Arguments) -> Iterator[Finding]:
    found = list(_time_format("YmdHMS%")(args))
    yield from found
    arg = args[1]
    if arg is None or found:
        return
    codes = time_codes(str(arg.value))
    if not {"Y", "m", "d"} <= set(codes):
        yield "the format must hold %Y, %m and %d", arg.at, "e.g. '%Y-%m-%d %H:%M:%S'"
    if repeated := sorted({code for code in codes if code != "%" and codes.count(code) > 1}):
        yield f"the format holds %{repeated[0]} twice", arg.at, ""


def _quantile(args: Arguments) -> Iterator[Finding]:
    q = args[1]
    if q is not None and not (isinstance(q.value, int | float) and 0 <= q.value <= 1):
        yield f"q must lie between 0 and 1, not {q.value}", q.at, "the median is quantile(x, 0.5)"


def _like(args: Arguments) -> Iterator[Finding]:
    pattern = args[1]
    escape = args[2] if len(args) > 2 else None
    if escape is not None and len(str(escape.value)) != 1:
        yield f"the escape must be one character, not '{escape.value}'", escape.at, ""
    elif pattern is not None and escape is not None and pattern.value is not None:
        text, mark, at = str(pattern.value), str(escape.value), 0
        while at < len(text):
            if text[at] == mark:
                if text[at + 1 : at + 2] not in ("%", "_", mark):
                    yield f"the escape '{mark}' must stand before %, _ or itself", pattern.at, ""
                    return
                at += 1
            at += 1


RULES: dict[str, Callable[[Arguments], Iterator[Finding]]] = {
    "date_trunc": _unit(0, UNITS),
    "date_add": _unit(0, UNITS),
    "date_diff": _unit(0, UNITS),
    "epoch": _unit(1, tuple(EPOCH_UNITS)),
    "from_epoch": _unit(1, tuple(EPOCH_UNITS)),
    "round": _whole(1, 0, 15, "digits"),
    "repeat": _whole(1, 0, 1000, "the count"),
    "lpad": _pad,
    "rpad": _pad,
    "split_part": _split_part,
    "split": _separator(1),
    "regexp_like": _regex,
    "regexp_extract": _regex_extract,
    "regexp_replace": _regex,
    "strftime": _time_format(TIME_CODES),
    "strptime": _strptime,
    "quantile": _quantile,
    "like": _like,
}

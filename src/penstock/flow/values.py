"""`${...}`: what a flow's values are for one run, and putting them into its strings.

Values are one flat mapping, so that they fit into a worker's spec and features files can use them too: a parameter's
name -> its text, and "run.id", "run.date" (ISO, seconds), "flow.dir". `${env.NAME}` is read where it is used;
`${secret.NAME}` stays as it stands until the worker needs it (see `operators.secrets`).
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from penstock.errors import Problem, ProblemsFound, RequestError, Severity, did_you_mean
from penstock.flow.model import Flow, Param
from penstock.operators.secrets import PREFIX, secret_names

PARAM_TYPES = ("path", "string", "int", "float", "bool", "date")
_REFERENCE = re.compile(r"\$\$\{secret\.|\$\$\{|\$\{([^{}]*)\}?")
_DATE = re.compile(r"run\.date(?:([+-])(\d{1,6})([dh]))?")


class ValueFault(Exception):
    """What is wrong with one `${...}`; the caller knows where it stands."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


# --- putting values into text -------------------------------------------------------------------------------


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """`text` with every `${...}` replaced, `$${` meaning `${`. Raises `ValueFault`."""
    if "${" not in text:
        return text
    return _REFERENCE.sub(lambda match: _replacement(match, values), text)


def expand(text: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """As `interpolate` for a path, where a range of dates gives one text a step. Raises `ValueFault`."""
    for match in _REFERENCE.finditer(text):
        name = match[1]
        if name is not None and match[0].endswith("}") and ".." in name:
            before, after = text[: match.start()], text[match.end() :]
            return tuple(
                before_text + when + after_text
                for before_text in expand(before, values)
                for when in _range(name, values)
                for after_text in expand(after, values)
            )
    return (interpolate(text, values),)


def faults(text: str, values: Mapping[str, str], ranges: bool = False) -> list[ValueFault]:
    """What is wrong with each `${...}` of `text`, in order. `ranges`: whether a range of dates may stand there."""
    found = []
    for match in _REFERENCE.finditer(text):
        try:
            (expand if ranges else interpolate)(match[0], values)
        except ValueFault as fault:
            found.append(fault)
    return found


class StandIn(str):
    """The value of a parameter that has a problem: of the right type, so that nothing else fails for it."""

    __slots__ = ()


def rests_on_stand_in(text: str, values: Mapping[str, str]) -> bool:
    """Whether what `text` becomes is not to be trusted, because a parameter in it has a problem already."""
    if "${" not in text:
        return False
    names = (m[1].strip() for m in _REFERENCE.finditer(text) if m[1] is not None)
    return any(isinstance(values.get(name), StandIn) for name in names)


def has_range(text: str) -> bool:
    """Whether `expand` would look for more than one text."""
    return "${" in text and any(m[1] is not None and ".." in m[1] for m in _REFERENCE.finditer(text))


def _replacement(match: re.Match[str], values: Mapping[str, str]) -> str:
    whole, name = match[0], match[1]
    if name is None:  # $${secret. stays escaped until `reveal`; any other $${ is a literal ${
        return whole if whole == "$${secret." else "${"
    if not whole.endswith("}"):
        raise ValueFault("FLOW021", f"'{whole}' is never closed", "close it with '}'; a literal is written $${")
    name = name.strip()
    if name.startswith("secret.") and secret_names(f"${{{name}}}"):
        return f"${{{name}}}"
    if name.startswith("env.") and name != "env.":
        return _environment(name[4:])
    if ".." in name:
        raise ValueFault("FLOW028", f"'{whole}' is a range, which only the path of an input can hold")
    if name.startswith("run.date"):
        return _date(name, values)
    if name in values:
        return values[name]
    raise unknown(name, values)


def unknown(name: str, values: Mapping[str, str]) -> ValueFault:
    known = [*values, "run.date", "run.id", "flow.dir"]
    if not name:
        return ValueFault("FLOW021", "'${}' names nothing", "write ${name}; a literal is written $${")
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        hint = (
            "inside stands a parameter, run.date, run.id, flow.dir, env.NAME or secret.NAME; a literal is written $${"
        )
        return ValueFault("FLOW021", f"'${{{name}}}' cannot be understood", hint)
    otherwise = f'declare it: <param name="{name}" .../>' if "." not in name else "a literal is written $${"
    return ValueFault("FLOW020", f"there is no parameter '{name}'", did_you_mean(name, known, otherwise))


def _environment(name: str) -> str:
    if name not in os.environ:
        raise ValueFault("FLOW026", f"the environment variable '{name}' is not set", f"export {name}=...")
    return os.environ[name]


def _date(name: str, values: Mapping[str, str]) -> str:
    moment, _, layout = name.partition(":")
    return _moment(moment.strip(), name, values).strftime(layout or "%Y-%m-%d")


def _moment(text: str, name: str, values: Mapping[str, str]) -> datetime:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueFault(
            "FLOW021",
            f"'${{{name}}}' cannot be understood",
            "write ${run.date}, ${run.date-1d}, ${run.date-3h:%Y%m%d%H} or ${run.date-6d..run.date:%Y%m%d}",
        )
    when = datetime.fromisoformat(values["run.date"])
    if match[1] is None:
        return when
    count = int(match[2]) * (1 if match[1] == "+" else -1)
    try:
        return when + (timedelta(days=count) if match[3] == "d" else timedelta(hours=count))
    except OverflowError:
        raise ValueFault("FLOW021", f"'${{{name}}}' is a date that no calendar has") from None


def _range(name: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """The distinct texts from first to last, an hour apart where an offset or the layout has hours, else a day."""
    span, _, layout = name.partition(":")
    first_text, _, last_text = span.partition("..")
    first, last = (_moment(t.strip(), name, values) for t in (first_text, last_text))
    if first > last:
        raise ValueFault("FLOW021", f"'${{{name}}}' ends before it starts", "write the earlier date first")
    step = timedelta(hours=1) if re.search(r"\dh", span) or "%H" in layout else timedelta(days=1)
    if (last - first) / step > 100_000:
        raise ValueFault("FLOW021", f"'${{{name}}}' is a range of more than 100,000 steps")
    texts = []
    while first <= last:
        texts.append(first.strftime(layout or "%Y-%m-%d"))
        first += step
    return tuple(dict.fromkeys(texts))


# --- the values of one run ----------------------------------------------------------------------------------


def resolve(
    flow: Flow,
    set: Mapping[str, str] | None = None,
    params_file: Path | str | None = None,
    date: str | None = None,
    run_id: str = "check",
) -> dict[str, str]:
    """All values of a run. Precedence: `set`, then the file (JSON or TOML), then defaults.

    Raises `ProblemsFound` for parameters without a value, of a wrong type or unknown, `RequestError` for a bad date.
    """
    values, problems = try_resolve(flow, set, params_file, date, run_id)
    if problems:
        raise ProblemsFound(problems)
    return values


def try_resolve(
    flow: Flow,
    set: Mapping[str, str] | None = None,
    params_file: Path | str | None = None,
    date: str | None = None,
    run_id: str = "check",
) -> tuple[dict[str, str], list[Problem]]:
    """As `resolve`, but with the problems beside the values: a parameter without a good value has a stand-in."""
    given = {**_params_of_file(params_file), **(set or {})}
    values = {"run.id": run_id, "run.date": run_date(date), "flow.dir": str(flow_dir(flow))}
    problems: list[Problem] = []

    def problem(line: int, code: str, message: str, hint: str = "", severity: Severity = "error") -> None:
        problems.append(Problem(flow.file, line, code, message, hint, severity))

    for param in flow.params:
        if param.type and param.type not in PARAM_TYPES:
            hint = did_you_mean(param.type, PARAM_TYPES, f"types: {', '.join(PARAM_TYPES)}")
            problem(param.line, "FLOW022", f"parameter '{param.name}' has the unknown type '{param.type}'", hint)
        value: str = _stand_in(param)
        if param.name in given:
            # What the caller gives is taken literally: it can neither name other values nor ask for secrets.
            value = given[param.name].replace("${secret.", "$${secret.")
        elif not param.name:
            continue  # told when the file was read
        elif param.default is None:
            hint = f"give it: --set {param.name}=..."
            problem(param.line, "FLOW024", f"parameter '{param.name}' has no default and was not given", hint)
            values[param.name] = value
            continue
        else:
            try:
                resolved = interpolate(param.default, values)
                value = StandIn(resolved) if rests_on_stand_in(param.default, values) else resolved
            except ValueFault as fault:
                problem(param.line, fault.code, f"default of parameter '{param.name}': {fault.message}", fault.hint)
                values[param.name] = value
                continue
        wrong = _mismatch(value, param.type)
        if wrong:
            origin = "" if param.name in given else "the default of "
            problem(param.line, "FLOW023", f"{origin}parameter '{param.name}' is '{value}', {wrong}")
            value = _stand_in(param)
        values[param.name] = value
    known = [param.name for param in flow.params]
    for name in given:
        if name not in known:
            otherwise = f"parameters: {', '.join(known)}" if known else "this flow has no parameters"
            problem(
                flow.line, "FLOW025", f"there is no parameter '{name}' to set", did_you_mean(name, known, otherwise)
            )
    return values, problems


def flow_dir(flow: Flow) -> Path:
    """The folder that relative paths start at: the flow file's, absolute."""
    return _folder(flow.file, os.getcwd())  # noqa: PTH109  a string is what the cache wants


@cache
def _folder(file: str, working: str) -> Path:
    return Path(working, file).parent if file else Path(working)


def run_date(text: str | None) -> str:
    """`--date YYYY-MM-DD[THH]` as an ISO moment; without it now, in UTC. Raises `RequestError`."""
    if text is None:
        return datetime.now(UTC).replace(tzinfo=None, microsecond=0).isoformat()
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}(T\d{2}(:\d{2}(:\d{2})?)?)?", text):
        try:
            return datetime.fromisoformat(text).isoformat()
        except ValueError:
            pass
    raise RequestError(f"'{text}' is not a date", "write --date YYYY-MM-DD, or YYYY-MM-DDTHH for an hour", "FLOW030")


def _stand_in(param: Param) -> StandIn:
    return StandIn({"int": "1", "float": "1", "bool": "true", "date": "2000-01-01"}.get(param.type, param.name))


def _mismatch(value: str, type_: str) -> str:
    """Why a text is not of that type, or ""."""
    if type_ == "int" and not re.fullmatch(r"[+-]?\d+", value):
        return "which is not a whole number"
    if type_ == "float":
        try:
            float(value)
        except ValueError:
            return "which is not a number"
    if type_ == "bool" and value not in ("true", "false"):
        return "which is neither true nor false"
    if type_ == "date":
        try:
            date.fromisoformat(value)
        except ValueError:
            return "which is not a date (YYYY-MM-DD)"
    if type_ == "path" and not value.strip():
        return "which is no path"
    return ""


def _params_of_file(path: Path | str | None) -> dict[str, str]:
    if path is None:
        return {}
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = tomllib.loads(text) if file.lower().endswith(".toml") else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _bad_file(file, 0, f"it cannot be read: {reason}") from None
    except json.JSONDecodeError as error:
        raise _bad_file(file, error.lineno, f"the JSON cannot be read: {error.msg}, at column {error.colno}") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise _bad_file(file, 0, f"it cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _bad_file(file, 1, "it does not hold names and values")
    return {name: _given(value, name, file) for name, value in found.items()}


def _given(value: Any, name: str, file: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, str | int | float):
        return str(value)
    raise _bad_file(file, 0, f"the value of '{name}' is neither a string, a number, a date, true nor false")


def _bad_file(file: str, line: int, message: str) -> ProblemsFound:
    hint = 'a JSON object {"name": value, ...}, or a TOML file with name = value lines'
    return ProblemsFound([Problem(file, line, "FLOW029", message, hint)])


def missing_secrets(text: str) -> tuple[str, ...]:
    """The variables that must be set for the secrets in a text, and are not."""
    return tuple(PREFIX + name for name in secret_names(text) if PREFIX + name not in os.environ)

"""Finding operators: by entry point (`type=`) or by `package.module:Class` (`class=`)."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from penstock.errors import RequestError, did_you_mean
from penstock.operators.base import Operator


class UnknownOperator(RequestError):
    """No operator of that kind and type is installed."""


@cache
def installed() -> dict[tuple[str, str], EntryPoint]:
    """Every installed operator, (kind, type) -> entry point, not yet imported."""
    found = {}
    for ep in entry_points(group="penstock.operators"):
        kind, _, type_ = ep.name.partition(".")
        found[kind, type_] = ep
    return found


@cache
def operator(kind: str, type_: str) -> type[Operator]:
    """The class behind `<kind type="type_">`. Raises `UnknownOperator` with the closest name."""
    entry = installed().get((kind, type_))
    if entry is None:
        known = sorted(t for k, t in installed() if k == kind)
        other = sorted(k for k, t in installed() if t == type_)
        otherwise = f"'{type_}' is an {other[0]} type" if other else f"{kind} types: {', '.join(known)}"
        raise UnknownOperator(f"there is no {kind} type '{type_}'", did_you_mean(type_, known, otherwise))
    loaded: type[Operator] = entry.load()
    return loaded


def user_operator(path: str) -> type[Operator]:
    """The user's own class, `package.module:Class`. Raises `UnknownOperator`; the import runs the user's code."""
    module, colon, name = path.partition(":")
    if not colon or not name:
        raise UnknownOperator(f"class '{path}' is not of the form package.module:Class")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise UnknownOperator(f"cannot import '{module}': {error}", "is its folder on PYTHONPATH?") from error
    except AttributeError as error:
        raise UnknownOperator(f"module '{module}' has no class '{name}'") from error
    if not (isinstance(found, type) and issubclass(found, Operator)):
        raise UnknownOperator(f"'{path}' is not an operator", "subclass penstock.operators.Input, Process or Output")
    return found

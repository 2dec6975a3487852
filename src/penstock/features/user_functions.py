"""The user's own functions, compiled to machine code and called by the kernel through an address.

`fn="package.module:function"` names a function of one to four f64 (NaN stands for null) or u64 keys. The plan keeps the
name and the SHA-256 of the source, never the source: loading it where the import differs fails and says which.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, cast

from penstock.errors import DataError

Takes = Literal["f64", "u64"]

MAX_ARGUMENTS = 4


class UserFunctionError(DataError):
    """A user function that cannot be imported, or is not the one a plan was made with."""


@dataclass(frozen=True)
class UserFunction:
    """An imported function of `arity` arguments. `takes` is what it maps to itself; `sha256` that of its source."""

    path: str
    takes: Takes
    arity: int
    sha256: str
    call: Callable[..., Any]


def find(path: str, takes: str = "") -> UserFunction:
    """Import `package.module:function`; the import runs the user's code.

    `takes` says f64 or u64; without it the annotations of its parameters do (`int` is u64), else it is f64.
    """
    module, _, name = path.partition(":")
    try:
        call = getattr(import_module(module), name)
    except AttributeError:
        raise UserFunctionError(f"module '{module}' has no function '{name}'", code="FEAT024") from None
    except Exception as error:  # the module is the user's: whatever it raises is about this function
        hint = "is its folder on PYTHONPATH?" if isinstance(error, ImportError) else ""
        raise UserFunctionError(f"cannot import '{module}': {error}", hint, "FEAT024") from None
    call = getattr(call, "py_func", call)  # a function under numba's own decorator
    if not inspect.isfunction(call):
        raise UserFunctionError(f"'{path}' is not a plain Python function", code="FEAT024")
    parameters = list(inspect.signature(call).parameters.values())
    if not 1 <= len(parameters) <= MAX_ARGUMENTS:
        said = f"'{path}' takes {len(parameters)} arguments; a feature function takes 1 to {MAX_ARGUMENTS} numbers"
        raise UserFunctionError(said, code="FEAT024")
    try:
        source = textwrap.dedent(inspect.getsource(call))
    except OSError as error:
        raise UserFunctionError(f"the source of '{path}' cannot be read: {error}", code="FEAT024") from None
    annotated: Takes = "u64" if all(p.annotation in (int, "int") for p in parameters) else "f64"
    chosen: Takes = annotated if not takes else ("u64" if takes == "u64" else "f64")
    return UserFunction(path, chosen, len(parameters), hashlib.sha256(source.encode()).hexdigest(), call)


def addresses(functions: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """The machine code of every function of a plan. Raises `UserFunctionError` where the source is another."""
    found = {}
    for path, stored in functions.items():
        function = find(path, stored["takes"])
        if function.sha256 != stored["sha256"]:
            raise UserFunctionError(
                f"'{path}' is not the function the plan was made with: its source differs",
                "install the version that the model was trained with, or train again",
                "FEAT024",
            )
        found[path] = compiled(path, function.takes, function.arity, function.sha256)
    return found


@cache
def compiled(path: str, takes: Takes, arity: int, sha256: str) -> int:
    """The address of the function as C code. Kept for the life of the process: the kernel calls it without Python."""
    try:
        import numba
    except ImportError:
        raise UserFunctionError(
            f"'{path}' needs numba, which is not installed", "pip install 'penstock[local]'", "FEAT024"
        ) from None
    type_ = "float64" if takes == "f64" else "uint64"
    signature = f"{type_}({', '.join([type_] * arity)})"
    try:
        function = numba.cfunc(signature)(find(path, takes).call)
    except Exception as error:  # numba's many error classes share no base but Exception
        first = str(error).strip().splitlines()[0]
        raise UserFunctionError(f"'{path}' cannot be compiled as {signature}: {first}", code="FEAT024") from None
    _kept.append(function)
    return cast("int", function.address)


_kept: list[Any] = []  # numba frees the machine code of a cfunc that nobody holds

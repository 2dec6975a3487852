"""Turning what Polars, Arrow and the system throw into an error that names the step and says what next.

Our own errors pass through untouched, and so does the user's ctrl-C. What remains is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import DataError, PenstockError

#: Where installed code lies, ours included.
_INSTALLED = (f"{sys.prefix}/lib", f"{sys.base_prefix}/lib", str(Path(__file__).resolve().parents[1]))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors of the data or the system inside become `PenstockError`s about `what` ("step 'kept'")."""
    import polars as pl
    import pyarrow as pa

    try:
        yield
    except PenstockError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException) as error:
        raise _said(what, error) from error
    except MemoryError as error:
        raise _memory(what) from error
    except OSError as error:
        raise _system(what, error) from error


@contextmanager
def user_code(step: str, cls: str) -> Iterator[None]:
    """Around an operator that the user wrote: whatever it raises names its class, and the line that raised."""
    try:
        yield
    except PenstockError:
        raise
    except MemoryError as error:
        raise _memory(f"step '{step}'") from error
    except Exception as error:
        raise raised(step, cls, error) from error


def told_by_user_code(error: Exception, user_steps: Mapping[str, str]) -> PenstockError | None:
    """The error of a user operator's own function that ran inside an execution; None where it came from elsewhere."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    near: tuple[int, str] | None = None
    for cls in user_steps:
        module, _, name = cls.partition(":")
        file = getattr(sys.modules.get(module), "__file__", None)
        for code in codes:
            if file == code.co_filename:
                near = max(near or (0, cls), (2 if code.co_qualname.startswith(f"{name}.") else 1, cls))
    return raised(user_steps[near[1]], near[1], error) if near else None


def raised(step: str, cls: str, error: Exception) -> PenstockError:
    frames = traceback.extract_tb(error.__traceback__)
    # The innermost line of the user's own files tells more than one deep inside a library that they called.
    theirs = [f for f in frames if not f.filename.startswith((*_INSTALLED, "<"))]
    last = (theirs or frames)[-1]
    where = f" ({Path(last.filename).name}:{last.lineno})"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = f"the fault is in {cls}; the node's log has the whole traceback"
    return PenstockError(f"step '{step}' failed: {said}{where}", hint, "RUN103")


def _said(what: str, error: BaseException) -> PenstockError:
    text = str(error)
    if "No space left on device" in text:
        return _disk(what)
    if any(sign in text for sign in ("out of memory", "memory allocation", "capacity overflow")):
        return _memory(what)
    if isinstance(error, OSError):  # Arrow's errors of the file system are both
        return _system(what, error)
    return DataError(f"{what} failed: {_first_lines(text)}", code="RUN102")


def _first_lines(text: str) -> str:
    """Polars adds the query plan after a blank line: that helps us, not the user."""
    return " ".join(line.strip() for line in text.split("\n\n")[0].splitlines() if line.strip())


def _memory(what: str) -> PenstockError:
    hint = "give the node more memory, or let it hold less: docs/local-engine.md lists the steps that need memory"
    return PenstockError(f"{what} ran out of memory", hint, "RUN104")


def _disk(what: str) -> PenstockError:
    hint = "free some space and run again with --resume; the old outputs still stand"
    return PenstockError(f"{what} failed: no space left on the disk", hint, "RUN105")


def _system(what: str, error: OSError) -> PenstockError:
    if error.errno == errno.ENOSPC or "No space left on device" in str(error):
        return _disk(what)
    file = f": {error.filename}" if error.filename else ""
    return PenstockError(f"{what} failed: {error.strerror or error}{file}", code="RUN106")

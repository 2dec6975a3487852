"""A user's own optimizer or eviction policy: a function in Python, compiled by numba, called for a batch of rows.

```python
def row_wise_adagrad(n, rows, state, grads, context):
    here = numba.carray(context, 1)[0]
    for i in range(n):
        row, sums = rows[i], state[i]
        mean = np.float32(0)
        for j in range(here.dim):
            mean += grads[i * here.dim + j] ** 2
        sums[0] += mean / np.float32(here.dim)
        rate = here.learning_rate / (np.sqrt(sums[0]) + np.float32(1e-8))
        for j in range(here.dim):
            row[j] -= rate * grads[i * here.dim + j]

Table("users", 16, optimizer(row_wise_adagrad, state=1))
```

Rows come as pointers, each to `dim` float32 of values and `state_len` of state; gradients, summed a key, lie one after
another. Numbers are float32: write `np.float32(...)` around constants, or numba computes in float64. A function may be
called from several threads at once, each with rows of its own, and the order of rows means nothing. Needs numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from penstock.errors import RequestError
from penstock.training.tables import UserOptimizer

#: What a function is told: the row's width and its state's, the rate, the table's number of updates so far, from 1.
CONTEXT = np.dtype(
    [
        ("dim", np.int64),
        ("state_len", np.int64),
        ("learning_rate", np.float32),
        ("reserved", np.uint32),
        ("update", np.uint64),
        ("user", np.uint64),
    ],
    align=True,
)


def optimizer(step: Callable[..., None], *, state: int = 0, initial: float = 0.0) -> UserOptimizer:
    """An optimizer whose `step(n, rows, state, grads, context)` moves each row by its gradient.

    state: floats a row, `initial` at first. A checkpoint keeps the state; that it is read by the same function is the
    user's to know. Raises `RequestError` where numba is not installed or does not compile the function.
    """
    return UserOptimizer(compiled(step), state, initial)


def policy(judge: Callable[..., None]) -> Any:
    """An eviction policy for `Eviction(policy=...)`: `judge(n, rows, state, facts, context)` is asked by sweeps.

    facts: four floats a row, count, seconds since it was last seen, score and 0; write 1 into the fourth to drop it.
    """
    return compiled(judge)


def compiled(function: Callable[..., None]) -> Any:
    """The function as machine code: a numba cfunc, whose `address` the native side calls."""
    if hasattr(function, "address"):
        return function
    if find_spec("numba") is None:
        raise RequestError(
            "a user's own optimizer needs numba, which is not installed", "pip install 'penstock[local]'"
        )
    import numba

    try:
        # Sums may be taken in any order: without it a sum over a row is one addition after the other.
        return numba.cfunc(signature(), fastmath={"reassoc", "contract"})(function)
    except numba.core.errors.NumbaError as error:
        first = str(error).strip().splitlines()
        hint = "it may use numbers, loops and numpy's functions of numbers: numba.readthedocs.io lists what it knows"
        raise RequestError(f"numba does not compile '{function.__name__}': {' '.join(first[:3])}", hint) from None


@cache
def signature() -> Any:
    """Of `UserCall` in crates/penstock-table/src/optimizers/user.rs."""
    from numba import from_dtype, types

    pointer: Any = types.CPointer
    rows, context = pointer(pointer(types.float32)), pointer(from_dtype(CONTEXT))
    return types.void(types.int64, rows, rows, pointer(types.float32), context)

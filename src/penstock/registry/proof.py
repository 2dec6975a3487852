"""The proof: what would be served scores the same rows as the original, awkward ones too, or there is no version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock import native
from penstock.registry.converting import rows as row_files
from penstock.registry.converting.original import Original
from penstock.registry.converting.request import ABSOLUTE, RELATIVE, Request
from penstock.registry.converting.tensors import Feed, Tensor, rows_of, take
from penstock.registry.faults import ConversionError, ProofError
from penstock.registry.runtime import onnxruntime_library

#: Rows scored in one go.
BLOCK = 4_096


def served(folder: Path) -> Callable[[Feed], Feed]:
    """The bundle in `folder` as the host scores it, by the host's own code: arrays by input's name in, by output's out.

    What comes back raises ValueError for rows that the host refuses.
    """
    model = native.ServedModel(str(folder), str(onnxruntime_library() or ""))

    def score(feed: Feed) -> Feed:
        given = [(name, list(values.shape), pa.array(values.reshape(-1))) for name, values in feed.items()]
        answers = model.predict(given)
        return {name: data.to_numpy(zero_copy_only=False).reshape(shape) for name, shape, data in answers}

    return score


def prove(original: Original, folder: Path, feed: Feed, inputs: Sequence[Tensor], request: Request) -> dict[str, Any]:
    """Score and compare. Raises `ProofError` (REG020) naming the first row that differs too much, `ConversionError`
    (REG016) where the original itself does not score the rows that were given.

    With `unproven` the differences are recorded and nothing is refused.
    """
    score = served(folder)
    bound = (request.tolerance, 0.0) if request.tolerance else (ABSOLUTE, RELATIVE)
    found = _Found(bound, request.unproven)
    for start in range(0, rows_of(feed), BLOCK):
        part = take(feed, slice(start, start + BLOCK))
        try:
            wanted = original.scores(part)
        except Exception as error:  # whatever its library raises
            said = " ".join(str(error).split())[:300]
            raise ConversionError(f"the original does not score the rows: {said}", code="REG016") from error
        try:
            given = score(_cast(part, inputs))
        except ValueError as error:
            raise ProofError(f"the host refuses the rows: {error}", code="REG020") from error
        for name, values in wanted.items():
            found.compare(name, values, given[name], partial(_given_row, start))
    refused = refused_by_host = 0
    for what, row in row_files.awkward(feed, inputs):
        try:
            wanted = original.scores(row)
            cast = _cast(row, inputs)
        except Exception:  # the original, or the wire, has no place for such a row
            refused += 1
            continue
        try:
            given = score(cast)
        except ValueError:  # an error is no wrong score
            refused_by_host += 1
            continue
        for name, values in wanted.items():
            found.compare(name, values, given[name], partial(_added_row, what))
        found.added += 1
    return {
        "rows": rows_of(feed),
        "added": found.added,
        "refused_by_original": refused,
        "refused_by_host": refused_by_host,
        "largest_difference": found.largest,
        "tolerance": f"{bound[0]:g} + {bound[1]:g} x |score|",
        **({"unproven": True, "beyond_tolerance": found.beyond} if request.unproven else {}),
    }


class _Found:
    """What the comparison has seen so far."""

    def __init__(self, bound: tuple[float, float], lenient: bool) -> None:
        self.bound, self.lenient = bound, lenient
        self.largest, self.added, self.beyond = 0.0, 0, 0

    def compare(
        self, output: str, wanted: npt.NDArray[Any], given: npt.NDArray[Any], name: Callable[[int], str]
    ) -> None:
        if wanted.shape != given.shape:
            said = f"output '{output}' has the shape {list(given.shape)}, the original's is {list(wanted.shape)}"
            raise ProofError(said, code="REG020")
        a, b = (values.reshape(len(values), -1) for values in (wanted, given))
        if a.dtype.kind not in "fiub":
            wrong = (a != b).any(axis=1)
            difference = wrong.astype(np.float64)[:, None]
        else:
            a, b = a.astype(np.float64), b.astype(np.float64)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            with np.errstate(invalid="ignore"):
                difference = np.where(same, 0.0, np.abs(a - b))
                wrong = ~(same | (difference <= self.bound[0] + self.bound[1] * np.abs(a))).all(axis=1)
        finite = difference[np.isfinite(difference)]
        self.largest = max(self.largest, float(finite.max(initial=0.0)))
        self.beyond += int(wrong.sum())
        if wrong.any() and not self.lenient:
            row = int(np.flatnonzero(wrong)[0])
            raise ProofError(
                f"{name(row)}: the original's {output} is {_shown(a[row])}, the served one would be {_shown(b[row])}",
                "--tolerance allows more, --unproven all; both are recorded in the version",
                "REG020",
            )


def _given_row(start: int, row: int) -> str:
    return f"row {start + row}"


def _added_row(what: str, _: int) -> str:
    return f"the added row '{what}'"


def _cast(feed: Feed, inputs: Sequence[Tensor]) -> Feed:
    return {tensor.name: tensor.cast(feed[tensor.name]) for tensor in inputs}


def _shown(values: npt.NDArray[Any]) -> str:
    shown = [f"{v:.7g}" if isinstance(v, float | np.floating) else str(v) for v in values[:4]]
    return shown[0] if len(values) == 1 else f"[{', '.join(shown)}{', ...' if len(values) > 4 else ''}]"

"""Served features against their offline recomputation: which columns differ, for how many rows, and likely why.

In: lines of a host's sample log (`docs/serving.md`), each with the values that were served and, of each view, how far
into its source the store was and as of when the row is. A value is worked out again twice: from the events that the
store had (`at position`: on our own path nothing differs), and from all events known today, as a training set has them.
"""

from __future__ import annotations

import bisect
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from penstock import native
from penstock.errors import DataError
from penstock.features.views import sources
from penstock.features.views.faults import told
from penstock.features.views.model import ARROW, View

Cause = Literal["late data", "ttl", "code"]
EXAMPLES = 3
Row = Mapping[str, Any]


@dataclass
class Compared:
    """A column. `differ`: rows whose value is not what training would have; `causes`: these by likely cause."""

    view: str
    column: str
    rows: int = 0
    differ: int = 0
    differ_at_position: int = 0
    causes: dict[Cause, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.differ / self.rows if self.rows else 0.0

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True)
class _Served:
    """A logged row of one view."""

    features: Row
    at: Mapping[str, int]
    as_of_us: int


def lines_of(path: Path, most: int = 1_000_000) -> Iterator[dict[str, Any]]:
    """The first lines of a sample log. Raises `DataError` VIEW030 for one that is no JSON object."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if number > most:
                return
            try:
                row = json.loads(line)
                row["features"]
            except (ValueError, TypeError, KeyError) as error:
                said = f"{path}:{number} is no line of a sample log: {error}"
                raise DataError(said, "[samples] in the serving configuration writes one", "VIEW030") from None
            yield row


def compare(
    views: Sequence[View], lines: Iterable[Mapping[str, Any]], orders: Mapping[str, Sequence[str]] | None = None
) -> list[Compared]:
    """Each column of the views that was served, in declared order. Rows are held in memory.

    `orders`: view -> its files in the order in which the store read them (`sources.read_files`); else by their names.
    """
    served: dict[str, list[_Served]] = {view.name: [] for view in views}
    for line in lines:
        for name, note in line.get("views", {}).items():
            if name in served:
                served[name].append(_Served(line["features"], note["at"], note["as_of_us"]))
    return [column for view in views for column in _view(view, served[view.name], (orders or {}).get(view.name, ()))]


def _view(view: View, served: Sequence[_Served], order: Sequence[str]) -> list[Compared]:
    if not served:
        return []
    columns = {name: Compared(view.name, name) for name in view.outputs if any(name in s.features for s in served)}
    today = _recomputed(view, served, order, at_position=False)
    then = _recomputed(view, served, order, at_position=True)
    ageless = _recomputed(replace(view, ttl_us=None), served, order, at_position=True) if view.ttl_us else then
    for row, offline, known, old in zip(served, today, then, ageless, strict=True):
        for name, column in columns.items():
            if name not in row.features:
                continue
            value = row.features[name]
            column.rows += 1
            column.differ_at_position += value != known[name]
            if value == offline[name]:
                continue
            column.differ += 1
            cause = _cause(view, row.features, columns, known, old)
            column.causes[cause] = column.causes.get(cause, 0) + 1
            if len(column.examples) < EXAMPLES:
                key = {key: row.features.get(key) for key, _ in view.entity.keys}
                column.examples.append(
                    {**key, "as_of_us": row.as_of_us, "served": value, "offline": offline[name], "cause": cause}
                )
    return list(columns.values())


def _cause(view: View, served: Row, columns: Iterable[str], known: Row, ageless: Row) -> Cause:
    """Late data: the store had not seen the events. TTL: another one's values. Else other code made them."""
    given = [name for name in columns if name in served]
    unknown = {name: 0 if name in _counted(view) else None for name in given}
    if all(served[name] == known[name] for name in given):
        return "late data"
    if all(served[name] == ageless[name] for name in given) or all(served[n] == unknown[n] for n in given):
        return "ttl"
    return "code"


def _counted(view: View) -> set[str]:
    """Outputs that are 0 for an entity without events."""
    return {a.name for a in view.aggregates if a.function in ("count", "sum")}


def _recomputed(
    view: View, served: Sequence[_Served], files: Sequence[str], *, at_position: bool
) -> list[dict[str, Any]]:
    """The view's outputs for each row, from the events that the store had, or from all up to the row's time."""
    ranks = _Ranks(served)
    keys = [pa.array([s.features.get(name) for s in served], ARROW[kind]) for name, kind in view.entity.keys]
    times = pa.array([s.as_of_us for s in served], pa.int64())
    names = [*(name for name, _ in view.entity.keys), "\x01time"]
    asked = pa.RecordBatch.from_arrays([*keys, times], names)
    with tempfile.TemporaryDirectory(prefix="penstock-skew-") as folder, told():
        joiner = native.ViewJoiner(view.native, Path(folder) / "join")
        joiner.samples(asked, pa.array([ranks.of(s) for s in served], pa.int64()) if at_position else None)
        for part in sources.read(view, order=files):
            order = None
            if at_position:
                order = pa.array([ranks.first(part.partition, o) for o in part.offsets.to_pylist()], pa.int64())
            joiner.events(part.rows, order)
        return [row for batch in joiner.join() for row in batch.to_pylist()]


class _Ranks:
    """Positions in the order in which the store reached them. One updater moves forward: none is beside another."""

    def __init__(self, served: Sequence[_Served]) -> None:
        reached = {json.dumps(s.at, sort_keys=True): s.at for s in served}
        self.positions = sorted(reached.values(), key=lambda at: sum(at.values()))
        self.ranks = {json.dumps(at, sort_keys=True): rank for rank, at in enumerate(self.positions)}
        partitions = {name for at in self.positions for name in at}
        self.ends = {name: [at.get(name, 0) for at in self.positions] for name in partitions}

    def of(self, served: _Served) -> int:
        return self.ranks[json.dumps(served.at, sort_keys=True)]

    def first(self, partition: str, offset: int) -> int:
        """The first position that an event lies before; beyond all of them if it lies before none."""
        return (
            bisect.bisect_right(self.ends.get(partition, []), offset) if partition in self.ends else len(self.positions)
        )


def causes(compared: Iterable[Compared]) -> dict[str, int]:
    """All causes with their rows, the most frequent first."""
    total: Counter[str] = Counter()
    for column in compared:
        total.update(column.causes)
    return dict(total.most_common())

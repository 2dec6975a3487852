"""Checkpoints of embedding tables: cuts into a folder while training goes on, restored bit for bit.

A cut has the tables between two batches (rows, optimizer state, counts, sketches) and the caller's own sections
(dense weights, reader positions, generators), in one file that is either whole or not there. After the first, a cut
has only what changed since the one before it. `docs/adr/0032-checkpoints-and-snapshots.md` is the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from penstock import native
from penstock.errors import RequestError, did_you_mean
from penstock.training.artefacts import ArtefactError, fault, recorded, told
from penstock.training.table_rows import CheckpointRows, batches
from penstock.training.tables import EmbeddingTables


@dataclass(frozen=True)
class Committed:
    """A cut that lasts. `parent`: the cut it builds on, None of a full one; `rows`: how many it has itself."""

    sequence: int
    path: Path
    parent: int | None
    rows: int


class OpenCut:
    """A cut that is being written while the tables are stepped on; any thread may do it.

    Of each row that a step changes before it was written, the old row is copied, up to `copy_limit_bytes`: write often.
    A cut that is dropped is as if it had not been.
    """

    def __init__(self, cut: native.OpenCut, folder: Path) -> None:
        self._cut = cut
        self._folder = folder

    def write(self, rows: int) -> bool:
        """Write about `rows` rows more; whether all of it is written. Look-ups go on meanwhile, steps wait.

        Raises `CutGivenUp` where the copies passed their limit, `ArtefactError` for a disk that is full or gone; the
        cut is over then, and the tables are as if it had not been.
        """
        with told(self._folder):
            return self._cut.write(rows)

    def commit(self) -> Committed:
        """Write what is left, in turns with whoever steps the tables, and make it last. Raises as `write`."""
        with told(self._folder):
            sequence, file, parent, rows = self._cut.commit()
        return Committed(sequence, self._folder / file, parent, rows)

    def abort(self) -> None:
        """Leave folder and tables as if the cut had not been."""
        self._cut.abort()


class Checkpoints:
    """Cuts of one model's tables in a folder: full or incremental, each with the caller's sections.

    `plan`: the fingerprint of whatever gives keys their meaning; it is recorded, and compared when resuming.
    One process writes to a folder at a time. Raises `ArtefactError` (TRAIN037) where the folder cannot be made or read.
    """

    def __init__(self, folder: Path, tables: EmbeddingTables, *, plan: str = "") -> None:
        self.folder = Path(folder)
        self.tables = tables
        with told():
            self._native = native.Checkpoints(str(folder), tables.native, recorded(plan, list(tables.slots)))

    def prepare(
        self,
        sections: Mapping[str, bytes],
        *,
        name: str = "",
        full: bool = False,
        copy_limit_bytes: int = 1 << 30,
    ) -> OpenCut:
        """Cut the tables here, between two batches: cheap, nothing is written yet. `name` is recorded.

        The cut has what changed since the last one that was committed; all with `full`, or where there is none. Staged
        gradients are not in it. Raises `ArtefactError` (TRAIN038) while another cut is open.
        """
        given = [(section, bytes(content)) for section, content in sections.items()]
        with told(self.folder):
            return OpenCut(self._native.prepare(name, given, full, copy_limit_bytes), self.folder)

    def save(self, sections: Mapping[str, bytes], *, name: str = "", full: bool = False) -> Committed:
        """Cut, write and commit."""
        return self.prepare(sections, name=name, full=full).commit()

    def resume(self) -> dict[str, bytes] | None:
        """The newest cut's rows into the tables, which must be empty and declared as they were; returns its sections.

        None where the folder has no cut. Learning rates are the cut's; training on equals an undisturbed run bit for
        bit. Raises `ArtefactError`, and leaves the tables as they are: damage (TRAIN031, never an older cut in its
        place), another format (TRAIN032), other tables (TRAIN033) or another plan (TRAIN034), a missing parent
        (TRAIN035), tables with rows (TRAIN039).
        """
        with told(self.folder):
            return self._native.resume()

    @property
    def outweighed(self) -> bool:
        """Whether the cuts that build on the last full one weigh more than that: time for another full one, as `prune`
        cannot remove what the newest builds on."""
        return self._native.outweighed

    def prune(self) -> int:
        """Remove what neither the newest cut nor the one before it needs; returns how many files went."""
        with told(self.folder):
            return self._native.prune()


def carry(
    folder: Path,
    into: EmbeddingTables,
    names: Sequence[str] | Mapping[str, str],
    *,
    state: Literal["keep", "fresh"] = "keep",
) -> dict[str, int]:
    """Fill tables of another model with the rows, state included, of tables of the newest cut in `folder`.

    `names`: tables of one name in both, or {name there: name here}. Their dim, optimizer and type of values must be
    alike; init, admission, eviction, slots and plan may differ, and whether a key still means the same is the caller's
    to know. Learning rates stay as they are here. Returns the rows of each, by the name here.

    `state="fresh"`: rows come with their values, counts and times, and the optimizer begins anew, as with rows that it
    had just made; it and the type of values may then differ. Sightings of keys that have no row yet are forgotten.

    Raises `RequestError` for a table that is not there or here, `ArtefactError` for one that is made otherwise
    (TRAIN033), has rows already (TRAIN039), or is damaged (TRAIN031). Nothing is filled then.
    """
    pairs = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    with told(Path(folder)):
        there = [name for name, *_ in native.Checkpoint(str(folder)).tables]
    here = [table.name for table in into.tables]
    for name, known, where in [(old, there, "there") for old in pairs] + [
        (new, here, "here") for new in pairs.values()
    ]:
        if name not in known:
            hint = did_you_mean(name, known, f"the tables {where} are {', '.join(known)}")
            raise RequestError(f"there is no table '{name}' {'in ' + str(folder) if known is there else where}", hint)
    numbers = [(there.index(old), here.index(new)) for old, new in pairs.items()]
    with told(Path(folder)):
        if state == "fresh":
            rows = _carry_fresh(Path(folder), into, numbers)
        else:
            rows = native.carry(str(folder), into.native, numbers)
    return dict(zip(pairs.values(), rows, strict=True))


def _carry_fresh(folder: Path, into: EmbeddingTables, numbers: Sequence[tuple[int, int]]) -> list[int]:
    source = CheckpointRows(folder)
    filled = [here for _, here in numbers]
    for there, here in numbers:
        facts, table = source.tables[there], into.tables[here]
        if facts.dim != table.dim:
            differ = {"what": f"table '{table.name}': dim", "found": str(facts.dim), "expected": str(table.dim)}
            raise fault("mismatch", "", differ, str(folder))
        if into.rows[table.name] or filled.count(here) > 1:
            raise fault("not_empty", "", {"table": table.name}, "")
    for there, _ in numbers:
        for _ in batches(source, there):
            pass  # damage is found before the first row is put
    for there, here in numbers:
        scored = into.native.shape(here)[2]
        for rows in (batch for batch in batches(source, there) if len(batch.keys)):
            begun = np.zeros((len(rows.keys), 0), np.float32)
            assert rows.counts is not None and rows.last_seen_s is not None
            scores = rows.scores if scored else None
            into.native.put(here, rows.keys, rows.values, begun, rows.counts, rows.last_seen_s, scores)
    return [source.tables[there].rows for there, _ in numbers]


__all__ = ["ArtefactError", "Checkpoints", "Committed", "OpenCut", "carry"]

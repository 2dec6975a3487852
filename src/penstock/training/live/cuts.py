"""Checkpoints of a loop: model and positions at one cut, a folder for each generation, so that none writes another's.

FOLDER/gen-000007/00001.cut ...   what generation 7 wrote; its first cut is whole
FOLDER/gen-000007/begin.json      where a rollback made it: what it began from, and what it left out
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penstock.data.atomic import write_bytes
from penstock.registry.generations import Lease
from penstock.training.live.learners import Learner
from penstock.training.live.places import Place

FORMAT = 1
BEGIN, PLACE = "begin.json", "place.json"
#: Rows that an open cut writes after each batch.
ROWS_A_BATCH = 50_000


@dataclass(frozen=True)
class Chain:
    """The last delta that was published: `offset` of its last record, `base` (a digest) that its generation began from.

    `unpublished`: the model has learnt since. Generation 0: nothing was ever published.
    """

    generation: int = 0
    sequence: int = 0
    offset: int = -1
    base: str = ""
    unpublished: bool = False


@dataclass
class State:
    """Where a loop is beside its model. `samples`: learnt from in all; `chain`: what was published by then; `gaps`:
    records that rollbacks left out, or that could not be read any more; `types`: of raw columns."""

    places: dict[str, Place] = field(default_factory=dict)
    samples: int = 0
    chain: Chain = Chain()
    gaps: int = 0
    types: dict[str, str] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)

    def sections(self, generation: int, learner: Learner) -> dict[str, bytes]:
        document = {
            "format": FORMAT, "generation": generation, "samples": self.samples, "chain": asdict(self.chain),
            "gaps": self.gaps, "types": self.types, "gate": self.gate,
            "places": {name: place.document() for name, place in self.places.items()},
        }  # fmt: skip
        moments = np.stack([learner.means, learner.scales]).astype("<f8").tobytes()
        return {"loop": json.dumps(document).encode(), "moments": moments}

    @staticmethod
    def of(sections: Mapping[str, bytes], learner: Learner) -> State:
        stored = json.loads(sections["loop"])
        moments = np.frombuffer(sections["moments"], "<f8").reshape(2, -1)
        learner.means[:], learner.scales[:] = moments
        places = {name: Place.of(each) for name, each in stored["places"].items()}
        chain = Chain(**stored["chain"])
        return State(places, stored["samples"], chain, stored["gaps"], stored["types"], stored["gate"])


class LoopCuts:
    """The cuts of one loop. `lease` is asked before each is begun and before it lasts."""

    def __init__(self, folder: Path, lease: Lease, learner: Learner) -> None:
        self.folder, self.lease, self.learner = folder, lease, learner
        self.own = folder / f"gen-{lease.generation:06d}"
        self._open = self._older = False
        self._told = b""

    def resume(self) -> Mapping[str, bytes] | None:
        """The newest cut of the newest generation that has one, into the learner; its sections."""
        for past in self.generations():
            if past < self.own and any(past.glob("*.cut")):
                sections = self.learner.resume(past)
                self._older = True
                begin = past / BEGIN
                if sections is not None and begin.is_file():
                    return {**sections, BEGIN: begin.read_bytes()}
                return sections
        return None

    def begin(self) -> None:
        """Cuts go into this generation's own folder from now on."""
        self.own.mkdir(parents=True, exist_ok=True)
        self.learner.cut_into(self.own)

    def generations(self) -> Iterator[Path]:
        """Their folders, newest first."""
        yield from sorted(self.folder.glob("gen-??????"), reverse=True)

    def prepare(self, sections: Mapping[str, bytes]) -> None:
        """Begin a cut; one that is open is finished first."""
        self.finish()
        self.lease.check()
        self.learner.prepare(sections)
        self._open, self._told = True, sections["loop"]

    def go_on(self, rows: int = ROWS_A_BATCH) -> bool:
        """Write at the open cut; whether one has become whole."""
        if not self._open:
            return False
        self.lease.check()
        self._open = not self.learner.write(rows)
        if self._open:
            return False
        write_bytes(self.own / PLACE, self._told)
        if self._older:
            self._older = False
            self._forget()
        return True

    def finish(self) -> None:
        while self._open:
            self.go_on(1 << 62)

    def _forget(self) -> None:
        """This generation has a cut of its own: older ones are needed no more, but for the one before."""
        for past in list(self.generations())[2:]:
            shutil.rmtree(past, ignore_errors=True)


def link_cuts(source: Path, target: Path) -> None:
    """The cut files of a folder in another one too: they never change, so that a name more costs nothing."""
    staged = target.with_name(f".{target.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for file in source.glob("*.cut"):
        os.link(file, staged / file.name)
    os.rename(staged, target)  # noqa: PTH104  a folder into its place, whole


def begin_from(folder: Path, generation: int, cuts: Path, facts: Mapping[str, Any]) -> None:
    """Let the next generation begin with the cut in `cuts`. `facts`: what is told of it (`BEGIN`)."""
    target = folder / f"gen-{generation:06d}"
    link_cuts(cuts, target)
    write_bytes(target / BEGIN, json.dumps(facts).encode())


def newest_positions(folder: Path) -> dict[int, int]:
    """Where the newest cut was in the sample topic; empty where there is none."""
    for past in sorted(folder.glob("gen-??????"), reverse=True):
        if (past / PLACE).is_file():
            return Place.of(json.loads((past / PLACE).read_bytes())["places"]["samples"]).next
    return {}

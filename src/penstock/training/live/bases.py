"""Whole snapshots of a loop: a version in the registry, and beside it the cut and the positions that belong to it.

FOLDER/bases/000042/base.json    version, chain, positions, samples, whether it has proved good
FOLDER/bases/000042/*.cut        the cut it is of: what a rollback goes on from
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from penstock.data.atomic import write_bytes
from penstock.registry.generations import Lease
from penstock.registry.registry import Registry
from penstock.registry.versions import Version
from penstock.training.bundle import Bundle
from penstock.training.live.cuts import link_cuts
from penstock.training.live.learners import Learner

FACTS = "base.json"
_log = logging.getLogger("penstock.online")


@dataclass(frozen=True)
class Base:
    """A loop version. `chain`: generation and sequence that it holds; `offset`: of that delta's last record, -1 where
    nothing was published; `positions`: of the sample topic."""

    number: int
    version: str
    chain: tuple[int, int]
    offset: int
    samples: int
    positions: Mapping[str, int]
    time_ms: int
    good: bool = False

    @staticmethod
    def read(folder: Path) -> Base:
        stored = json.loads((folder / FACTS).read_bytes())
        return Base(**{**stored, "chain": tuple(stored["chain"])})

    def write(self, folder: Path) -> None:
        write_bytes(folder / FACTS, json.dumps(asdict(self)).encode())


class Bases:
    """The bases of one loop: made, judged, forgotten."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder / "bases", keep

    def all(self) -> list[Base]:
        """Oldest first."""
        folders = sorted(self.folder.glob("[0-9]*"))
        return [Base.read(folder) for folder in folders if (folder / FACTS).is_file()]

    def place(self, base: Base) -> Path:
        return self.folder / f"{base.number:06d}"

    def add(
        self,
        registry: Registry,
        name: str,
        lease: Lease,
        bundle: Bundle,
        learner: Learner,
        cuts: Path,
        facts: Mapping[str, Any],
        chain: Mapping[str, Any],
    ) -> Version:
        """Push the model as it stands as a version of `name`, and keep the cut that is of the same moment.

        `facts`: what `Base` has of the loop. `chain`: for hosts that open it (`Publishing.place`). Raises `Superseded`
        where a later generation has begun.
        """
        lease.check()
        base = Base(number=max((each.number for each in self.all()), default=0) + 1, version="", **facts)
        told = {name: facts[name] for name in ("samples", "positions", "time_ms")}
        with tempfile.TemporaryDirectory(prefix="penstock-base-") as scratch:
            (Path(scratch) / "files").mkdir()
            scorer = learner.scorer(Path(scratch) / "files")
            lineage = {**bundle.lineage, "online": {**told, "of": lease.model, "generation": lease.generation}}
            replace(bundle, scorer=scorer, lineage=lineage, chain=chain).save(Path(scratch) / "bundle")
            lease.check()
            version = registry.push(Path(scratch) / "bundle", name, notes="from the loop")
        base = replace(base, version=version.uri)
        self.folder.mkdir(parents=True, exist_ok=True)
        link_cuts(cuts, self.place(base))
        base.write(self.place(base))
        _log.info("%s is what the loop had learnt after %s samples", version.uri, f"{base.samples:,}")
        return version

    def proved(self, base: Base) -> Base:
        """Note that a base is good."""
        found = replace(base, good=True)
        found.write(self.place(base))
        return found

    def forget(self) -> list[Base]:
        """Drop all but the newest `keep` and the newest good one; returns what stays, oldest first."""
        found = self.all()
        good = [base for base in found if base.good][-1:]
        stay = [base for base in found if base in found[-self.keep :] or base in good]
        for base in found:
            if base not in stay:
                shutil.rmtree(self.place(base), ignore_errors=True)
        return stay


def now_ms() -> int:
    return int(time.time() * 1000)

"""Who may write a model that learns online: one trainer, of the highest generation, for as long as its lease lives.

A generation is taken by compare-and-set in the registry's database, and never given twice. Whatever a trainer writes
carries it: deltas, checkpoints, aliases. A trainer that was stopped and comes back finds a higher one, and is refused.

A lease alone fences nothing (its holder may sleep between a look at the clock and a write, as Kleppmann's "How to do
distributed locking", 2016, has it): it only keeps two from starting. What fences is the generation in what is written.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from penstock.errors import PenstockError
from penstock.registry.database import Database
from penstock.registry.faults import LeaseHeld, Superseded
from penstock.registry.tables import generations
from penstock.registry.versions import check_model

#: How long a trainer that says nothing keeps others out; it renews three times as often.
LEASE_S = 5.0
#: SQLite and PostgreSQL both read this.
_BEGUN = sa.text(
    "INSERT INTO generations (model, generation, owner, until) VALUES (:model, 0, '', 0) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True)
class Generation:
    """What the registry says of a model. `number` 0: nobody ever trained it online."""

    number: int
    owner: str = ""
    until: float = 0.0


def present(db: Connection, model: str) -> Generation:
    """The newest generation of a model."""
    found = db.execute(sa.select(generations).where(generations.c.model == model)).one_or_none()
    return Generation(found.generation, found.owner, found.until) if found else Generation(0)


def require(db: Connection, model: str, generation: int) -> None:
    """In the transaction of a write that carries `generation`: raise `Superseded` where a later one has begun.

    The row is locked until the transaction ends, so that none can begin in between.
    """
    locked = sa.select(generations).where(generations.c.model == model).with_for_update()
    found = db.execute(locked).one_or_none()
    if found is not None and found.generation > generation:
        raise superseded(model, generation, Generation(found.generation, found.owner, found.until))


def superseded(model: str, generation: int, by: Generation) -> Superseded:
    said = f"generation {generation} of '{model}' is over: generation {by.number} is {by.owner}'s; nothing was written"
    return Superseded(said, "this trainer is the older one, and ends; look who took over", "LIVE011")


class Lease:
    """The right to write `model` as one generation: a context manager that lets go at its end.

    Claiming raises `LeaseHeld` (LIVE010) while another's lease lives, unless `take_over`. `renew` raises `Superseded`
    (LIVE011) once a later generation has begun.
    """

    def __init__(self, database: Database, model: str, *, take_over: bool = False) -> None:
        check_model(model)
        self.database, self.model = database, model
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        #: The generation before this one, 0 for none.
        self.before = 0
        self.generation = self._claim(take_over)
        self._renewed = time.monotonic()
        self._lost: Superseded | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="penstock-lease", daemon=True)
        self._thread.start()

    def _claim(self, take_over: bool) -> int:
        with self.database.write() as db:
            # A row for all to lock: of two that begin a model at once, the second waits here for the first.
            db.execute(_BEGUN, {"model": self.model})
            locked = sa.select(generations).where(generations.c.model == self.model).with_for_update()
            found = db.execute(locked).one()
            left = found.until - time.time()
            if left > 0 and not take_over:
                said = f"'{self.model}' is being trained by {found.owner} (generation {found.generation})"
                hint = f"its lease ends in {left:.1f} s unless it renews it; --take-over fences it off now"
                raise LeaseHeld(said, hint, "LIVE010")
            self.before = int(found.generation)
            self._set(db, self.before, generation=self.before + 1, owner=self.owner, until=time.time() + LEASE_S)
            return self.before + 1

    def renew(self) -> None:
        """Live on for `LEASE_S`."""
        asked = time.monotonic()
        with self.database.write() as db:
            self._set(db, self.generation, until=time.time() + LEASE_S)
        self._renewed = asked

    def check(self) -> None:
        """Before anything is written, and now and then: raises `Superseded` once a later generation has begun.

        A process that was stopped, or did not reach the registry, renews first.
        """
        if self._lost is not None:
            raise self._lost
        if time.monotonic() - self._renewed > LEASE_S / 2:
            self.renew()

    def _keep(self) -> None:
        """Renew while nothing is written, too. A registry that does not answer is told by `check`."""
        while not self._ended.wait(LEASE_S / 3):
            try:
                self.renew()
            except Superseded as lost:
                self._lost = lost
                return
            except PenstockError:
                continue

    def release(self) -> None:
        """Let the next trainer start at once. Nothing happens where this generation is over."""
        self._ended.set()
        self._thread.join()
        with self.database.write() as db:
            own = (generations.c.model == self.model) & (generations.c.generation == self.generation)
            db.execute(sa.update(generations).where(own).values(until=0.0))

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if not isinstance(error, Superseded):
            self.release()

    def _set(self, db: Connection, expected: int, **values: object) -> None:
        """Compare and set. Raises `Superseded` where the generation is not the expected one."""
        own = (generations.c.model == self.model) & (generations.c.generation == expected)
        if db.execute(sa.update(generations).where(own).values(**values)).rowcount != 1:
            raise superseded(self.model, expected, present(db, self.model))

"""One trainer writes a model: the one of the highest generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.registry import Registry, generations
from penstock.registry.database import Database
from penstock.registry.faults import LeaseHeld, Superseded
from penstock.registry.generations import Lease, present, require


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "registry"))


def test_a_second_trainer_is_refused_while_the_lease_lives_and_told_who_has_it(database: Database) -> None:
    with Lease(database, "ctr") as first:
        assert first.generation == 1
        with pytest.raises(LeaseHeld, match=first.owner) as refused:
            Lease(database, "ctr")
        assert "--take-over" in refused.value.hint and refused.value.code == "LIVE010"
        with Lease(database, "other") as other:
            assert other.generation == 1
    with Lease(database, "ctr") as next_:
        assert (next_.before, next_.generation) == (1, 2)


def test_a_lease_that_nobody_renews_ends(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Lease(database, "ctr")
    first._ended.set()  # as a killed process: it renews no more, and lets nothing go
    first._thread.join()
    monkeypatch.setattr(generations.time, "time", lambda now=generations.time.time: now() + generations.LEASE_S + 0.1)
    with Lease(database, "ctr") as second:
        assert second.generation == 2


def test_who_was_taken_over_may_write_nothing_and_is_told_by_whom(database: Database) -> None:
    old = Lease(database, "ctr")
    with Lease(database, "ctr", take_over=True) as new:
        assert new.generation == 2
        with pytest.raises(Superseded, match=new.owner) as over:
            old.renew()
        assert over.value.code == "LIVE011"
        with database.write() as db:
            require(db, "ctr", new.generation)
            with pytest.raises(Superseded):
                require(db, "ctr", old.generation)
        old.release()  # lets go of nothing: it has nothing
        with database.read() as db:
            assert present(db, "ctr").owner == new.owner and present(db, "ctr").until > 0


def test_a_stopped_process_asks_before_it_writes(database: Database) -> None:
    old = Lease(database, "ctr")
    old._ended.set()
    old._thread.join()
    with Lease(database, "ctr", take_over=True):
        old.check()  # it has renewed a moment ago
        old._renewed -= generations.LEASE_S  # and was stopped for a while since
        with pytest.raises(Superseded):
            old.check()


def test_an_alias_is_written_by_the_newest_generation_alone(database: Database, tmp_path: Path) -> None:
    old = Lease(database, "ctr")
    registry = Registry(str(tmp_path / "registry"))
    with Lease(database, "ctr", take_over=True), registry, pytest.raises(Superseded):
        registry.alias("ctr/1", "live", generation=old.generation)

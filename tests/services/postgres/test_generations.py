"""One trainer writes a model, wherever it runs: the lease and what fences, in a database that hosts share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock.registry import Cache, Registry
from penstock.registry.database import Database
from penstock.registry.faults import LeaseHeld, Superseded
from penstock.registry.generations import Lease, present, require

from .test_registry import bundle

AT_ONCE = 8
Host = Callable[[], Database]


@pytest.fixture
def host(database: str) -> Iterator[Host]:
    """The registry as another host opens it, with connections of its own."""
    with ExitStack() as stack:

        def opened() -> Database:
            found = Database(database)
            stack.callback(found.close)
            with found.write() as db:  # connected, and the schema made
                present(db, "ctr")
            return found

        yield opened


@pytest.fixture
def start(host: Host) -> Iterator[Callable[..., Lease]]:
    """As a trainer starts on a host of its own."""
    with ExitStack() as stack:

        def started(model: str = "ctr", database: Database | None = None, take_over: bool = False) -> Lease:
            lease = Lease(database or host(), model, take_over=take_over)
            stack.callback(lease.release)
            return lease

        yield started


def at_once(hosts: list[Database], start: Callable[..., Lease], take_over: bool) -> list[Lease | LeaseHeld]:
    """What becomes of those who start at one moment."""
    together = threading.Barrier(len(hosts))

    def claim(host: Database) -> Lease | LeaseHeld:
        together.wait(30)
        try:
            return start("ctr", host, take_over)
        except LeaseHeld as held:
            return held

    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(claim, hosts))


def test_a_second_start_is_refused_while_the_lease_lives_and_told_who_has_it(start: Callable[..., Lease]) -> None:
    first = start()
    with pytest.raises(LeaseHeld, match=first.owner) as refused:
        start()
    assert refused.value.code == "LIVE010" and "--take-over" in refused.value.hint
    assert (first.generation, start("other").generation) == (1, 1)
    first.release()
    next_ = start()
    assert (next_.before, next_.generation) == (1, 2)


def test_who_was_taken_over_may_write_nothing_aliases_neither(
    start: Callable[..., Lease], database: str, tmp_path: Path
) -> None:
    old = start()
    with Registry(database, str(tmp_path / "blobs"), Cache(tmp_path / "cache")) as registry:
        for text in ("one", "two"):
            registry.push(bundle(tmp_path / text, text), "ctr")
        assert registry.alias("ctr/1", "live", generation=old.generation).number == 1
        new = start(take_over=True)
        assert (new.before, new.generation) == (1, 2)
        with pytest.raises(Superseded, match=new.owner) as over:
            old.renew()
        assert over.value.code == "LIVE011"
        with pytest.raises(Superseded, match=new.owner) as over:
            registry.alias("ctr/2", "live", generation=old.generation)
        assert over.value.code == "LIVE011" and registry.resolve("models:/ctr@live").number == 1
        assert registry.alias("ctr/2", "live", generation=new.generation).number == 2
    old.release()  # lets go of nothing: it has nothing
    with new.database.read() as db:
        assert present(db, "ctr").owner == new.owner and present(db, "ctr").until > 0


def test_of_many_that_start_at_once_on_a_model_that_nobody_trained_one_begins(
    host: Host, start: Callable[..., Lease]
) -> None:
    found = at_once([host() for _ in range(AT_ONCE)], start, take_over=False)
    [first] = [one for one in found if isinstance(one, Lease)]
    refused = [one for one in found if isinstance(one, LeaseHeld)]
    assert first.generation == 1 and len(refused) == AT_ONCE - 1
    assert all(one.code == "LIVE010" and first.owner in one.message for one in refused)


def test_of_many_that_take_over_at_once_each_has_a_generation_of_its_own(
    host: Host, start: Callable[..., Lease]
) -> None:
    first = start()
    found = at_once([host() for _ in range(AT_ONCE)], start, take_over=True)
    leases = sorted((one for one in found if isinstance(one, Lease)), key=lambda lease: lease.generation)
    assert [(lease.before, lease.generation) for lease in leases] == [(n + 1, n + 2) for n in range(AT_ONCE)]
    *older, newest = first, *leases
    for lease in older:
        with pytest.raises(Superseded, match=newest.owner):
            lease.renew()
    newest.renew()


def test_nobody_takes_over_while_a_write_of_the_present_generation_is_under_way(
    host: Host, start: Callable[..., Lease]
) -> None:
    old, other = start(), host()
    with ThreadPoolExecutor(1) as pool:
        with host().write() as db:
            require(db, "ctr", old.generation)
            taking = pool.submit(start, "ctr", other, True)
            with pytest.raises(TimeoutError):
                taking.result(1.0)  # what is written from here on would be an older generation's
        assert taking.result(30).generation == 2

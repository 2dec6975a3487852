"""An online store tells what the offline join tells, wherever its updater was stopped, and from whichever source."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from penstock.errors import DataError, RequestError
from penstock.features.views import OnlineStore, View, read
from penstock.features.views.materialise import materialise
from penstock.streams import open_topic

from ...services.streams import certificates
from ...services.streams.brokers import Broker, TlsRedis
from ...services.streams.conftest import own_redis, running  # noqa: F401
from .views_cases import expected, shop

USERS = ["ann", "bob", "", "Zoë", "x" * 300]


def happenings(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Events, not quite in order, some at one time, some without a user."""
    chance = random.Random(seed)
    return [
        {
            "user_id": chance.choice([*USERS, None]), "s": n // 3 + chance.randint(-20, 0),
            "city": chance.choice(["Rome", "Oslo", None]), "price": chance.choice([None, n / 100]),
            "pieces": chance.randint(-5, 5), "new": chance.choice([True, False, None]),
        }
        for n in range(count)
    ]  # fmt: skip


def told(store: OnlineStore, view: View, at_s: int) -> list[dict[str, Any]]:
    values = store.read([view], {"user_id": [*USERS, "nobody", None]}, at_s * 1_000_000)[0]
    assert len(values.as_of_us) == len(values.rows) and min(values.as_of_us.to_pylist()) >= at_s * 1_000_000
    rows: list[dict[str, Any]] = values.rows.to_pylist()
    return rows


def wanted(events: list[dict[str, Any]], at_s: int, ttl_s: int | None = None) -> list[dict[str, Any]]:
    return [expected(events, user, at_s, ttl_s) for user in [*USERS, "nobody", None]]


def files(folder: Path, events: list[dict[str, Any]], name: str = "events-1") -> str:
    frame = pl.DataFrame(events, infer_schema_length=None).with_columns(pl.col("price").cast(pl.Float64))
    frame.write_parquet(folder / f"{name}.parquet")
    return 'type="parquet" path="events-*.parquet" time="s" unit="s"'


@pytest.fixture(params=["lmdb", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "lmdb":
        yield f"lmdb:{tmp_path}/online?size=1GiB"
        return
    server: Broker = request.getfixturevalue("own_redis")
    yield f"redis://127.0.0.1:{server.port}/1"


def test_materialised_views_tell_what_brute_force_says(address: str, tmp_path: Path) -> None:
    events = happenings(900)
    view = shop(tmp_path, files(tmp_path, events), "40s")
    store = OnlineStore(address, create=True)
    written = materialise(store, view)
    assert (written.events, written.keyless) == (900, sum(e["user_id"] is None for e in events))
    for at in (300, 305, 333, 341, 10_000):
        assert told(store, view, at) == wanted(events, at, 40)
    assert materialise(store, view).events == 0


def test_files_that_come_later_are_added_and_one_that_changed_is_refused(address: str, tmp_path: Path) -> None:
    events = happenings(600)
    view = shop(tmp_path, files(tmp_path, events[:400]))
    store = OnlineStore(address, create=True)
    materialise(store, view)
    files(tmp_path, events[400:], "events-2")
    assert materialise(store, view).events == 200
    assert told(store, view, 250) == wanted(events, 250)
    files(tmp_path, events[:10], "events-1")
    with pytest.raises(DataError, match=r"VIEW024 .*events-1.parquet was read for view 'user_clicks' and has changed"):
        materialise(store, view)
    assert materialise(store, view, anew=True).events == 210


def test_a_view_that_was_declared_otherwise_is_refused_until_it_is_made_anew(address: str, tmp_path: Path) -> None:
    events = happenings(60)
    source = files(tmp_path, events)
    view, shorter = shop(tmp_path, source), shop(tmp_path, source, "9s")
    store = OnlineStore(address, create=True)
    materialise(store, view)
    with pytest.raises(DataError, match="VIEW022 view 'user_clicks' was declared otherwise"):
        materialise(store, shorter)
    materialise(store, shorter, anew=True)
    assert told(store, shorter, 30) == wanted(events, 30, 9)


def test_of_two_updaters_the_one_that_was_overtaken_is_refused(address: str, tmp_path: Path) -> None:
    from penstock.features.views import sources

    view = shop(tmp_path, files(tmp_path, happenings(30)))
    store = OnlineStore(address, create=True)
    store.declare(view)
    part = next(iter(sources.read(view)))
    store.add(view, part.rows, "", part.position)
    with pytest.raises(DataError, match=r"VIEW026 .*somebody else writes it"):
        store.add(view, part.rows, "", part.position)
    assert store.stored("user_clicks").position == part.position


def test_a_topic_is_followed_and_what_is_no_event_is_counted(address: str, tmp_path: Path) -> None:
    events = [e for e in happenings(300) if e["user_id"] is not None]
    with open_topic(f"log:{tmp_path}/clicks?partitions=3") as topic:
        topic.append(
            [json.dumps({k: v for k, v in e.items() if k != "s"}).encode() for e in events],
            keys=[e["user_id"].encode() for e in events], times_ms=[e["s"] * 1000 + 1_000_000 for e in events],
        )  # fmt: skip
        bad = [b"no json", b"[1]", b'{"user_id": 7}', b'{"user_id": "ann", "pieces": 1.5}', b'{"_tick_ms": 5}']
        topic.append(bad, partition=0)
    view = shop(tmp_path, f'topic="log:{tmp_path}/clicks"')
    store = OnlineStore(address, create=True)
    written = materialise(store, view)
    assert (written.events, written.refused) == (len(events), 4)
    moved = [{**e, "s": e["s"] + 1000} for e in events]
    assert told(store, view, 1111) == wanted(moved, 1111)


def test_killed_at_any_instant_the_store_is_at_a_position_and_holds_what_the_events_before_it_make(
    tmp_path: Path,
) -> None:
    events = [e for e in happenings(30_000, 3) if e["user_id"] is not None]
    with open_topic(f"log:{tmp_path}/clicks") as topic:
        for start in range(0, len(events), 5_000):
            some = events[start : start + 5_000]
            topic.append(
                [json.dumps({k: v for k, v in e.items() if k != "s"}).encode() for e in some],
                times_ms=[e["s"] * 1000 + 1_000_000 for e in some],
            )  # fmt: skip
    view = shop(tmp_path, f'topic="log:{tmp_path}/clicks"')
    address = f"lmdb:{tmp_path}/online?size=1GiB"
    script = (
        "import sys; from pathlib import Path; from penstock.features.views import OnlineStore, read, sources\n"
        "from penstock.features.views.materialise import materialise\n"
        "read_all = sources.read\n"
        "sources.read = lambda *a, **k: read_all(*a, **{**k, 'most_rows': 97})\n"
        f"materialise(OnlineStore({address!r}, create=True), read(Path({str(tmp_path / 'views.xml')!r}))"
        ".view('user_clicks'), told=lambda w: print(w.events, flush=True))\n"
    )
    chance, seen, kills = random.Random(1), 0, 0
    moved = [{**e, "s": e["s"] + 1000} for e in events]
    while True:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = OnlineStore(address)
        position = json.loads(store.stored("user_clicks").position)["0"]
        assert position >= seen
        assert told(store, view, 20_000) == wanted(moved[:position], 20_000)
        seen, kills = position, kills + 1
        if kills == 3 or position == len(events):
            break
    assert seen > 0
    materialise(OnlineStore(address), view)
    assert json.loads(OnlineStore(address).stored("user_clicks").position)["0"] == len(events)
    assert told(OnlineStore(address), view, 11_000) == wanted(moved, 11_000)


def test_an_updater_that_follows_is_killed_amid_what_comes_and_the_next_one_loses_and_doubles_nothing(
    address: str, tmp_path: Path
) -> None:
    events = [e for e in happenings(5_000, 5) if e["user_id"] is not None]
    view = shop(tmp_path, f'topic="log:{tmp_path}/clicks"')
    command = [sys.executable, "-m", "penstock.cli", "features", "materialise", str(tmp_path / "views.xml"),
               "user_clicks", "--to", address, "--follow"]  # fmt: skip
    moved = [{**e, "s": e["s"] + 1000} for e in events]

    def position() -> int:
        stored = OnlineStore(address, create=True).views().get("user_clicks")
        return int(json.loads(stored.position)["0"]) if stored and stored.position else 0

    chance, sent, positions = random.Random(2), 0, [0]
    with open_topic(f"log:{tmp_path}/clicks") as topic:
        for _ in range(3):
            follower = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            until, deadline = positions[-1] + chance.randint(200, 600), time.monotonic() + 120
            while (at := position()) < until:  # events come while it is killed
                assert follower.poll() is None and time.monotonic() < deadline, follower.communicate()
                if sent - at < 700:
                    some = events[sent : sent + 40]
                    topic.append(
                        [json.dumps({k: v for k, v in e.items() if k != "s"}).encode() for e in some],
                        times_ms=[e["s"] * 1000 + 1_000_000 for e in some],
                    )  # fmt: skip
                    sent += len(some)
                time.sleep(0.005)
            follower.kill()
            follower.communicate()
            positions.append(position())
            assert positions[-2] < positions[-1] <= sent
            assert told(OnlineStore(address), view, 20_000) == wanted(moved[: positions[-1]], 20_000)
    assert materialise(OnlineStore(address), view).events == sent - positions[-1]
    assert told(OnlineStore(address), view, 20_000) == wanted(moved[:sent], 20_000)


def test_an_updater_whose_redis_goes_away_ends_with_its_code_and_the_next_one_goes_on(
    own_redis: Broker,  # noqa: F811
    tmp_path: Path,
) -> None:
    server = own_redis
    events = [e for e in happenings(160) if e["user_id"] is not None]
    view = shop(tmp_path, f'topic="log:{tmp_path}/clicks"')
    address = f"redis://127.0.0.1:{server.port}/1"
    command = [sys.executable, "-m", "penstock.cli", "features", "materialise", str(tmp_path / "views.xml"),
               "user_clicks", "--to", address, "--follow"]  # fmt: skip
    moved = [{**e, "s": e["s"] + 1000} for e in events]

    def position() -> int:
        stored = OnlineStore(address, create=True).views().get("user_clicks")
        return int(json.loads(stored.position)["0"]) if stored and stored.position else 0

    def followed_to(follower: subprocess.Popen[str], end: int) -> None:
        deadline = time.monotonic() + 60
        while position() < end:
            assert follower.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    with open_topic(f"log:{tmp_path}/clicks") as topic:

        def send(some: list[dict[str, Any]]) -> None:
            topic.append(
                [json.dumps({k: v for k, v in e.items() if k != "s"}).encode() for e in some],
                times_ms=[e["s"] * 1000 + 1_000_000 for e in some],
            )

        send(events[:50])
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
            followed_to(first, 50)
            server.kill()
            send(events[50:90])
            assert first.wait(60) == 1 and first.stderr is not None
            assert "VIEW021 redis: Connection refused" in first.stderr.read()
        server.start()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
            send(events[90:])
            followed_to(second, len(events))
            second.kill()
        assert told(OnlineStore(address), view, 1_055) == wanted(moved, 1_055)


def test_a_store_behind_tls_is_as_any_other_and_who_is_not_trusted_is_not_spoken_to(tmp_path: Path) -> None:
    ours, others = certificates.made(tmp_path / "ours", "Ours"), certificates.made(tmp_path / "others", "Others")
    with running(lambda: TlsRedis(tmp_path / "redis", ours)) as server:
        place = f"rediss://127.0.0.1:{server.port}/1"
        events = happenings(300)
        view = shop(tmp_path, files(tmp_path, events))
        store = OnlineStore(f"{place}?ca={ours.ca}", create=True)
        materialise(store, view)
        assert told(store, view, 110) == wanted(events, 110)
        for address in (f"{place}?ca={others.ca}", place):
            with pytest.raises(DataError, match=r"VIEW021 .*no TLS with 127.0.0.1.*authority that is not trusted"):
                OnlineStore(address)
        with pytest.raises(DataError, match=r"VIEW021 .*ca=.*nothing.pem"):
            OnlineStore(f"{place}?ca={tmp_path}/nothing.pem")
        with pytest.raises(DataError, match="VIEW021"):
            OnlineStore(f"redis://127.0.0.1:{server.port}/1")


def test_several_views_are_read_as_of_one_instant_each_with_its_own_entity(address: str, tmp_path: Path) -> None:
    pl.DataFrame({"shop": ["a", "a", "b"], "item": [1, 2, 1], "t": [1, 1, 1], "title": ["x", "y", "z"]}).write_parquet(
        tmp_path / "items.parquet"
    )
    (tmp_path / "two.xml").write_text(
        '<views xmlns="urn:penstock:views:1" name="two"><entity name="item" key="shop item" type="str int"/>'
        '<view name="titles" entity="item"><source type="parquet" path="items.parquet" time="t" unit="s"/>'
        '<column name="title" type="str"/></view>'
        '<view name="counts" entity="item"><source type="parquet" path="items.parquet" time="t" unit="s"/>'
        '<aggregate name="seen" function="count" sliding="10s" every="1s"/></view></views>'
    )
    views = list(read(tmp_path / "two.xml").views.values())
    store = OnlineStore(address, create=True)
    for view in views:
        materialise(store, view)
    keys = {"shop": ["a", "b", "a", None], "item": [2, 1, 9, 1]}
    titles, counts = store.read(views, keys, 2_000_000)
    assert titles.rows.to_pydict() == {"title": ["y", "z", None, None]}
    assert counts.rows.to_pydict() == {"seen": [1, 1, 0, 0]}
    assert set(store.views()) == {"titles", "counts"}


def test_addresses_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="VIEW027 'sqlite:x' is no address"):
        OnlineStore("sqlite:x")
    with pytest.raises(RequestError, match="VIEW027"):
        OnlineStore("redis://127.0.0.1/0?ca=ca.pem")
    with pytest.raises(DataError, match="VIEW021 there is no store in"):
        OnlineStore(f"lmdb:{tmp_path}/nothing")
    with pytest.raises(DataError, match=r"VIEW023 .*has no view 'clicks'"):
        OnlineStore(f"lmdb:{tmp_path}/made", create=True).stored("clicks")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": ["a"], "number": [1]}, "the keys have no column 'shop'"),
        ({"shop": ["a", "b"], "number": [1]}, "key columns of different lengths"),
        ({"shop": ["a"], "number": ["1"]}, "a column of keys: Could not convert '1'"),
        ({"shop": ["a"], "number": [1 << 70]}, "a column of keys: .*too large"),
        ({"shop": ["a", 3], "number": [1, 2]}, "a column of keys: "),
        ({"shop": ["a\ud800"], "number": [1]}, "a column of keys: .*surrogates"),
    ],
)
def test_keys_that_are_none_are_refused(keys: dict[str, list[Any]], said: str, tmp_path: Path) -> None:
    (tmp_path / "views.xml").write_text(
        '<views xmlns="urn:penstock:views:1" name="s"><entity name="item" key="shop number" type="str int"/>'
        '<view name="seen" entity="item"><source topic="log:none"/><aggregate name="n" function="count" sliding="1h" '
        'every="1h"/></view></views>'
    )
    view = read(tmp_path / "views.xml").view("seen")
    store = OnlineStore(f"lmdb:{tmp_path}/store", create=True)
    store.declare(view)
    with pytest.raises(DataError, match=f"VIEW025 {said}"):
        store.read([view], keys)
    good = {"shop": ["a", None], "number": [1, 2]}
    given: list[Any] = [good, {name: tuple(column) for name, column in good.items()}]
    given.append({"shop": pa.array(good["shop"], pa.large_string()), "number": pa.array(good["number"], pa.int64())})
    assert all(store.read([view], each)[0].rows.to_pydict() == {"n": [0, 0]} for each in given)

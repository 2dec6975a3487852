"""Online features of 100 entities x 3 views: p50 and p99, against raw Redis and Feast's stores.

Ours: `OnlineStore.read`, one entity a row, three views of three columns each, from LMDB and from Redis. `mget` is one raw
MGET of as many blobs of the same bytes by redis-py (with hiredis) from the same server: the floor under any store in Redis.
Feast: `get_online_features` of three feature views with the same values, from its SQLite and its Redis store, as Arrow.
All give the same values, checked before timing. `redis_over_mget` is ours over the floor, at most 1.5 is the goal.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pyarrow as pa
import redis
from serving_servers import free_port

from penstock.features.views import OnlineStore, View, read

AT_US = 1_700_000_000_000_000
NAMES = ("profile", "clicks", "buys")
VIEW = """<view name="{name}" entity="user"><source topic="log:none"/>
<column name="{name}_a" type="int"/><column name="{name}_b" type="float"/>
<aggregate name="{name}_n" function="count" sliding="1h" every="10m"/></view>"""


def declared(folder: Path) -> list[View]:
    path = folder / "views.xml"
    views = "".join(VIEW.format(name=name) for name in NAMES)
    path.write_text(
        f'<views xmlns="urn:penstock:views:1" name="bench"><entity name="user" key="user" type="int"/>{views}</views>'
    )
    return list(read(path).views.values())


def fill(store: OnlineStore, views: list[View], entities: int) -> None:
    """An event an entity and view: a = the entity, b = half of it."""
    for view in views:
        store.declare(view)
        position = ""
        for first in range(0, entities, 100_000):
            users = np.arange(first, min(first + 100_000, entities))
            times = np.full(len(users), AT_US)
            rows = pa.RecordBatch.from_arrays(
                [pa.array(users), pa.array(times), pa.array(users), pa.array(users / 2)], ["user", "t", "a", "b"]
            )
            after = f'{{"0":{first + len(users)}}}'
            store.add(view, rows, position, after)
            position = after


def timed(work: Callable[[list[int]], Any], entities: int, asks: int, chance: np.random.Generator) -> dict[str, float]:
    seconds = []
    for _ in range(asks):
        users = chance.integers(0, entities, 100).tolist()
        started = time.perf_counter()
        work(users)
        seconds.append((time.perf_counter() - started) * 1e3)
    return {"p50": statistics.median(seconds), "p99": float(np.quantile(seconds, 0.99))}


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entities", type=int, default=0, help="default 1,000,000; --quick 100,000")
    parser.add_argument("--without-feast", action="store_true", help="ours and raw Redis alone")


def main() -> None:
    options = harness.arguments(__doc__, more)
    entities = options.entities or (100_000 if options.quick else 1_000_000)
    asks, chance = (200 if options.quick else 1_000), np.random.default_rng(0)
    server = shutil.which("redis-server")
    if server is None:
        raise SystemExit("error: redis-server is not installed; hint: apt install redis-server")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        command = [server, "--port", str(port), "--save", "", "--dir", name, "--bind", "127.0.0.1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            raw = redis.Redis(port=port, socket_timeout=60)
            while not answers(raw):
                time.sleep(0.05)
            run(options, folder, port, raw, entities, asks, chance)
        finally:
            process.terminate()
            process.wait()


def answers(raw: redis.Redis) -> bool:
    try:
        return bool(raw.ping())
    except redis.ConnectionError:
        return False


def run(
    options: Any, folder: Path, port: int, raw: redis.Redis, entities: int, asks: int, chance: np.random.Generator
) -> None:
    views = declared(folder)
    stores = {
        "embedded": OnlineStore(f"lmdb:{folder}/lmdb?size=16GiB", create=True),
        "redis": OnlineStore(f"redis://127.0.0.1:{port}/0", create=True),
    }
    for case, store in stores.items():
        harness.say(f"{case}: {entities:,} entities")
        fill(store, views, entities)
    blob = max((raw.strlen(key) for key in raw.scan_iter("*user*", count=10)), default=64)
    for first in range(0, entities, 10_000):
        users = range(first, min(first + 10_000, entities))
        raw.mset({f"raw:{name}:{user}": bytes(blob) for user in users for name in NAMES})

    def ours(store: OnlineStore, users: list[int]) -> list[Any]:
        return store.read(views, {"user": users}, AT_US)

    def mget(users: list[int]) -> list[Any]:
        return list(raw.mget([f"raw:{name}:{user}" for user in users for name in NAMES]))

    some = [0, 7, entities - 1]
    wanted = {"a": some, "b": [user / 2 for user in some], "n": [1, 1, 1]}
    for store in stores.values():
        for view, values in zip(views, ours(store, some), strict=True):
            assert values.rows.to_pydict() == {f"{view.name}_{k}": v for k, v in wanted.items()}
    assert all(value is not None and len(value) == blob for value in mget(some))

    def round_of(case: str, work: Callable[[list[int]], Any]) -> dict[str, float]:
        return {f"{case}_{k}": v for k, v in timed(work, entities, asks, chance).items()}

    def both() -> dict[str, float]:
        found = {}
        for case, store in stores.items():
            found |= round_of(case, lambda users, store=store: ours(store, users))  # type: ignore[misc]
        return found

    contenders: dict[str, Callable[[], Any]] = {"ours": both, "mget": lambda: round_of("redis", mget)}
    versions = {"mget": f"redis-py {redis.__version__}, Redis {raw.info('server')['redis_version']}"}
    peer = None
    if not options.without_feast:
        setup = {"folder": str(folder / "feast"), "port": port, "entities": min(entities, 100_000), "views": NAMES}
        peer = harness.Peer("feast", harness.peer_python("feast"), harness.HERE / "peers" / "views_feast.py", setup)
        answer = peer.ask(check=some[:2])
        assert answer["values"] == {"a": some[:2], "b": [user / 2 for user in some[:2]], "n": [1, 1]}, answer
        contenders["feast"] = lambda: peer.ask(asks=max(20, asks // 20)) if peer else {}
        versions["feast"] = peer.version
    rounds = harness.alternate(contenders, options.rounds)
    if peer:
        peer.close()
    lower = [case for cases in rounds.values() for case in cases]
    document = harness.document("views", "ms", rounds, versions, lower, entities=entities, blob_bytes=blob)
    pairs = zip(rounds["ours"]["redis_p50"], rounds["mget"]["redis_p50"], strict=True)
    document["redis_over_mget"] = harness.figure(statistics.median(own / floor for own, floor in pairs))
    harness.finish(document, options)


if __name__ == "__main__":
    main()

"""Online features of 100 entities x 3 views, ms a request: p50 and p99, embedded and in Redis.

Ours is `OnlineStore.read`: a list of 100 keys goes in, three Arrow batches come out, their windows counted as of now.
Below its few lines of Python (counted) it is the function that the serving host calls (`penstock_views::read`). A
view has five outputs (two of the newest event, a count, a sum and a mean over windows of 6 to 24 panes) of four
events an entity. `mget` is raw: redis-py with hiredis asks the same server for the very blobs that ours reads, keys
built beforehand, values left as bytes. `feast` has the outputs as features, in its SQLite store and in the same Redis
server, and is asked as it likes best: registry cached, feature references prepared, entities as one column, its
answer left as it comes. All values are compared with a formula before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pyarrow as pa

from penstock.features.views import OnlineStore, View, read

sys.path.insert(0, str(harness.HERE.parent / "tests"))
from services.streams.brokers import Redis

ASKED = 100
NAMES = ("profile", "clicks", "orders")
#: 17 minutes past an hour, so that no event lies on the edge of a window.
AT_US = 1_700_000_220_000_000 // 3_600_000_000 * 3_600_000_000 + 17 * 60_000_000
#: An entity's events, minutes before that.
AGO_MIN = (600, 50, 7, 0)
VIEW = """<view name="{name}" entity="user"><source topic="log:none"/>
<column name="{name}_city" type="str" from="city"/><column name="{name}_price" type="float" from="price"/>
<aggregate name="{name}_n" function="count" sliding="1h" every="5m"/>
<aggregate name="{name}_sum" function="sum" from="price" type="float" decimals="2" sliding="1d" every="1h"/>
<aggregate name="{name}_mean" function="mean" from="price" type="float" decimals="2" sliding="1h" every="10m"/>
</view>"""
OUTPUTS = ("city", "price", "n", "sum", "mean")


def declared(folder: Path) -> list[View]:
    path = folder / "views.xml"
    views = "".join(VIEW.format(name=name) for name in NAMES)
    path.write_text(
        f'<views xmlns="urn:penstock:views:1" name="bench"><entity name="user" key="user" type="int"/>{views}</views>'
    )
    return list(read(path).views.values())


def cents(users: Any, event: int) -> Any:
    return (users % 1000) * 10 + event


def formula(users: Any) -> dict[str, list[Any]]:
    """What every view tells of users at `AT_US`."""
    last, lately = cents(users, 3), [cents(users, event) for event in (1, 2, 3)]
    return {
        "city": [f"city{user % 200}" for user in users],
        "price": (last / 100).tolist(),
        "n": [3] * len(users),
        "sum": ((sum(lately) + cents(users, 0)) / 100).tolist(),
        "mean": (sum(lately) / 100 / 3).tolist(),
    }


def fill(store: OnlineStore, views: list[View], entities: int) -> None:
    """All events of 50,000 entities are a transaction."""
    ago_us = np.array(AGO_MIN) * 60_000_000
    cities = pa.array([f"city{n}" for n in range(200)], pa.large_string())
    for view in views:
        store.declare(view)
        position = ""
        for first in range(0, entities, 50_000):
            users = np.arange(first, min(first + 50_000, entities))
            prices = np.stack([cents(users, event) for event in range(4)], 1).reshape(-1) / 100
            each = np.repeat(users, 4)
            columns = {
                "user": pa.array(each), "time": pa.array(np.tile(AT_US - ago_us, len(users))),
                "city": cities.take(pa.array(each % 200)), "price": pa.array(prices),
            }  # fmt: skip
            after = f'{{"0": {4 * (first + len(users))}}}'
            store.add(view, pa.RecordBatch.from_pydict(columns), position, after)
            position = after


def timed(store: OnlineStore, views: list[View], asks: list[list[int]]) -> dict[str, float]:
    spent = []
    for users in asks:
        started = time.perf_counter()
        store.read(views, {"user": users}, AT_US)
        spent.append((time.perf_counter() - started) * 1e3)
    return {"p50": statistics.median(spent), "p99": float(np.quantile(spent, 0.99))}


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entities", type=int, default=0, help="default 1,000,000; --quick 100,000")


def measure(options: Any, folder: Path, server: Redis) -> Mapping[str, Any]:
    entities = options.entities or (100_000 if options.quick else 1_000_000)
    times, chance = (300 if options.quick else 1_000), np.random.default_rng(0)
    views = declared(folder)
    stores = {
        "embedded": OnlineStore(f"lmdb:{folder}/online?size=16GiB", create=True),
        "redis": OnlineStore(f"{server.address}/0", create=True),
    }
    some = np.array([0, 7, entities - 1])
    for case, store in stores.items():
        harness.say(f"{case}: {entities:,} entities x {len(views)} views ...")
        fill(store, views, entities)
        for view, values in zip(views, store.read(views, {"user": some.tolist()}, AT_US), strict=True):
            wanted = {f"{view.name}_{output}": of for output, of in formula(some).items()}
            if values.rows.to_pydict() != wanted:
                raise SystemExit(f"error: {case} tells {values.rows.to_pydict()}, not {wanted}")
    peers: dict[str, harness.Peer] = {}
    setup = {"folder": str(folder / "feast"), "port": server.port, "views": NAMES, "entities": entities}
    setup["entity"] = "user"
    setup["values"] = formula(np.arange(1000))  # what repeats
    setup["feast_entities"] = min(entities, 20_000 if options.quick else 100_000)  # fewer, which favours it
    for name in ("mget", "feast"):
        harness.say(f"{name} ...")
        python = harness.peer_python(name)
        peers[name] = harness.Peer(name, python, harness.HERE / "peers" / f"views_{name}.py", setup)
    blobs = peers["mget"].ask(check=some.tolist())["lengths"]
    told = peers["feast"].ask(check=some[:2].tolist())
    for case in stores:
        for name in NAMES:
            wanted = formula(some[:2])
            if told[case][name] != wanted:
                raise SystemExit(f"error: Feast ({case}) tells {told[case][name]}, not {wanted}")

    def ours() -> dict[str, float]:
        found = {}
        for case, store in stores.items():
            asks = [chance.integers(0, entities, ASKED).tolist() for _ in range(times)]
            found |= {f"{case}_{q}": value for q, value in timed(store, views, asks).items()}
        return found

    ours()
    contenders = {
        "ours": ours,
        "mget": lambda: peers["mget"].ask(times=times),
        "feast": lambda: peers["feast"].ask(times=max(20, times // 10)),
    }
    rounds = harness.alternate(contenders, options.rounds)
    for peer in peers.values():
        peer.close()
    versions = {name: peer.version for name, peer in peers.items()}
    lower = list(rounds["ours"])
    return harness.document(
        "views", "ms", rounds, versions, lower, entities=entities, blob_bytes=statistics.mean(blobs),
        feast_entities=setup["feast_entities"], requests_a_round=times,
    )  # fmt: skip


def main() -> None:
    options = harness.arguments(__doc__, more)
    for name in ("mget", "feast"):
        harness.peer_python(name)
    # On a disk, where the working tree is: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=harness.HERE, prefix=".views-") as name:
        folder = Path(name)
        (folder / "redis").mkdir()
        server = Redis(folder / "redis", {"appendonly": "no"})
        server.start()
        try:
            found = measure(options, folder, server)
        finally:
            server.kill()
    harness.finish(found, options)


if __name__ == "__main__":
    main()

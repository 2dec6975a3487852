"""The host fetches feature views itself: what it serves is what the offline join tells, as of the time it logs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from penstock.features.views import OnlineStore, View, point_in_time, read
from penstock.features.views.materialise import materialise
from penstock.features.views.skew import causes, compare
from penstock.training.bundle import load

from ...services.streams import certificates
from ...services.streams.brokers import Broker, TlsRedis
from ...services.streams.conftest import own_redis, running  # noqa: F401
from .test_host import Host

VIEWS = """<views xmlns="urn:penstock:views:1" name="shop">
  <entity name="user" key="user_id"/>
  <entity name="item" key="item_id" type="int"/>
  <view name="user_clicks" entity="user" ttl="1d">
    <source type="parquet" path="clicks.parquet" time="at" unit="us"/>
    <column name="home" type="str" from="city"/>
    <aggregate name="clicks" function="count" sliding="1h" every="1m"/>
    <aggregate name="spend" function="sum" from="price" type="float" decimals="2" sliding="1h" every="1m"/>
  </view>
  <view name="item_clicks" entity="item">
    <source type="parquet" path="clicks.parquet" time="at" unit="us"/>
    <aggregate name="paid" function="mean" from="price" type="float" decimals="2" sliding="1d" every="1h"/>
    <aggregate name="item_new" function="last" from="new" type="bool" sliding="1d" every="1h"/>
  </view>
</views>"""
FLOW = """<flow xmlns="urn:penstock:flow:1" name="views"><node name="n" engine="local">
<input name="rows" type="parquet" path="known.parquet"/>
<process name="m" type="gbdt" from="rows" label="label" columns="price_now home clicks spend paid item_new"
 trees="8" leaves="7" min_rows="5"/>
<output name="out" type="model" from="m" path="model"/></node></flow>"""
CONFIG = """[samples]
path = "samples.jsonl"
[host]
drain_s = 0
[models.m.versions]
1 = "{shop}/model"
[models.m.views]
store = "{store}"
use = ["user_clicks", "item_clicks"]
"""
NOW_US = int(time.time() * 1e6)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with events, views, an online store, and a model that was trained on the offline join."""
    folder = tmp_path_factory.mktemp("shop")
    count = 3_000
    pl.DataFrame({
        "user_id": [f"u{n * 7 % 40}" for n in range(count)], "item_id": [n % 23 for n in range(count)],
        "at": [NOW_US - (count - n) * 1_500_000 for n in range(count)],
        "city": [("Rome", "Oslo", None)[n % 3] for n in range(count)], "price": [n % 977 / 100 for n in range(count)],
        "new": [n % 5 == 0 for n in range(count)],
    }).write_parquet(folder / "clicks.parquet")  # fmt: skip
    (folder / "views.xml").write_text(VIEWS)
    views = list(read(folder / "views.xml").views.values())
    store = OnlineStore(f"lmdb:{folder}/online?size=1GiB", create=True)
    for view in views:
        materialise(store, view)
    samples = pl.LazyFrame({
        "user_id": [f"u{n % 50}" for n in range(1_000)], "item_id": [n % 25 for n in range(1_000)],
        "price_now": [n % 31 / 3 for n in range(1_000)], "at": [NOW_US - n * 3_000_000 for n in range(1_000)],
        "label": [int(n % 50 % 3 == 0 or n % 7 == 0) for n in range(1_000)],
    })  # fmt: skip
    known(folder, samples, views).write_parquet(folder / "known.parquet")
    (folder / "flow.xml").write_text(FLOW)
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def known(folder: Path, samples: pl.LazyFrame, views: list[View], time: str = "at") -> pl.DataFrame:
    return point_in_time(samples, views, folder / "joined.parquet", time=time, unit="us").collect()


@pytest.fixture(scope="module")
def redis(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same views in a Redis behind TLS: its address, as a host is given it."""
    folder = tmp_path_factory.mktemp("redis")
    certified = certificates.made(folder / "authority", "Ours")
    with running(lambda: TlsRedis(folder, certified)) as server:
        address = f"rediss://127.0.0.1:{server.port}/2?ca={certified.ca}"
        for view in read(shop / "views.xml").views.values():
            materialise(OnlineStore(address, create=True), view)
        yield address


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, shop: Path, tmp_path: Path) -> Iterator[str]:
    store = f"lmdb:{shop}/online" if request.param == "lmdb" else request.getfixturevalue("redis")
    host = Host(tmp_path, CONFIG.format(shop=shop, store=store))
    try:
        yield host.ready()[0]
    finally:
        assert host.stop() == 0
        host.close()


def infer(url: str, inputs: list[dict[str, Any]], **parameters: Any) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    try:
        with urllib.request.urlopen(f"{url}/v2/models/m/infer", body) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def logged(folder: Path, rows: int) -> list[dict[str, Any]]:
    path, ends = folder / "samples.jsonl", time.monotonic() + 10
    while path.read_text().count("\n") < rows:
        assert time.monotonic() < ends
        time.sleep(0.05)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_served_features_and_scores_are_the_offline_join_s_as_of_what_was_logged(
    url: str, shop: Path, tmp_path: Path
) -> None:
    items = [0, 1, 2, 22, 24, None]
    price = tensor("price_now", "FP64", [1.5 * n for n in range(6)])
    status, reply = infer(url, [tensor("user_id", "BYTES", ["u3"]), tensor("item_id", "INT64", items), price],
                          broadcast="user_id")  # fmt: skip
    assert status == 200, reply
    lines = logged(tmp_path, 6)
    views = list(read(shop / "views.xml").views.values())
    columns = [name for view in views for name in view.outputs]
    as_of = [line["views"]["item_clicks"]["as_of_us"] for line in lines]
    assert as_of == [line["views"]["user_clicks"]["as_of_us"] for line in lines] and min(as_of) > NOW_US
    assert lines[0]["views"]["user_clicks"]["at"] == {"offset": 3_000}
    given = {"user_id": ["u3"] * 6, "item_id": items, "price_now": [1.5 * n for n in range(6)], "at": as_of}
    offline = known(shop, pl.LazyFrame(given), views)
    assert [{name: line["features"][name] for name in columns} for line in lines] == offline.select(columns).to_dicts()
    assert [line["features"]["user_id"] for line in lines] == ["u3"] * 6
    assert [line["features"]["item_id"] for line in lines] == items
    compared = compare(views, lines)
    assert len(compared) == len(columns) and all(c.rows == 6 and not c.differ_at_position for c in compared)
    assert not causes(compared), "training would have had the same"
    scores = np.asarray(reply["outputs"][0]["data"], np.float32)
    assert scores.tolist() == np.asarray(load(shop / "model").score(offline), np.float32).tolist()


def test_what_the_client_sends_itself_stays(url: str, tmp_path: Path) -> None:
    keys = [tensor("user_id", "BYTES", ["u1"]), tensor("item_id", "INT64", [1])]
    status, _ = infer(url, [*keys, tensor("clicks", "INT64", [7])])
    assert status == 200
    assert logged(tmp_path, 1)[0]["features"]["clicks"] == 7


def test_a_key_that_is_missing_or_of_another_type_is_the_client_s_fault(url: str) -> None:
    user = tensor("user_id", "BYTES", ["u1"])
    status, reply = infer(url, [user])
    assert (status, reply["error"]) == (400, "input 'item_id' is missing: view 'item_clicks' is looked up by it")
    status, reply = infer(url, [user, tensor("item_id", "BYTES", ["1"])])
    assert (status, reply["error"]) == (400, "input 'item_id' is BYTES, and view 'item_clicks' is looked up by INT64")


def test_a_redis_that_goes_away_is_a_503_and_one_that_is_back_is_read_again(
    own_redis: Broker,  # noqa: F811
    shop: Path,
    tmp_path: Path,
) -> None:
    address = f"redis://127.0.0.1:{own_redis.port}"
    for view in read(shop / "views.xml").views.values():
        materialise(OnlineStore(address, create=True), view)
    host = Host(tmp_path, CONFIG.format(shop=shop, store=address))
    keys = [tensor("user_id", "BYTES", ["u1"]), tensor("item_id", "INT64", [1])]
    try:
        url = host.ready()[0]
        status, before = infer(url, keys)
        assert status == 200
        own_redis.kill()
        status, reply = infer(url, keys)
        assert status == 503 and reply["error"].startswith("its feature views cannot be read: redis: ")
        own_redis.start()
        status, after = infer(url, keys)
        assert (status, after["outputs"]) == (200, before["outputs"])
    finally:
        assert host.stop() == 0
        host.close()


def test_views_that_are_not_there_are_problems_with_their_lines(shop: Path, tmp_path: Path) -> None:
    def checked(views: str) -> str:
        (tmp_path / "s.toml").write_text(f'[models.m.versions]\n1 = "{shop}/model"\n[models.m.views]\n{views}\n')
        command = [sys.executable, "-m", "penstock.cli", "serve", "--check", str(tmp_path / "s.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        return done.stderr

    assert "s.toml:4: VIEW029 the views of 'm': there is no store in" in checked('store = "lmdb:no"\nuse = ["x"]')
    told = checked(f'store = "lmdb:{shop}/online"\nuse = ["user_click"]')
    assert "s.toml:5: VIEW029 the views of 'm': the store has no view 'user_click'" in told
    assert "did you mean 'user_clicks'?" in told
    assert "s.toml:5: SERV002 'models.m.views.uses' is no setting" in checked('store = "lmdb:no"\nuses = ["x"]')

"""Skew is found where it is planted, each kind by its name, and nowhere on our own path."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import main
from penstock.errors import DataError
from penstock.features.views import OnlineStore, View
from penstock.features.views.materialise import materialise
from penstock.features.views.skew import causes, compare, lines_of
from penstock.features.views.sources import read_files
from penstock.streams import Topic, open_topic

from .test_views_online import USERS, files, happenings
from .views_cases import shop

BASE_S = 1_000


def append(topic: Topic, events: list[dict[str, Any]]) -> None:
    topic.append(
        [json.dumps({k: v for k, v in e.items() if k != "s"}).encode() for e in events],
        keys=[str(e["user_id"]).encode() for e in events], times_ms=[(e["s"] + BASE_S) * 1000 for e in events],
    )  # fmt: skip


def served(store: OnlineStore, view: View, at_s: int) -> list[dict[str, Any]]:
    """Lines as the host's sample log has them."""
    values = store.read([view], {"user_id": USERS}, (at_s + BASE_S) * 1_000_000)[0]
    position = json.loads(values.position)
    position = {"offset": position["offset"]} if "offset" in position else position
    rows = zip(USERS, values.rows.to_pylist(), values.as_of_us.to_pylist(), strict=True)
    return [
        {"features": {"user_id": user, **row}, "views": {view.name: {"at": position, "as_of_us": as_of}}}
        for user, row, as_of in rows
    ]


@pytest.fixture
def log(tmp_path: Path) -> tuple[View, list[dict[str, Any]]]:
    """A view of a topic of 3 partitions, and what was served from it while its events came in."""
    topic = open_topic(f"log:{tmp_path}/clicks?partitions=3")
    view = shop(tmp_path, f'topic="log:{tmp_path}/clicks"', "30s")
    store = OnlineStore(f"lmdb:{tmp_path}/online?size=1GiB", create=True)
    events, lines = [e for e in happenings(600, 5) if e["user_id"] is not None], []
    with topic:
        for start in range(0, len(events), 100):
            some = sorted(events[start : start + 100], key=lambda e: e["s"])
            append(topic, some)
            materialise(store, view)
            lines += served(store, view, some[-1]["s"] + 1)
            lines += served(store, view, some[-1]["s"] + 25)
    return view, lines


def test_nothing_differs_at_position_on_our_own_path(log: tuple[View, list[dict[str, Any]]]) -> None:
    view, lines = log
    compared = compare([view], lines)
    assert {c.column for c in compared} == set(view.outputs)
    assert all(c.rows == len(lines) and c.differ_at_position == 0 for c in compared)
    # Some batches hold events older than the ones before: what had been served then lacked them, and it is said so.
    assert set(causes(compared)) <= {"late data"}


def test_late_data_is_named(log: tuple[View, list[dict[str, Any]]], tmp_path: Path) -> None:
    view, lines = log
    last = lines[-len(USERS) :]
    assert causes(compare([view], last)) == {}
    late = {"user_id": "bob", "s": happenings(600, 5)[-1]["s"], "city": "Lima", "price": 9.5, "pieces": 1, "new": None}
    with open_topic(f"log:{tmp_path}/clicks") as topic:
        append(topic, [late])
    compared = compare([view], last)
    assert set(causes(compared)) == {"late data"}
    clicks = next(c for c in compared if c.column == "clicks")
    assert (clicks.differ, clicks.differ_at_position, clicks.share) == (1, 0, 1 / len(USERS))
    example = clicks.examples[0]
    assert example["user_id"] == "bob" and example["offline"] == example["served"] + 1


def test_files_count_in_the_order_in_which_they_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = [e for e in happenings(300, 5) if e["user_id"] is not None]
    address = f"lmdb:{tmp_path}/online?size=1GiB"
    store, lines = OnlineStore(address, create=True), []
    # events-10 is read after events-9, stands before it by name, and has one event that is late.
    for name, some in (("events-9", events[:200]), ("events-10", [events[190], *events[200:]])):
        source = files(tmp_path, some, name)
        view = shop(tmp_path, source)
        materialise(store, view)
        lines += served(store, view, some[-1]["s"] - BASE_S + 1)
    orders = {view.name: read_files(store.stored(view.name).position)}
    assert [Path(name).name for name in orders[view.name]] == ["events-9.parquet", "events-10.parquet"]
    assert any(c.differ_at_position for c in compare([view], lines)), "by name they are others"
    compared = compare([view], lines, orders)
    assert all(c.differ_at_position == 0 for c in compared) and set(causes(compared)) == {"late data"}

    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["features", "skew", str(tmp_path / "views.xml"), str(path)]
    assert main(command) == 1 and "--store ADDRESS says" in capsys.readouterr().err
    assert main([*command, "--store", address]) == 1
    told = capsys.readouterr()
    assert "late data" in told.out and "code" not in told.out and not told.err


def test_another_ttl_is_named(log: tuple[View, list[dict[str, Any]]], tmp_path: Path) -> None:
    view, lines = log
    last = lines[-2 * len(USERS) :]
    ageless = shop(tmp_path, f'topic="log:{tmp_path}/clicks"')
    store = OnlineStore(f"lmdb:{tmp_path}/ageless?size=1GiB", create=True)
    materialise(store, ageless)
    old = served(store, ageless, 20_000)
    assert set(causes(compare([view], old))) == {"ttl"}  # served without TTL, declared with one
    brief = replace(view, ttl_us=1)
    store = OnlineStore(f"lmdb:{tmp_path}/brief?size=1GiB", create=True)
    materialise(store, brief)
    soon = served(store, brief, last[0]["views"][view.name]["as_of_us"] // 1_000_000 - BASE_S + 5)
    assert set(causes(compare([view], soon))) == {"ttl"}  # served with a shorter one


def test_other_code_is_named(log: tuple[View, list[dict[str, Any]]]) -> None:
    view, lines = log
    lines = lines[-len(USERS) :]
    for line in lines:
        if line["features"]["spend"]:
            line["features"]["spend"] = round(line["features"]["spend"] * 1.1, 2)
    compared = compare([view], lines)
    assert [(c.column, set(c.causes)) for c in compared if c.differ] == [("spend", {"code"})]


def test_the_command_tells_it_and_fails(
    log: tuple[View, list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "samples.jsonl"
    lines = log[1][-len(USERS) :]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["features", "skew", str(tmp_path / "views.xml"), str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["causes"] == {}
    lines[0]["features"]["clicks"] = 999
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["features", "skew", str(tmp_path / "views.xml"), str(path)]) == 1
    out = capsys.readouterr().out
    assert "code 1" in out and '"served": 999' in out
    path.write_text("no json\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:1 is no line"):
        list(lines_of(path))

"""Rows of tables as columns: to Parquet and back with the same bits, and what a person is told of them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.cli.main import main
from penstock.data.schema import Schema
from penstock.errors import RequestError
from penstock.features import check, read
from penstock.features.resolve import resolve
from penstock.training import table_rows
from penstock.training.artefacts import ArtefactError
from penstock.training.checkpoints import Checkpoints
from penstock.training.key_texts import texts_beside
from penstock.training.snapshots import write_snapshot
from penstock.training.table_parquet import from_parquet, to_parquet
from penstock.training.table_report import diff, head, stat
from penstock.training.table_rows import CheckpointRows, LiveRows, RowSource, SnapshotRows, batches, open_rows
from penstock.training.tables import Adagrad, EmbeddingTables, Ftrl, RowwiseAdagrad, Sgd, Table, Uniform

USERS = Table("users", 3, RowwiseAdagrad(), init=Uniform(-1, 1))
ITEMS = Table("items", 2, Sgd(), 1.0, init=Uniform(-1, 1), dtype="bf16")
SLOTS = {"user": "users", "item": "items", "history": "items"}
KEYS = np.concatenate([np.arange(1, 500, dtype=np.int64) * 2**41, [0, -1, -(2**63)]])


def made(users: Table = USERS, items: Table = ITEMS) -> EmbeddingTables:
    return EmbeddingTables([users, items], SLOTS)


def trained() -> EmbeddingTables:
    tables, rng = made(), np.random.default_rng(3)
    for step in range(3):
        for slot in ("user", "item"):
            keys = rng.choice(KEYS, 400)
            tables.update(slot, keys, rng.normal(size=(400, tables.dim(slot))).astype(np.float32), 100 + step)
    return tables


def columns(source: RowSource, table: int) -> dict[int, tuple[Any, ...]]:
    found = {}
    for batch in batches(source, table):
        rest = [batch.values, batch.state, batch.counts, batch.last_seen_s, batch.scores]
        for i, key in enumerate(batch.keys.tolist()):
            found[key] = tuple(None if column is None else column[i].tobytes() for column in rest)
    return found


def test_live_tables_checkpoints_and_snapshots_give_the_same_rows(tmp_path: Path, monkeypatch: Any) -> None:
    tables = trained()
    checkpoints = Checkpoints(tmp_path / "c", tables)
    checkpoints.save({})
    tables.update("user", KEYS[:50], np.ones((50, 3), dtype=np.float32), 200)
    checkpoints.save({})
    write_snapshot(tables, tmp_path / "s")
    live, cut, snapshot = LiveRows(tables), open_rows(tmp_path / "c"), open_rows(tmp_path / "s")
    assert isinstance(cut, CheckpointRows) and isinstance(snapshot, SnapshotRows)
    assert list(live.tables) == list(cut.tables) and live.tables[0].state == (("sum", 1),)
    assert [facts.slots for facts in snapshot.tables] == [("user",), ("item", "history")]
    for number in (0, 1):
        whole = columns(live, number)
        assert len(whole) == live.tables[number].rows > 200
        assert columns(cut, number) == whole
        assert columns(snapshot, number) == {key: (row[0], *[None] * 4) for key, row in whole.items()}
        monkeypatch.setattr(table_rows, "BATCH_ROWS", 16)
        assert len(list(batches(live, number))) > 20, "rows come in bounded batches"
        assert columns(live, number) == whole
        monkeypatch.undo()


@pytest.mark.parametrize("optimizer", [RowwiseAdagrad(), Adagrad(), Sgd(), Ftrl()])
def test_parquet_and_back_is_the_same_to_the_bit(tmp_path: Path, optimizer: Any) -> None:
    users = replace(USERS, optimizer=optimizer)
    tables = made(users)
    tables.update("user", KEYS, np.random.default_rng(0).normal(size=(len(KEYS), 3)).astype(np.float32), 77)
    tables.update("item", KEYS, np.random.default_rng(1).normal(size=(len(KEYS), 2)).astype(np.float32), 78)
    again = made(users)
    for table in ("users", "items"):
        assert to_parquet(tables, table, tmp_path / table) == len(KEYS)
        assert from_parquet(again, table, tmp_path / table) == len(KEYS)
    for number in (0, 1):
        assert columns(LiveRows(again), number) == columns(LiveRows(tables), number)
    frame = pq.read_table(tmp_path / "users")
    assert frame.schema.field("values").type == pa.list_(pa.field("item", pa.float32(), nullable=False), 3)
    assert frame["count"].to_pylist() == [1] * len(KEYS) and set(frame["last_seen_s"].to_pylist()) == {77}
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_values_alone_begin_the_optimizer_anew_and_replace_rows(tmp_path: Path) -> None:
    tables, ftrl = made(), replace(USERS, optimizer=Ftrl())
    tables.update("user", KEYS, np.ones((len(KEYS), 3), dtype=np.float32))
    write_snapshot(tables, tmp_path / "s")
    to_parquet(open_rows(tmp_path / "s"), "users", tmp_path / "p")
    assert pq.read_schema(tmp_path / "p").names == ["key", "values"]
    again = made(ftrl)
    again.update("user", KEYS[:9], np.full((9, 3), 5, dtype=np.float32))
    from_parquet(again, "users", tmp_path / "p")
    assert np.array_equal(again.lookup("user", KEYS), tables.lookup("user", KEYS))
    before = again.lookup("user", KEYS)
    again.update("user", KEYS, np.zeros((len(KEYS), 3), dtype=np.float32))
    np.testing.assert_allclose(again.lookup("user", KEYS), before, rtol=1e-5, err_msg="FTRL's state gives its values")


def test_a_file_that_does_not_fit_changes_no_row(tmp_path: Path) -> None:
    tables = trained()
    to_parquet(tables, "users", tmp_path / "p")
    good = pq.read_table(tmp_path / "p")
    whole = (tmp_path / "p").read_bytes()

    def refused(code: str, message: str, users: Table = USERS) -> None:
        live = made(users)
        with pytest.raises(ArtefactError, match=message) as error:
            from_parquet(live, "users", tmp_path / "p")
        assert error.value.code == code and live.rows == {"users": 0, "items": 0}

    refused("TRAIN033", r"column 'values' is .*\[3\].* takes .*\[4\]", replace(USERS, dim=4))
    refused("TRAIN033", "optimizer is RowwiseAdagrad there and Sgd here", replace(USERS, optimizer=Sgd()))
    for at in random.Random(0).sample(range(4, len(whole) - 8), 40):
        (tmp_path / "p").write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        live = made()
        try:
            from_parquet(live, "users", tmp_path / "p")
        except ArtefactError:
            assert live.rows["users"] == 0
        else:
            assert columns(LiveRows(live), 0) == columns(LiveRows(tables), 0), "statistics nobody reads"
    (tmp_path / "p").write_bytes(whole[: len(whole) // 2])
    refused("TRAIN031", "is damaged, or no Parquet")
    pq.write_table(good.drop_columns(["values"]), tmp_path / "p")
    refused("TRAIN033", "it has no column 'values'")
    flat = np.concatenate([np.asarray(row, dtype=np.float32) for row in good["values"].to_pylist()])
    flat[7] = np.nan
    field = good.schema.field("values")
    broken = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
    pq.write_table(good.set_column(1, field, broken), tmp_path / "p")
    refused("TRAIN031", "column 'values' has a number that is not finite in row 3")
    with pytest.raises(RequestError, match=r"there is no table 'user'\n  hint: did you mean 'users'"):
        from_parquet(tables, "user", tmp_path / "p")
    with pytest.raises(ArtefactError, match=r"TRAIN037 .*nothing"):
        from_parquet(tables, "users", tmp_path / "nothing")


def known() -> EmbeddingTables:
    """Users 1 to 9 with values of key x (1, 0, 0), seen as often; items 5 and 6 x 2^52 + 1."""
    tables = EmbeddingTables(
        [replace(USERS, optimizer=Sgd(), learning_rate=1.0, init=Uniform(0, 1e-30)), replace(ITEMS, dtype="f32")], SLOTS
    )
    for key in range(1, 10):
        for _ in range(key):
            grads = np.array([[-1, 0, 0]], dtype=np.float32)
            tables.update("user", np.array([key], dtype=np.int64), grads, 1_700_000_000 + key)
    tables.update("item", np.array([5, 6]) * 2**52 + 1, np.zeros((2, 2), dtype=np.float32), 1_700_000_000)
    return tables


def test_stat_counts_what_is_there(tmp_path: Path) -> None:
    Checkpoints(tmp_path, known(), plan="p").save({})
    found = stat(open_rows(tmp_path))
    assert (found["what"], found["rows"], found["plan"]) == ("checkpoint", 11, "p")
    users, items = found["tables"]
    assert users["norms"] == [
        {"from": 1.0, "below": 2.0, "rows": 1},
        {"from": 2.0, "below": 4.0, "rows": 2},
        {"from": 4.0, "below": 8.0, "rows": 4},
        {"from": 8.0, "below": 16.0, "rows": 2},
    ]
    assert users["counts"] == [{**b, "from": int(b["from"]), "below": int(b["below"])} for b in users["norms"]]
    assert users["slots"] == {"user": 9} and items["slots"] == {"item": None, "history": None}
    assert users["last_seen_s"] == [1_700_000_001, 1_700_000_009]
    assert (users["bytes"], users["zero_rows"], users["not_finite_rows"]) == (9 * 12, 0, 0)


class Texts:
    """A plan that knows two slots and the texts of one."""

    slots = {"item": 5, "history": 6}  # noqa: RUF012

    def text(self, slot: str, key: int) -> str:
        return f"text {key & 15}" if slot == "item" else ""


def test_the_heaviest_keys_come_first_with_what_the_plan_says(tmp_path: Path) -> None:
    tables = known()
    found = head(LiveRows(tables), "norm", 3, "users")
    assert [(row["key"], row["norm"], row["count"]) for row in found] == [("9", 9.0, 9), ("8", 8.0, 8), ("7", 7.0, 7)]
    assert found[0]["values"] == [9.0, 0.0, 0.0] or found[0]["values"][0] == 9.0
    items = head(LiveRows(tables), "count", 5, "items", Texts())
    assert [(row["slot"], row["text"]) for row in items] == [("item", "text 1"), ("history", "")]
    assert stat(_on_disk(tables, tmp_path), Texts())["tables"][1]["slots"] == {"item": 1, "history": 1}
    write_snapshot(tables, tmp_path / "s")
    with pytest.raises(RequestError, match="a snapshot has no counts"):
        head(open_rows(tmp_path / "s"), "count")


def _on_disk(tables: EmbeddingTables, folder: Path) -> Any:
    Checkpoints(folder / "c", tables).save({})
    return open_rows(folder / "c")


FEATURES = """<features xmlns="urn:penstock:features:1" name="ctr" seed="0">
  <dict name="cities" path="cities.txt"/>
  <slot name="user" id="1" fn="hash" from="user_id"/>
  <slot name="city" id="2" fn="pickcat" from="city" dict="cities" unknown="0"/>
  <slot name="price" id="3" fn="piecewise" from="price" bounds="0, 10, 50"/>
  <slot name="hour" id="4" fn="bucketize_time" from="at" unit="s" part="hour"/>
</features>
"""


@pytest.mark.parametrize("mapped", [True, False])
def test_the_plan_of_a_bundle_says_what_keys_stand_for(tmp_path: Path, mapped: bool) -> None:
    (tmp_path / "cities.txt").write_text("Roma\nParis\n")
    (tmp_path / "features.xml").write_text(FEATURES)
    file, faults = read(tmp_path / "features.xml")
    assert file is not None and not faults
    plan = resolve(check(file, Schema.unknown()))
    bundle = tmp_path / "bundle"
    plan.save(bundle)
    slots = dict.fromkeys(plan.slots, "all") if not mapped else {slot: slot for slot in plan.slots}
    tables = EmbeddingTables([Table(name, 1, Sgd()) for name in dict.fromkeys(slots.values())], slots, mapped=mapped)
    rows = [("u", "Paris", 12.0, 3), ("u", "Oslo", -1.0, 3), ("v", "Roma", 50.0, 4)]
    for user, city, price, hour in rows:
        row = {"user_id": user, "city": city, "price": price, "at": 3600 * hour}
        for slot, keys, _, _ in plan.apply_row(row):
            at = np.array(keys, dtype=np.uint64).view(np.int64)
            tables.update(slot, at, np.zeros((len(at), 1), dtype=np.float32))
    Checkpoints(bundle / "training", tables, plan=plan.fingerprint).save({})
    meaning = texts_beside(bundle)
    found = head(open_rows(bundle), "count", 20, meaning=meaning)
    assert {(row["slot"], row["text"], row["count"]) for row in found} == {
        ("user", "", 2), ("user", "", 1),
        ("city", "Paris", 1), ("city", "not in the dictionary", 1), ("city", "Roma", 1),
        ("price", "in [10, 50)", 1), ("price", "below 0", 1), ("price", "from 50 up", 1),
        ("hour", "hour 3", 2), ("hour", "hour 4", 1),
    }  # fmt: skip
    counted = [table["slots"] for table in stat(open_rows(bundle), meaning)["tables"]]
    expected = {"user": 2, "city": 3, "price": 3, "hour": 2}
    assert {slot: rows for slots in counted for slot, rows in slots.items()} == expected


def test_a_difference_names_keys_that_came_went_and_moved(tmp_path: Path) -> None:
    tables = known()
    write_snapshot(tables, tmp_path / "a")
    tables.update("user", np.array([4, 77], dtype=np.int64), np.array([[0, 3, 0], [1, 0, 0]], dtype=np.float32))
    write_snapshot(tables, tmp_path / "b")
    there = diff(open_rows(tmp_path / "a"), open_rows(tmp_path / "b"))
    users, items = there["tables"]
    assert (users["only_in_first"], users["only_in_second"], users["same"], users["changed"]) == (0, 1, 8, 1)
    assert [(row["key"], row["move"]) for row in users["moves"]] == [("4", 3.0)] and users["largest_move"] == 3.0
    assert items["same"] == 2 and not items["moves"]
    back = diff(open_rows(tmp_path / "b"), open_rows(tmp_path / "a"))["tables"][0]
    assert (back["only_in_first"], back["only_in_second"], back["changed"]) == (1, 0, 1)


def test_the_commands_print_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = known()
    Checkpoints(tmp_path / "c", tables).save({})
    write_snapshot(tables, tmp_path / "bundle" / "rows.snapshot")
    assert main(["table", "stat", str(tmp_path / "c")]) == 0
    text = capsys.readouterr().out
    assert "table users: 9 rows of 3 x f32, Sgd, 108 bytes of values and state" in text
    assert "  4 to 8  4  " + "█" * 32 in text and "4 to 7  4  " in text
    assert "last seen 2023-11-14 22:13:21 to 2023-11-14 22:13:29" in text
    assert main(["table", "stat", str(tmp_path / "bundle"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "snapshot"
    assert main(["table", "head", str(tmp_path / "c"), "--by", "count", "--rows", "1", "--table", "users"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["table", "slot", "key", "norm", "count", "last", "seen", "values"]
    assert lines[1].split()[:5] == ["users", "user", "9", "9", "9"]
    assert main(["table", "diff", str(tmp_path / "c"), str(tmp_path / "bundle")]) == 0
    assert "0 gone, 0 new, 9 the same, 0 changed" in capsys.readouterr().out
    for arguments in (["stat", str(tmp_path)], ["stat", str(tmp_path / "nothing")]):
        assert main(["table", *arguments]) == 2
        assert "hint:" in capsys.readouterr().err
    (tmp_path / "text").write_text("no snapshot" * 20)
    assert main(["table", "stat", str(tmp_path / "text"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["code"] == "TRAIN031"

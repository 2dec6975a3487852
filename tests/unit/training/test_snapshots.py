"""Serving snapshots: the bits of the live tables, from a file that says where it is broken."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import RequestError
from penstock.training.artefacts import ArtefactError
from penstock.training.snapshots import Snapshot, write_snapshot
from penstock.training.tables import Bag, Count, EmbeddingTables, Normal, Sgd, Table, Uniform

KEYS = np.concatenate([np.arange(1, 2_001, dtype=np.int64) * 40_503, [0, -1, 2**63 - 1, -(2**63)]])


def made(dtype: Any = "f32") -> EmbeddingTables:
    tables = EmbeddingTables(
        [
            Table("users", 5, Sgd(), 0.1, Uniform(-1, 1), dtype=dtype),
            Table("items", 16, Sgd(), 0.1, admission=Count(2)),
        ],
        {"user": "users", "item": "items", "history": "items"},
        threads=2,
    )
    rng = np.random.default_rng(1)
    for slot in ("user", "item", "item"):
        tables.update(slot, KEYS, rng.normal(size=(len(KEYS), tables.dim(slot))).astype(np.float32), 5)
    return tables


def bag(seed: int, samples: int, *, weighted: bool) -> Bag:
    """Bags of up to 60 keys, some of them unknown, one longer than what is read at a time."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 60, samples)
    lengths[3] = 2_500
    keys = rng.choice(np.concatenate([KEYS, KEYS + 1]), lengths.sum())
    weights = rng.normal(size=len(keys)).astype(np.float32) if weighted else None
    return Bag(keys, np.concatenate([[0], np.cumsum(lengths)]), weights)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_look_ups_and_pooling_have_the_bits_of_the_live_tables(tmp_path: Path, dtype: Any) -> None:
    tables = made(dtype)
    path = tmp_path / "new" / "model.snap"
    assert write_snapshot(tables, path, plan="p") == sum(tables.rows.values()) == 2 * len(KEYS)
    snapshot = Snapshot(path, ["user", "history"], verify=True, plan="p", dims={"item": 16})
    assert [(t.name, t.dim, t.dtype, t.rows) for t in snapshot.tables] == [
        ("users", 5, dtype, len(KEYS)),
        ("items", 16, "f32", len(KEYS)),
    ]
    assert snapshot.slots == ("user", "item", "history") and snapshot.plan == "p"
    some = np.concatenate([KEYS, KEYS + 1])
    for slot in snapshot.slots:
        assert snapshot.lookup(slot, some).tobytes() == tables.lookup(slot, some).tobytes()
    for weighted in (False, True):
        for pooling in ("sum", "mean", "sqrtn"):
            bags = {slot: bag(i, 50, weighted=weighted) for i, slot in enumerate(("history", "user", "item"))}
            assert snapshot.pool(bags, pooling).tobytes() == tables.pool(bags, pooling).tobytes()
    assert snapshot.pool({}).shape == (0, 0)


def test_the_rows_of_bags_are_padded(tmp_path: Path) -> None:
    tables = made()
    write_snapshot(tables, tmp_path / "s")
    padded, mask = Snapshot(tmp_path / "s").rows("user", Bag(KEYS[[5, 9, 5]], np.array([0, 2, 2, 3])))
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert np.array_equal(padded[0], tables.lookup("user", KEYS[[5, 9]])) and not padded[1].any()
    empty, mask = Snapshot(tmp_path / "s").rows("user", Bag(KEYS[:0], np.array([0])))
    assert empty.shape == (0, 0, 5) and mask.shape == (0, 0)


def test_every_flipped_byte_is_an_error_and_never_a_wrong_weight(tmp_path: Path) -> None:
    tables = made()
    path = tmp_path / "s"
    write_snapshot(tables, path)
    whole, expected = path.read_bytes(), tables.lookup("item", KEYS)
    seen = set()
    for at in [*range(0, 64, 9), *range(64, len(whole), len(whole) // 150), len(whole) - 1]:
        other = tmp_path / f"{at}"
        other.write_bytes(whole[:at] + bytes([whole[at] ^ 32]) + whole[at + 1 :])
        with pytest.raises(ArtefactError, match=r"TRAIN031") as error:
            Snapshot(other, verify=True)
        assert error.value.file == str(other) and error.value.section in error.value.message
        seen.add(error.value.section.split(" ")[0])
        try:
            assert Snapshot(other).lookup("item", KEYS).tobytes() == expected.tobytes()
        except ArtefactError as touched:
            assert touched.code == "TRAIN031"
        other.unlink()
    assert seen >= {"header", "contents", "trailer", "row"}


def test_a_block_that_was_bad_stays_bad(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_snapshot(made(), path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 1
    path.write_bytes(whole)
    snapshot = Snapshot(path)
    for _ in range(2):
        with pytest.raises(ArtefactError, match=r"TRAIN031 .*row block"):
            for slot in snapshot.slots:
                snapshot.lookup(slot, KEYS)
    with pytest.raises(ArtefactError, match=r"TRAIN031"):
        snapshot.pool({slot: Bag(KEYS, np.array([0, len(KEYS)])) for slot in ("user", "item")})


def test_what_is_not_the_readers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_snapshot(made(), path, plan="of Monday")
    with pytest.raises(RequestError, match=r"has no slot 'itme'\n  hint: did you mean 'item'"):
        Snapshot(path, ["itme"])
    with pytest.raises(ArtefactError, match=r"TRAIN033 .*slot 'user' has dim 5 there and 8 here"):
        Snapshot(path, dims={"user": 8})
    with pytest.raises(ArtefactError, match=r"TRAIN034 .*plan 'of Monday', and this is plan 'of Tuesday'"):
        Snapshot(path, plan="of Tuesday")
    with pytest.raises(ArtefactError, match=r"TRAIN037 .*nothing: opening it failed: No such file"):
        Snapshot(tmp_path / "nothing")
    (tmp_path / "text").write_text("key,value\n" * 100)
    with pytest.raises(ArtefactError, match=r"TRAIN031 .*header is damaged: it is not an artefact of Penstock"):
        Snapshot(tmp_path / "text")
    for count in (0, 1, 63, 64, 127):
        (tmp_path / "short").write_bytes(path.read_bytes()[:count])
        with pytest.raises(ArtefactError, match=r"TRAIN03[17]"):
            Snapshot(tmp_path / "short")


def test_a_folder_where_nothing_can_be_written_keeps_the_old_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_snapshot(made(), path)
    before = path.read_bytes()
    (tmp_path / "s.tmp").mkdir()  # where the new file would be written
    with pytest.raises(ArtefactError, match=r"TRAIN037 .*s"):
        write_snapshot(made(), path)
    assert path.read_bytes() == before


def test_an_open_snapshot_outlives_its_replacement(tmp_path: Path) -> None:
    tables = made()
    path = tmp_path / "s"
    write_snapshot(tables, path)
    old, before = Snapshot(path), tables.lookup("user", KEYS)
    tables.update("user", KEYS, np.ones((len(KEYS), 5), dtype=np.float32))
    write_snapshot(tables, path)
    assert np.array_equal(old.lookup("user", KEYS), before)
    assert np.array_equal(Snapshot(path).lookup("user", KEYS), tables.lookup("user", KEYS))


def test_threads_share_a_snapshot(tmp_path: Path) -> None:
    tables = EmbeddingTables([Table("t", 8, Sgd(), 0.1, Normal())], {"s": "t"})
    keys = np.arange(20_000, dtype=np.int64)
    tables.update("s", keys, np.ones((len(keys), 8), dtype=np.float32))
    write_snapshot(tables, tmp_path / "s")
    snapshot, expected, found = Snapshot(tmp_path / "s"), tables.lookup("s", keys), []
    threads = [threading.Thread(target=lambda: found.append(snapshot.lookup("s", keys))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(rows, expected) for rows in found) and len(found) == 4

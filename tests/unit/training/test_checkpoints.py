"""Checkpoints of embedding tables: what is cut comes back, whatever happens meanwhile; what is broken says where."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import PenstockError, RequestError
from penstock.training.artefacts import ArtefactError, CutGivenUp
from penstock.training.checkpoints import Checkpoints, carry
from penstock.training.tables import (
    Adagrad,
    Adam,
    Count,
    EmbeddingTables,
    Eviction,
    Ftrl,
    RowwiseAdagrad,
    Sgd,
    Table,
    Uniform,
)

USERS = Table("users", 8, Adam(), 0.01, Uniform(-1, 1))
ITEMS = Table("items", 4, RowwiseAdagrad(), admission=Count(2, sketch_bytes=4096), eviction=Eviction(ttl_s=50))
SLOTS = {"user": "users", "item": "items", "history": "items"}
EVERY = np.arange(3_000, dtype=np.int64) * 7919


def made(*tables: Table, slots: dict[str, str] | None = None) -> EmbeddingTables:
    return EmbeddingTables(list(tables or (USERS, ITEMS)), slots or SLOTS, threads=2)


def train(tables: EmbeddingTables, batches: range) -> None:
    """Steps and sweeps that depend on nothing but the number of the batch."""
    for number in batches:
        rng = np.random.default_rng(number)
        for slot in tables.slots:
            keys = rng.choice(EVERY, 500)
            grads = rng.normal(size=(500, tables.dim(slot))).astype(np.float32)
            tables.update(slot, keys, grads, event_time_s=10 * number)
        tables.sweep(200)


def rows(tables: EmbeddingTables) -> list[dict[int, tuple[bytes, ...]]]:
    """Each table as {key: everything of its row}."""
    found = []
    for number, table in enumerate(tables.tables):
        keys, *columns = tables.native.export(number)
        n = len(keys) // 8
        cut = [[bytes(c[i * len(c) // n : (i + 1) * len(c) // n]) for i in range(n)] for c in columns]
        found.append(
            dict(zip(np.frombuffer(keys, np.int64).tolist(), zip(*cut, strict=True), strict=True)) if n else {}
        )
        assert len(found[-1]) == tables.rows[table.name]
    return found


def test_training_from_a_checkpoint_equals_training_that_was_never_stopped(tmp_path: Path) -> None:
    undisturbed, killed = made(), made()
    checkpoints = Checkpoints(tmp_path / "ckpt", killed, plan="p1")
    assert checkpoints.resume() is None
    for number in range(4):
        for tables in (undisturbed, killed):
            train(tables, range(5 * number, 5 * number + 5))
        sections = {"positions": number.to_bytes(4, "big"), "dense": b"\0" * 1000}
        committed = checkpoints.save(sections, full=number == 2)
        assert committed.parent == (None if number in (0, 2) else committed.sequence - 1)
        assert committed.path.exists()
    train(killed, range(100, 105))  # is lost
    resumed = made()
    again = Checkpoints(tmp_path / "ckpt", resumed, plan="p1")
    assert again.resume() == sections
    assert rows(resumed) == rows(undisturbed)
    for tables in (undisturbed, resumed):
        train(tables, range(20, 40))
    assert rows(resumed) == rows(undisturbed), "sketch, clock, cursor and Adam's count came along"
    assert again.save({}).parent == 4
    assert again.prune() == 2, "the second full cut and those after it are needed"
    assert len(list((tmp_path / "ckpt").iterdir())) == 3


def test_an_open_cut_has_the_tables_of_its_instant_while_training_goes_on(tmp_path: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(tmp_path, tables)
    train(tables, range(5))
    before = rows(tables)
    cut = checkpoints.prepare({"x": b"1"})
    with pytest.raises(ArtefactError, match=r"TRAIN038 a cut of these tables is open"):
        checkpoints.prepare({})
    number, whole = 5, False
    while not whole:
        whole = cut.write(300)
        train(tables, range(number, number + 1))
        number += 1
    assert number > 8, "it took several turns"
    cut.commit()
    with pytest.raises(ArtefactError, match=r"TRAIN038 the cut is no longer open"):
        cut.commit()
    resumed = made()
    Checkpoints(tmp_path, resumed).resume()
    assert rows(resumed) == before != rows(tables)


def test_a_cut_is_written_by_a_thread_of_its_own(tmp_path: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(tmp_path, tables)
    train(tables, range(5))
    for number in range(5, 10):
        before = rows(tables)
        cut, committed = checkpoints.prepare({}), []
        thread = threading.Thread(target=lambda cut=cut, to=committed: to.append(cut.commit()))
        thread.start()
        train(tables, range(number, number + 1))
        thread.join()
        assert committed[0].sequence == number - 4
        resumed = made()
        Checkpoints(tmp_path, resumed).resume()
        assert rows(resumed) == before


def test_a_cut_that_copies_too_much_is_given_up_and_training_goes_on(tmp_path: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(tmp_path, tables)
    train(tables, range(5))
    cut = checkpoints.prepare({}, copy_limit_bytes=1000)
    train(tables, range(5, 6))
    with pytest.raises(CutGivenUp, match=r"TRAIN036 .*1,000 bytes of copies\n  hint: nothing was written"):
        cut.commit()
    assert not list(tmp_path.iterdir())
    cut = checkpoints.prepare({})
    cut.write(10)
    cut.abort()
    cut.abort()
    del cut
    assert not list(tmp_path.iterdir())
    assert checkpoints.save({}).parent is None


def test_an_interrupted_write_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(tmp_path, tables)
    train(tables, range(3))
    checkpoints.save({"batch": b"3"})
    before = rows(tables)
    train(tables, range(3, 6))
    cut = checkpoints.prepare({"batch": b"6"})
    cut.write(100)
    torn = next(tmp_path.glob("*.tmp"))
    copy = torn.read_bytes()
    cut.abort()
    torn.write_bytes(copy)  # as a kill would leave it
    resumed = made()
    again = Checkpoints(tmp_path, resumed)
    assert again.resume() == {"batch": b"3"}
    assert rows(resumed) == before
    again.save({})
    assert not list(tmp_path.glob("*.tmp"))


def test_a_flipped_byte_anywhere_is_an_error_that_names_file_and_section(tmp_path: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(tmp_path, tables)
    train(tables, range(3))
    path = checkpoints.save({"dense": b"weights"}).path
    whole = path.read_bytes()
    sections = set()
    for at in [*range(0, 64, 7), *range(64, len(whole), max(1, len(whole) // 200)), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        resumed = made()
        with pytest.raises(ArtefactError) as error:
            Checkpoints(tmp_path, resumed).resume()
        assert error.value.code == "TRAIN031" and error.value.file == str(path), str(error.value)
        assert error.value.section and error.value.section in error.value.message
        assert resumed.rows == {"users": 0, "items": 0}
        sections.add(re.sub(r" \d+.*", "", error.value.section))
    assert sections >= {"header", "trailer", "contents", "rows", "sketch"}
    path.write_bytes(whole[:-100])
    with pytest.raises(ArtefactError, match="cut short"):
        Checkpoints(tmp_path, made()).resume()
    path.write_bytes(whole)
    assert Checkpoints(tmp_path, resumed).resume() == {"dense": b"weights"}, "errors left the tables as they were"


OTHER: list[tuple[list[Table], dict[str, str], str]] = [
    ([replace(USERS, dim=16), ITEMS], SLOTS, r"table 'users': dim is 8 there and 16 here"),
    ([replace(USERS, optimizer=Adagrad()), ITEMS], SLOTS, r"table 'users': optimizer is Adam there and Adagrad here"),
    ([replace(USERS, dtype="bf16"), ITEMS], SLOTS, r"table 'users': values is F32 there and Bf16 here"),
    ([replace(USERS, seed=3), ITEMS], SLOTS, r"table 'users': seed is 0 there and 3 here"),
    ([USERS, replace(ITEMS, name="goods")], {"user": "users", "item": "goods", "history": "goods"}, "items there"),
    ([USERS, ITEMS], {**SLOTS, "item": "users"}, r"slot 1 is table 1, raw keys there and table 0, raw keys here"),
]


@pytest.mark.parametrize(("tables", "slots", "message"), OTHER)
def test_other_tables_are_refused_with_the_first_difference(
    tmp_path: Path, tables: list[Table], slots: dict[str, str], message: str
) -> None:
    written = made()
    train(written, range(2))
    Checkpoints(tmp_path, written).save({})
    with pytest.raises(ArtefactError, match=message) as error:
        Checkpoints(tmp_path, made(*tables, slots=slots)).resume()
    assert error.value.code == "TRAIN033"


def test_another_plan_other_slots_and_another_format_are_refused(tmp_path: Path) -> None:
    tables = made()
    train(tables, range(2))
    path = Checkpoints(tmp_path, tables, plan="of Monday").save({}).path
    with pytest.raises(ArtefactError, match=r"TRAIN034 .* plan 'of Monday', and this is plan 'of Tuesday'"):
        Checkpoints(tmp_path, made(), plan="of Tuesday").resume()
    renamed = made(slots={"user": "users", "goods": "items", "history": "items"})
    with pytest.raises(
        ArtefactError, match=r"TRAIN034 .*slots user, item, history; here they are user, goods, history"
    ):
        Checkpoints(tmp_path, renamed, plan="of Monday").resume()
    with pytest.raises(ArtefactError, match=r"TRAIN039 table 'users' has been trained already"):
        Checkpoints(tmp_path, tables, plan="of Monday").resume()
    path.write_bytes(another_format(path.read_bytes(), 9))
    with pytest.raises(ArtefactError, match=r"TRAIN032 .* format 9, .* format 1\n  hint: update Penstock"):
        Checkpoints(tmp_path, made(), plan="of Monday").resume()
    path.write_bytes(another_format(path.read_bytes(), 0))
    with pytest.raises(ArtefactError, match=r"TRAIN032 .* format 0, .*\n  hint: write it again with this version"):
        Checkpoints(tmp_path, made(), plan="of Monday").resume()


def another_format(whole: bytes, version: int) -> bytes:
    """The file as a version of that format would begin it, its checksum right."""
    xxhash = pytest.importorskip("xxhash")
    head = whole[:12] + version.to_bytes(4, "little") + whole[16:56]
    return head + xxhash.xxh3_64_intdigest(head).to_bytes(8, "little") + whole[64:]


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(tmp_path, tables)
    for number in range(3):
        train(tables, range(number, number + 1))
        last = checkpoints.save({})
    (tmp_path / "000000000002.cut").unlink()
    with pytest.raises(ArtefactError, match=r"TRAIN035 .*03\.cut builds on 000000000002\.cut") as error:
        Checkpoints(tmp_path, made()).resume()
    assert error.value.file == str(last.path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_checkpoint_and_training_goes_on(small_disk: Path) -> None:
    tables = made()
    checkpoints = Checkpoints(small_disk, tables)
    train(tables, range(1))
    checkpoints.save({"n": b"1"})
    before = rows(tables)
    train(tables, range(1, 20))
    with pytest.raises(ArtefactError, match=r"TRAIN037 .*No space left on device") as error:
        checkpoints.save({"n": b"2"}, full=True)
    assert "is whole" in error.value.hint and isinstance(error.value, PenstockError)
    assert [path.name for path in small_disk.iterdir()] == ["000000000001.cut"]
    resumed = made()
    assert Checkpoints(small_disk, resumed).resume() == {"n": b"1"}
    assert rows(resumed) == before
    train(tables, range(20, 21))


def test_a_folder_that_cannot_be_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match=r"TRAIN037 .*file/ckpt: making the folder failed"):
        Checkpoints(tmp_path / "file" / "ckpt", made())
    with pytest.raises(ArtefactError, match="looking for a checkpoint in it failed"):
        carry(tmp_path / "nothing", made(), ["users"])
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_new_model_carries_the_tables_that_are_still_alike(tmp_path: Path, cuts: int) -> None:
    old = made()
    checkpoints = Checkpoints(tmp_path, old, plan="of Monday")
    for number in range(cuts):
        train(old, range(number * 8, number * 8 + 8))
        checkpoints.save({"dense": b"old"})
    cities = Table("cities", 4, Sgd())
    grown = [cities, replace(ITEMS, init=Uniform(-2, 2), seed=5), replace(USERS, name="people", learning_rate=0.5)]
    slots = {"city": "cities", "item": "items", "user": "people", "history": "items"}
    new = made(*grown, slots=slots)
    carried = carry(tmp_path, new, {"users": "people", "items": "items"})
    assert carried == {"people": old.rows["users"], "items": old.rows["items"]} and min(carried.values()) > 100
    empty, items, people = rows(new)
    assert [people, items] == rows(old) and not empty
    # State, counts and the number of updates come along: the tables step as the old ones would.
    old.native.set_learning_rate(0, 0.5)
    for tables in (old, new):
        for slot in ("user", "item", "history"):
            grads = np.ones((len(EVERY), tables.dim(slot)), dtype=np.float32)
            tables.update(slot, EVERY, grads, 10 * 8 * cuts)
    known = np.array(sorted(people), dtype=np.int64)
    assert np.array_equal(new.lookup("user", known), old.lookup("user", known))
    assert rows(new)[1].keys() == rows(old)[1].keys(), "sightings of keys without a row were carried"
    again = Checkpoints(tmp_path / "new", new, plan="of Tuesday")
    again.save({})
    resumed = made(*grown, slots=slots)
    Checkpoints(tmp_path / "new", resumed, plan="of Tuesday").resume()
    assert rows(resumed) == rows(new)


def test_what_was_carried_is_in_the_next_incremental_cut(tmp_path: Path) -> None:
    old, new = made(), made()
    train(old, range(4))
    Checkpoints(tmp_path / "old", old).save({})
    checkpoints = Checkpoints(tmp_path / "new", new)
    checkpoints.save({})
    carry(tmp_path / "old", new, ["items"])
    assert checkpoints.save({}).parent == 1
    resumed = made()
    Checkpoints(tmp_path / "new", resumed).resume()
    assert rows(resumed)[1] == rows(old)[1]


# A step of gradient 1 by an optimizer that has seen nothing: what it takes from a value.
FIRST_STEPS: list[tuple[Any, Any]] = [
    (Adam(), lambda values: 0.01),
    (Adagrad(initial=0.25), lambda values: 0.01 / np.sqrt(0.25 + 1)),
    (Sgd(), lambda values: 0.01),
    # w = -(z' - sign(z') l1) / ((beta + 1) / alpha), of z' = z + 1 - w / alpha and the z that gave w at n = 0.
    (Ftrl(), lambda values: values - (values * (1 / 0.01 + 1 / 0.01) - 1) / ((1 + 1) / 0.01)),
]


@pytest.mark.parametrize(("optimizer", "moved"), FIRST_STEPS)
def test_rows_may_come_without_what_their_optimizer_remembers(tmp_path: Path, optimizer: Any, moved: Any) -> None:
    old = made()
    train(old, range(6))
    Checkpoints(tmp_path, old).save({})
    new = made(replace(USERS, optimizer=optimizer), ITEMS)
    assert carry(tmp_path, new, ["users", "items"], state="fresh") == old.rows
    for before, after in zip(rows(old), rows(new), strict=True):
        # Values, counts and times are as they were; the state is not.
        assert {key: (row[0], *row[2:]) for key, row in after.items()} == {
            key: (row[0], *row[2:]) for key, row in before.items()
        }
    known = np.array(sorted(rows(new)[0]), np.int64)
    values = new.lookup("user", known)
    new.update("user", known, np.ones_like(values), event_time_s=60)
    np.testing.assert_allclose(new.lookup("user", known), values - moved(values), rtol=1e-5, atol=1e-6)


def test_rows_without_state_may_change_their_type_and_the_rest_is_refused_as_ever(tmp_path: Path) -> None:
    old = made()
    train(old, range(2))
    (cut,) = [Checkpoints(tmp_path, old).save({}).path]
    half = made(replace(USERS, dtype="f16"), ITEMS)
    carry(tmp_path, half, ["users"], state="fresh")
    known = np.array(sorted(rows(old)[0]), np.int64)
    np.testing.assert_allclose(half.lookup("user", known), old.lookup("user", known), atol=1e-3)
    with pytest.raises(ArtefactError, match="TRAIN039 table 'users'"):
        carry(tmp_path, half, ["users"], state="fresh")
    both = made(replace(USERS, name="both"), slots={"user": "both"})
    with pytest.raises(ArtefactError, match="TRAIN039 table 'both'"):
        carry(tmp_path, both, {"users": "both", "items": "both"}, state="fresh")
    wide = made(replace(USERS, dim=9), ITEMS)
    with pytest.raises(ArtefactError, match=r"TRAIN033 .*table 'users': dim is 8 there and 9 here"):
        carry(tmp_path, wide, ["items", "users"], state="fresh")
    damaged = bytearray(cut.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    cut.write_bytes(damaged)
    empty = made()
    with pytest.raises(ArtefactError, match="TRAIN031"):
        carry(tmp_path, empty, ["items", "users"], state="fresh")
    assert not any((*wide.rows.values(), *both.rows.values(), *empty.rows.values())), "nothing is filled"


REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({"dim": 9}, ["users"], "TRAIN033 .*table 'users': dim is 8 there and 9 here"),
    ({"optimizer": Sgd()}, ["users"], "TRAIN033 .*table 'users': optimizer is Adam there and Sgd here"),
    ({"optimizer": Adam(per_row=True)}, ["users"], "TRAIN033 .*state steps is not set there and 1 here"),
    ({"dtype": "f16"}, ["users"], "TRAIN033 .*values is F32 there and F16 here"),
    ({"name": "people"}, ["users"], "there is no table 'users' here"),
    ({}, ["user"], r"there is no table 'user' in .*\n  hint: did you mean 'users'\?"),
    ({"name": "both"}, {"users": "both", "items": "both"}, "TRAIN039 table 'both'"),
]


@pytest.mark.parametrize(("changed", "names", "message"), REFUSED)
def test_tables_that_are_made_otherwise_are_not_carried(
    tmp_path: Path, changed: dict[str, Any], names: Any, message: str
) -> None:
    old = made()
    train(old, range(2))
    Checkpoints(tmp_path, old).save({})
    table = replace(USERS, **changed)
    new = made(table, slots={"user": table.name})
    with pytest.raises((ArtefactError, RequestError), match=message):
        carry(tmp_path, new, names)
    assert set(new.rows.values()) == {0}

"""Chains: what a trainer publishes is what readers get, whole, in order, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock import native
from penstock.registry import chain
from penstock.registry.chain import ChainError, ChainHead, Delta, Fenced, Gap, Publisher, Rebase, Standing, Unsound
from penstock.registry.chain_reading import ChainTail
from penstock.registry.chain_records import Assembler, Begin, Whole
from penstock.streams import StreamError, Topic, open_topic
from penstock.training.tables import Constant, EmbeddingTables, Eviction, Sgd, Table

WHERE = {"positions": {"samples": {0: 7}}, "event_time_ms": 1000}


@pytest.fixture
def topic(tmp_path: Path) -> Iterator[Topic]:
    with open_topic(f"log:{tmp_path}/chain") as opened:
        yield opened


def tables(rows: int = 0) -> EmbeddingTables:
    made = EmbeddingTables(
        [
            Table("items", 3, Sgd(), 1.0, Constant(0.0), eviction=Eviction(ttl_s=10)),
            Table("users", 2, Sgd(), 1.0, Constant(0.5)),
        ],
        {"item": "items", "user": "users"},
        threads=1,
    )
    if rows:
        step(made, np.arange(rows), -1.0)
    return made


def step(held: EmbeddingTables, keys: np.ndarray, by: float, slot: str = "item", at: int = 0) -> None:
    keys = np.asarray(keys, np.int64)
    held.update(slot, keys, np.full((len(keys), held.dim(slot)), by, np.float32), at)


def publisher(topic: Topic, held: EmbeddingTables, generation: int = 1, **more: str) -> Publisher:
    made = Publisher(topic, "ctr", generation, plan="p1", base="b1", **more)  # type: ignore[arg-type]
    if generation == 1:
        made.track(held.native)
    return made


def replica(deltas: list[Delta]) -> dict[tuple[int, int], list[float]]:
    """What a reader has that began from nothing."""
    held: dict[tuple[int, int], list[float]] = {}
    for delta in deltas:
        for table, (keys, values) in delta.rows.items():
            held.update({(table, int(k)): v.tolist() for k, v in zip(keys, values, strict=True)})
        for table, keys in delta.gone.items():
            for k in keys:
                held.pop((table, int(k)), None)
    return held


def contents(held: EmbeddingTables) -> dict[tuple[int, int], list[float]]:
    found = {}
    for number, table in enumerate(held.tables):
        keys, values, *_ = held.native.export(number)
        rows = np.frombuffer(values, np.float32).reshape(-1, table.dim)
        found.update({(number, int(k)): v.tolist() for k, v in zip(np.frombuffer(keys, np.int64), rows, strict=True)})
    return found


def wholes(topic: Topic) -> list[Whole]:
    assembler = Assembler("ctr")
    found = [assembler.take(record) for record in chain.records(topic, 0, topic.start(0), None)]
    return [one for one in found if isinstance(one, Whole)]


def test_what_a_reader_has_is_what_the_trainer_has(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    weights = {"top.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "top.bias": np.float32([1.5])}
    step(held, np.arange(100), -1.0, at=0)
    step(held, np.arange(5), -2.0, "user")
    first = made.publish(held.native, dense=weights, **WHERE)
    step(held, np.arange(50, 120), -0.25, at=100)
    held.sweep(1 << 20)  # keys 0 to 49 were not seen since
    second = made.publish(held.native, dense=None, **WHERE)

    assert (first.sequence, first.rows, first.gone) == (1, 105, 0)
    assert (second.sequence, second.rows, second.gone) == (2, 70, 50)
    deltas = list(chain.read(topic, None, model="ctr"))
    assert replica(deltas) == contents(held)
    assert deltas[0].dense is not None and deltas[1].dense is None
    assert all((deltas[0].dense[name] == value).all() for name, value in weights.items())
    assert deltas[0].positions == {"samples": {0: 7}} and deltas[1].event_time_ms == 1000
    assert [d.head for d in chain.read(topic, deltas[0].head)] == [ChainHead("ctr", 1, 2)]


def test_half_values_are_rounded_to_the_nearest(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held, values="f16")
    step(held, np.array([7]), -0.1)
    made.publish(held.native, dense=None, **WHERE)
    (delta,) = chain.read(topic, None, model="ctr")
    assert delta.rows[0][1].tolist() == [[float(np.float16(0.1))] * 3]


def test_a_delta_costs_its_changed_rows_however_large_the_table_is() -> None:
    held = tables(200_000)
    held.native.track_changes("chain")
    step(held, np.arange(100, 200), -1.0)
    step(held, np.arange(150, 160), -1.0)
    bodies, _, rows, gone, visited = held.native.pack_changes("chain", [], False, 1 << 20)
    assert (rows, gone, visited) == (100, 0, 100)
    assert sum(map(len, bodies)) < 100 * (8 + 12) + 100


def test_a_delta_of_many_parts_is_one(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "RECORD_BYTES", (1 << 16) + 1000)
    monkeypatch.setattr(chain, "APPEND_BYTES", 5000)
    held = tables()
    made = publisher(topic, held)
    step(held, np.arange(1000), -1.0)
    big = {"w": np.arange(1000, dtype=np.float32).reshape(10, 100)}
    made.publish(held.native, dense=big, **WHERE)
    (whole,) = wholes(topic)
    assert len(whole.records) > 20 and max(len(part.record) for part in whole.records) < 1200
    (delta,) = chain.read(topic, None, model="ctr")
    assert replica([delta]) == contents(held) and delta.dense is not None
    assert (delta.dense["w"] == big["w"]).all()


def test_parts_that_nobody_committed_do_not_count(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    step(held, np.arange(3), -1.0)
    made.publish(held.native, dense=None, **WHERE)
    torn = native.delta_records(
        (1, 2, 2, 99), [wholes(topic)[0].records[0].record[64:]], [], 3, 0, ("ctr", "p1", "b1", "{}"), 1 << 20
    )
    topic.append(torn[:-1], keys=[b"ctr"])
    assert [d.sequence for d in chain.read(topic, None, model="ctr")] == [1]


def test_what_was_not_acknowledged_is_published_again_and_acts_once(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tables()
    made = publisher(topic, held)
    step(held, np.arange(3), -1.0)
    made.publish(held.native, dense=None, **WHERE)
    append = type(topic).append

    def lost(self: Topic, *args: object, **kwargs: object) -> dict[int, int]:
        append(self, *args, **kwargs)  # type: ignore[arg-type]
        raise StreamError("no answer", "", "STRM017")

    step(held, np.arange(2), -1.0)
    with monkeypatch.context() as broken, pytest.raises(StreamError):
        broken.setattr(type(topic), "append", lost)
        made.publish(held.native, dense=None, **WHERE)
    step(held, np.arange(1), -1.0)
    again = made.publish(held.native, dense=None, **WHERE)
    assert (again.sequence, again.rows) == (3, 2)
    assert [(d.from_, d.to) for d in chain.read(topic, None, model="ctr")] == [(1, 1), (2, 2), (2, 3)]
    assert replica(list(chain.read(topic, None, model="ctr"))) == contents(held)


def test_a_recovered_trainer_takes_back_what_it_published_after_its_cut(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    step(held, np.arange(10), -1.0)
    cut = made.publish(held.native, dense=None, **WHERE)
    step(held, np.arange(10, 12), -1.0)  # before the cut, not yet published
    at_cut = contents(held)
    recovered = tables()
    for number in range(2):
        keys, values, state, counts, seen = held.native.export(number)
        columns = [np.frombuffer(keys, np.int64), np.frombuffer(values, np.float32), np.frombuffer(state, np.float32)]
        recovered.native.put(number, *columns, np.frombuffer(counts, np.uint32), np.frombuffer(seen, np.uint32))
    recovered.native.track_changes("chain")
    step(recovered, np.array([10, 11]), 0.0)  # as its checkpoint would know them: changed since the last delta

    step(held, np.arange(5, 20), -1.0)  # after the cut: new keys, and changed ones
    made.publish(held.native, dense=None, **WHERE)
    again = Publisher(topic, "ctr", 2, plan="p1", base="b1")
    head = ChainHead("ctr", 1, cut.sequence)
    done = again.restore(recovered.native, after=head, offset=cut.last + 1, dense=None, **WHERE)
    assert (done.sequence, done.rows, done.gone) == (1, 7, 8)
    assert replica(list(chain.read(topic, None, model="ctr"))) == at_cut

    # The older trainer wakes up: it is told, and what it may still have written counts for nobody.
    with pytest.raises(Fenced, match="generation 2 is written by another"):
        made.publish(held.native, dense=None, **WHERE)


def test_a_zombies_deltas_after_the_fence_are_left_out(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    step(held, np.arange(3), -1.0)
    made.publish(held.native, dense=None, **WHERE)
    later = Publisher(topic, "ctr", 2, plan="p1", base="b1")
    later.restore(held.native, after=ChainHead("ctr", 1, 1), dense=None, **WHERE)
    topic.append(native.delta_records((1, 2, 2, 5), [], [], 0, 0, ("ctr", "p1", "b1", "{}"), 1 << 20), keys=[b"ctr"])
    assert [d.head[1:] for d in chain.read(topic, None, model="ctr")] == [(1, 1), (2, 1)]


def test_a_missing_or_damaged_delta_is_told_and_never_skipped(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    for key in range(3):
        step(held, np.array([key]), -1.0)
        made.publish(held.native, dense=None, **WHERE)
    record = wholes(topic)[1].records[0].record
    bad = bytearray(record)
    bad[-1] ^= 1
    with open_topic(f"log:{topic.name.removeprefix('log:')}-2") as other:
        copied = list(chain.records(topic, 0, topic.start(0), None))
        other.append([r.value for r in copied[:3]], keys=[r.key for r in copied[:3]])
        other.append([bytes(bad)], keys=[b"ctr"])
        with pytest.raises(Unsound, match="its checksum is another") as caught:
            list(chain.read(other, None, model="ctr"))
        assert caught.value.code == "CHAIN001"
    with open_topic(f"log:{topic.name.removeprefix('log:')}-3") as third:
        kept = copied[:3] + copied[5:]
        third.append([r.value for r in kept], keys=[r.key for r in kept])
        with pytest.raises(Gap, match=r"delta 1:\[3, 3\] does not follow on 1:1"):
            list(chain.read(third, None, model="ctr"))


def test_numbers_that_are_none_are_not_published(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    with pytest.raises(ChainError, match="weight 'w' holds a number that is none") as caught:
        made.publish(held.native, dense={"w": np.float32([np.nan])}, **WHERE)
    assert caught.value.code == "CHAIN003"
    held.native.put(
        0, np.array([4]), np.full(3, np.inf, np.float32), np.zeros(0, np.float32), *[np.zeros(1, np.uint32)] * 2
    )
    with pytest.raises(ChainError, match="table 0: the row of key 4"):
        made.publish(held.native, dense=None, **WHERE)
    step(held, np.array([1]), -1.0)
    held.native.put(0, np.array([4]), np.ones(3, np.float32), np.zeros(0, np.float32), *[np.zeros(1, np.uint32)] * 2)
    assert made.publish(held.native, dense=None, **WHERE).rows == 2  # nothing was lost meanwhile


def test_tables_that_nobody_tracks_are_refused(topic: Topic) -> None:
    made = Publisher(topic, "ctr", 1, plan="p1", base="b1")
    with pytest.raises(ChainError, match="call track") as caught:
        made.publish(tables(3).native, dense=None, **WHERE)
    assert caught.value.code == "CHAIN004"


def test_a_restore_whose_deltas_are_no_longer_kept_is_refused(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    for _ in range(3):
        step(held, np.arange(3), -1.0)
        made.publish(held.native, dense=None, **WHERE)
    later = Publisher(topic, "ctr", 2, plan="p1", base="b1")
    with pytest.raises(ChainError, match="not every delta after 1:0 is kept") as caught:
        later.restore(held.native, after=ChainHead("ctr", 1, 0), offset=wholes(topic)[1].first, dense=None, **WHERE)
    assert caught.value.code == "CHAIN010"


def test_a_base_is_found_again(topic: Topic) -> None:
    held = tables()
    made = publisher(topic, held)
    assert chain.newest_base(topic, "ctr") is None
    step(held, np.arange(3), -1.0)
    done = made.publish(held.native, dense=None, **WHERE)
    made.announce("/bases/1", digest="d1", sequence=done.sequence, offset=done.last + 1)
    step(held, np.arange(3), -1.0)
    done = made.publish(held.native, dense=None, **WHERE)
    made.announce("/bases/2", digest="d2", sequence=done.sequence, offset=done.last + 1)
    found = chain.newest_base(topic, "ctr")
    assert found is not None
    assert (found.head, found.address, found.root, found.offset) == (
        ChainHead("ctr", 1, 2),
        "/bases/2",
        "b1",
        done.last + 1,
    )


def test_who_looks_on_gets_each_delta_once_whatever_lies_between_its_parts(topic: Topic) -> None:
    tail = ChainTail(topic, "ctr")
    assert tail.read() == []
    held = tables()
    made = publisher(topic, held)
    step(held, np.arange(3), -1.0)
    made.publish(held.native, dense=None, **WHERE)
    made.announce("/bases/1", digest="d1", sequence=1, offset=0)
    (first,) = tail.read(wait_s=5)
    assert (first.generation, first.to) == (1, 1) and first.learnt("samples") == {0: 7} and first.learnt("other") == {}
    step(held, np.arange(3), -1.0)
    with open_topic(f"{topic.name}-2") as copied:
        made.publish(held.native, dense=None, **WHERE)
        slow = ChainTail(copied, "ctr")
        found = []
        for record in chain.records(topic, 0, 0, None):
            copied.append([record.value, b"x"], keys=[record.key, b"other"])
            found += [whole.to for whole in slow.read()]
    assert found == [whole.to for whole in ChainTail(topic, "ctr").read()] == [1, 2]


# --- the rules of standing ---


def whole(
    generation: int,
    first: int,
    last: int,
    *,
    plan: str = "p1",
    base: str = "b1",
    writer: int = 1,
    restores: object = None,
) -> Whole:
    return Whole((generation, first, last, writer), "ctr", plan, base, {"restores": restores}, (), 0, 0, 1)


def standing(generation: int, sequence: int) -> Standing:
    return Standing(ChainHead("ctr", generation, sequence), plan="p1", base="b1")


def test_deltas_are_applied_where_they_follow() -> None:
    at = standing(0, 0)
    for delta in (whole(1, 1, 1), whole(1, 2, 2), whole(1, 2, 3), whole(1, 4, 4)):
        assert at.judge(delta)
        at.applied(delta)
    assert not at.judge(whole(1, 2, 3))
    assert at.judge(whole(2, 1, 1, restores=[1, 2]))
    at.begins(Begin(ChainHead("ctr", 2, 0), 9))
    assert not at.judge(whole(1, 5, 5)) and at.refused == 1


@pytest.mark.parametrize(
    ("at", "delta", "error", "code"),
    [
        (standing(1, 3), whole(1, 5, 5), Gap, "CHAIN006"),
        (standing(1, 3), whole(2, 2, 2), Gap, "CHAIN006"),
        (standing(1, 3), whole(2, 1, 1, restores=[1, 4]), Gap, "CHAIN006"),
        (standing(0, 0), whole(1, 2, 2), Gap, "CHAIN006"),
        (standing(1, 3), whole(1, 4, 4, plan="p2"), ChainError, "CHAIN008"),
        (standing(1, 3), whole(2, 1, 1), Rebase, "CHAIN009"),
        (standing(1, 3), whole(1, 4, 4, base="b2"), Rebase, "CHAIN009"),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_refused_by_name(
    at: Standing, delta: Whole, error: type[ChainError], code: str
) -> None:
    with pytest.raises(error) as caught:
        at.judge(delta)
    assert caught.value.code == code


def test_two_writers_of_one_generation_are_told_apart() -> None:
    at = standing(0, 0)
    at.applied(whole(1, 1, 1))
    with pytest.raises(Gap, match="another writer"):
        at.judge(whole(1, 2, 2, writer=2))

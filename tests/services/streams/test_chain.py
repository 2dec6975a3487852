"""A chain on every backend: published, read back the same, recovered, fenced."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.registry.chain import ChainHead, Fenced, Publisher, holds, newest_base, read
from penstock.training.tables import Constant, EmbeddingTables, Sgd, Table

from .conftest import Backend

OF = {"positions": {"samples": {0: 7}}, "event_time_ms": 1000}


def step(held: EmbeddingTables, keys: range, by: float) -> None:
    held.update("item", np.array(keys, np.int64), np.full((len(keys), 2), by, np.float32))


def test_a_chain_is_read_as_it_was_published_and_recovers(backend: Backend) -> None:
    topic = backend.open()
    held = EmbeddingTables([Table("items", 2, Sgd(), 1.0, Constant(0.0))], {"item": "items"}, threads=1)
    first = Publisher(topic, "ctr", 1, plan="p", base="b")
    first.track(held.native)
    step(held, range(100), -1.0)
    weights = {"w": np.arange(4, dtype=np.float32)}
    cut = first.publish(held.native, dense=weights, **OF)
    first.announce("/bases/1", digest="d", sequence=cut.sequence, offset=cut.last + 1)
    step(held, range(50, 120), -1.0)
    first.publish(held.native, dense=None, **OF)

    recovered = EmbeddingTables([Table("items", 2, Sgd(), 1.0, Constant(0.0))], {"item": "items"}, threads=1)
    step(recovered, range(100), -1.0)
    second = Publisher(backend.open(create=False), "ctr", 2, plan="p", base="b")
    second.track(recovered.native)
    after = ChainHead("ctr", 1, cut.sequence)
    done = second.restore(recovered.native, after=after, offset=cut.last + 1, dense=weights, **OF)
    assert (done.rows, done.gone) == (50, 20)

    found = list(read(backend.open(create=False), None, model="ctr"))
    assert [(d.generation, d.sequence) for d in found] == [(1, 1), (1, 2), (2, 1)]
    assert found[0].dense is not None and found[0].dense["w"].tolist() == [0, 1, 2, 3]
    held_by_reader: dict[int, list[float]] = {}
    for delta in found:
        keys, values = delta.rows[0]
        held_by_reader.update(zip(keys.tolist(), values.tolist(), strict=True))
        for key in delta.gone.get(0, np.zeros(0, np.int64)).tolist():
            held_by_reader.pop(key, None)
    assert held_by_reader == {key: [1.0, 1.0] for key in range(100)}
    base = newest_base(topic, "ctr")
    assert base is not None and (base.head, base.address) == (ChainHead("ctr", 1, 1), "/bases/1")
    assert [d.head for d in read(topic, base.head, offset=base.offset)] == [d.head for d in found[1:]]
    there = [holds(topic, after, "b", at) for at in range(topic.end(topic.partition_of(b"ctr")) + 2)]
    assert [at for at, found in enumerate(there) if found] == [cut.last] and not holds(topic, after, "c", cut.last)
    with pytest.raises(Fenced):
        first.publish(held.native, dense=None, **OF)

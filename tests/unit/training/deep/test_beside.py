"""`beside` is `forward` with its columns parted and numbers behind: the same values, the same steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from penstock.training.embedding import HashEmbedding  # noqa: E402
from penstock.training.tables import Adagrad, Bag, EmbeddingTables, Normal, Table  # noqa: E402

SLOTS = {"a": "a", "b": "b", "c": "a"}


def tables(threads: int) -> EmbeddingTables:
    like: dict[str, Any] = {"optimizer": Adagrad(), "init": Normal(0.0, 1.0)}
    return EmbeddingTables([Table("a", 3, **like), Table("b", 18, **like)], SLOTS, threads=threads)


def bags(samples: int, seed: int) -> dict[str, Bag]:
    draws = np.random.default_rng(seed)
    found = {}
    for slot in SLOTS:
        lengths = draws.integers(0, 3, samples)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        weights = draws.random(offsets[-1], dtype=np.float32) if slot == "b" else None
        found[slot] = Bag(draws.integers(0, 40, offsets[-1]), offsets, weights)
    return found


@pytest.mark.parametrize("lead", [0, 1, 2])
@pytest.mark.parametrize("numbers", [0, 4])
@pytest.mark.parametrize(("samples", "threads"), [(5, 1), (700, 2), (0, 1)])
def test_it_is_forward_in_another_order(lead: int, numbers: int, samples: int, threads: int) -> None:
    whole, parted = tables(threads), tables(threads)
    one = HashEmbedding(whole, list(SLOTS), "mean")
    other = HashEmbedding(parted, list(SLOTS), "mean", lead=lead)
    for seed in range(3):
        given, beside = bags(samples, seed), torch.randn(samples, numbers)
        rows = one(given)
        leads, read = other.beside(given, beside)
        starts = [one.columns(slot) for slot in SLOTS]
        wanted = torch.cat([rows[:, s.start : s.start + lead] for s in starts], 1)
        rest = torch.cat([*(rows[:, s.start + lead : s.stop] for s in starts), beside], 1)
        assert torch.equal(leads, wanted) and torch.equal(read, rest)
        pull = torch.randn_like(leads), torch.randn_like(read)
        ((wanted * pull[0]).sum() + (rest * pull[1]).sum()).backward()
        ((leads * pull[0]).sum() + (read * pull[1]).sum()).backward()
        whole.step()
        parted.step()
    keys = np.arange(40)
    for slot in ("a", "b"):
        np.testing.assert_array_equal(whole.lookup(slot, keys), parted.lookup(slot, keys))


def test_a_lead_as_wide_as_a_row_is_refused() -> None:
    module = HashEmbedding(tables(1), list(SLOTS), "sum", lead=3)
    with pytest.raises(ValueError, match="lead"):
        module.beside(bags(2, 0), torch.zeros(2, 1))

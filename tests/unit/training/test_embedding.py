"""HashEmbedding against torch's own embeddings: values, gradients, optimizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import RequestError
from penstock.training.tables import (
    Adagrad,
    Adam,
    Bag,
    Constant,
    Count,
    EmbeddingTables,
    Eviction,
    Ftrl,
    RowwiseAdagrad,
    Sgd,
    Table,
    Uniform,
)

torch = pytest.importorskip("torch", reason="PyTorch is an extra: make test installs it")
from penstock.training.embedding import HashEmbedding, HashSequence, bag_of, clip_grad_norm, step_with  # noqa: E402

torch.sparse.check_sparse_tensor_invariants.enable()

KEYS = 50


def mirror(tables: EmbeddingTables, slot: str, mode: str) -> Any:
    """torch's EmbeddingBag with the same rows for the keys 0 to KEYS - 1."""
    weight = torch.from_numpy(tables.lookup(slot, np.arange(KEYS, dtype=np.int64)))
    return torch.nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode=mode, sparse=True, include_last_offset=True)


def batch(seed: int, samples: int = 32) -> tuple[Any, Any]:
    """Bags of 0 to 5 keys, many of them twice."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, samples))])
    return torch.from_numpy(rng.integers(0, KEYS, offsets[-1])), torch.from_numpy(offsets)


OPTIMIZERS: list[tuple[Any, Callable[[Any], Any]]] = [
    (Sgd(), lambda p: torch.optim.SGD(p, lr=0.1)),
    (Adagrad(), lambda p: torch.optim.Adagrad(p, lr=0.1)),
    (Adam(), lambda p: torch.optim.SparseAdam(list(p), lr=0.1)),
]


@pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS, ids=["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_training_is_what_torch_does(ours: Any, theirs: Callable[[Any], Any], mode: Any) -> None:
    tables = EmbeddingTables([Table("t", 16, ours, 0.1, Uniform(-1, 1))], {"item": "t"}, threads=2)
    module, peer = HashEmbedding(tables, pooling=mode), mirror(tables, "item", mode)
    dense = torch.nn.Linear(16, 1)
    optimizer, peer_optimizer = torch.optim.SGD(dense.parameters(), lr=0.0), theirs(peer.parameters())
    step_with(tables, optimizer)
    for seed in range(5):
        keys, offsets = batch(seed)
        labels = (torch.arange(len(offsets) - 1) % 2).float()
        outputs = module({"item": (keys, offsets, None)}), peer(keys, offsets)
        assert torch.allclose(*outputs, atol=1e-5)
        for output, step in zip(outputs, (optimizer, peer_optimizer), strict=True):
            step.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(dense(output).squeeze(1), labels)
            loss.backward()
            step.step()
    found = tables.lookup("item", np.arange(KEYS, dtype=np.int64))
    np.testing.assert_allclose(found, peer.weight.detach().numpy(), atol=2e-5)


def test_nothing_moves_before_the_step_and_two_uses_of_a_module_sum() -> None:
    tables = EmbeddingTables([Table("t", 4, Sgd(), 1.0, Constant(1.0))], {"user": "t", "item": "t"})
    module = HashEmbedding(tables, ["user"])
    key = torch.tensor([7, -7])
    before = tables.lookup("user", key.numpy())
    (module({"user": key}).sum() + 2 * module({"user": key}).sum()).backward()
    assert np.array_equal(tables.lookup("user", key.numpy()), before)
    assert tables.rows == {"t": 0}, "looking up inserts nothing"
    assert tables.step(100) == {"distinct": 2, "stepped": 0, "created": 2, "sightings": 0}
    assert np.array_equal(tables.lookup("item", key.numpy()), before - 3), "slots of one table share rows"
    fused = HashEmbedding(tables, ["item"], fused=True)
    fused({"item": key}).sum().backward()
    assert np.array_equal(tables.lookup("item", key.numpy()), before - 4)
    with pytest.raises(ValueError, match="fused"):
        clip_grad_norm(tables, [], 1.0)


def test_clipping_sees_rows_and_dense_parameters_as_one() -> None:
    tables = EmbeddingTables([Table("t", 3, Sgd(), 1.0, Constant(0.0))], {"s": "t"})
    module, dense = HashEmbedding(tables), torch.nn.Parameter(torch.tensor([2.0]))
    # Key 5 stands twice: its gradient is (2, 2, 2), that of 6 is (1, 1, 1), the dense one is 1.
    (module({"s": torch.tensor([5, 5, 6])}).sum() + dense.sum()).backward()
    norm = clip_grad_norm(tables, [dense], 1.0)
    assert norm == pytest.approx(4.0)
    tables.step()
    assert tables.lookup("s", np.array([5, 6])) == pytest.approx(np.array([[-0.5] * 3, [-0.25] * 3]), rel=1e-5)
    assert dense.grad.item() == pytest.approx(0.25, rel=1e-5)


def test_a_gradient_that_is_not_finite_reaches_no_row() -> None:
    tables = EmbeddingTables([Table("t", 2, Sgd(), 1.0, Constant(0.0))], {"s": "t"})
    module = HashEmbedding(tables)
    (module({"s": torch.tensor([1, 2])}) * torch.tensor([[1.0], [float("nan")]])).sum().backward()
    assert not tables.native.staged_is_finite()
    with pytest.raises(ValueError, match="not finite"):
        clip_grad_norm(tables, [], 1.0)
    with pytest.raises(ValueError, match=r"gradient of element 1 \(key 2\) is not finite"):
        tables.step()
    assert tables.rows == {"t": 0}
    tables.native.drop_staged()
    tables.step()


def test_a_batch_that_is_skipped_leaves_nothing_behind() -> None:
    tables = EmbeddingTables([Table("t", 2, Sgd(), 1.0, Constant(0.0))], {"s": "t"})
    module, dense = HashEmbedding(tables), torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(dense.parameters(), lr=0.1)
    stepping = step_with(tables, optimizer)

    def backward(key: int) -> None:
        module({"s": torch.tensor([key])}).sum().backward()

    backward(1)  # its guard says no: no step
    optimizer.zero_grad(set_to_none=True)
    backward(2)
    backward(2)  # accumulated: nobody zeroes in between
    optimizer.step()
    assert tables.rows == {"t": 1}
    assert tables.lookup("s", np.array([1, 2])).tolist() == [[0, 0], [-2, -2]]
    stepping.remove()
    backward(3)
    optimizer.zero_grad()
    optimizer.step()
    assert tables.rows == {"t": 1}, "neither hook is left"
    assert tables.step()["created"] == 1


def test_rows_that_went_between_forward_and_step_start_anew() -> None:
    ttl = Eviction(ttl_s=10)
    tables = EmbeddingTables([Table("t", 2, Sgd(), 1.0, Constant(1.0), eviction=ttl)], {"s": "t"})
    module, old, new = HashEmbedding(tables), np.array([1, 2]), np.array([3])
    tables.update("s", old, np.ones((2, 2), np.float32), 0)
    rows = module({"s": torch.from_numpy(old)})
    tables.update("s", new, np.zeros((1, 2), np.float32), 100)
    assert tables.sweep(1 << 20) == 2
    tables.update("s", np.array([4, 5]), np.zeros((2, 2), np.float32), 100)  # where 1 and 2 were
    rows.sum().backward()
    assert tables.step(100) == {"distinct": 2, "stepped": 0, "created": 2, "sightings": 0}
    assert tables.lookup("s", np.arange(1, 6)).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [1, 1]]


def test_weights_and_sequences() -> None:
    tables = EmbeddingTables([Table("t", 8, init=Uniform(-1, 1))], {"history": "t", "target": "t"})
    keys, offsets = torch.tensor([3, 4, 5, 3]), torch.tensor([0, 1, 1, 4])
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    rows = torch.from_numpy(tables.lookup("history", keys.numpy()))
    for pooling, divisors in (("sum", [1, 1, 1]), ("mean", [0.5, 1, 6]), ("sqrtn", [0.5, 1, 14**0.5])):
        pooled = HashEmbedding(tables, ["history"], pooling)({"history": (keys, offsets, weights)})  # type: ignore[arg-type]
        sums = torch.stack([rows[:1].T @ weights[:1], torch.zeros(8), rows[1:].T @ weights[1:]])
        assert torch.allclose(pooled, sums / torch.tensor(divisors)[:, None], atol=1e-6)
    padded, mask = HashSequence(tables, "history")((keys, offsets, None))
    assert mask.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert torch.equal(padded[2], rows[1:]) and not padded[1].any()
    padded[2, 1].sum().backward()
    assert tables.step()["distinct"] == 3, "every key of the batch is seen, whatever its gradient"


def test_admission_counts_sightings_and_eviction_forgets() -> None:
    table = Table("t", 2, Sgd(), 1.0, Constant(0.25), Count(3), Eviction(ttl_s=10))
    tables = EmbeddingTables([table], {"s": "t"})
    key, grad = np.array([2**63 - 1, 0, -1]), np.ones((3, 2), dtype=np.float32)
    for _ in range(2):
        assert tables.update("s", key, grad, 100)["sightings"] == 3
        assert not tables.lookup("s", key).any(), "a key without a row reads zeros where one sighting does not admit"
    assert tables.update("s", key, grad, 101)["created"] == 3
    assert (tables.lookup("s", key) == 0.25).all(), "the gradient that admits is dropped"
    tables.update("s", key[:1], grad[:1], 115)
    assert tables.sweep(1 << 20) == 2
    assert tables.rows == {"t": 1}


def test_what_a_person_gets_wrong_is_said() -> None:
    with pytest.raises(RequestError, match="slot 'u' is of a table 'itme' that is not there"):
        EmbeddingTables([Table("item", 4)], {"u": "itme"})
    with pytest.raises(ValueError, match="dim is 513"):
        EmbeddingTables([Table("item", 513)], {"u": "item"})
    tables = EmbeddingTables([Table("item", 4, Ftrl())], {"u": "item"})
    with pytest.raises(RequestError, match="there is no slot 'v'"):
        tables.lookup("v", np.array([1]))
    with pytest.raises(ValueError, match="slot 'u': offset 2 is below the one before it"):
        tables.pool({"u": Bag(np.array([1, 2, 3]), np.array([0, 2, 1, 3]))})
    with pytest.raises(ValueError, match="int64"):
        bag_of(torch.tensor([1.0]))
    with pytest.raises(ValueError, match="not of shape"):
        bag_of(torch.zeros((1, 1, 1), dtype=torch.int64))
    with pytest.raises(ValueError, match="grads has 3 elements, 4 are needed"):
        tables.update("u", np.array([1]), np.zeros(3, dtype=np.float32))
    assert tables.pool({"u": Bag(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))}).shape == (0, 4)


def test_a_table_is_exported_and_put_back() -> None:
    tables = EmbeddingTables([Table("t", 3, RowwiseAdagrad(), init=Uniform(-1, 1))], {"s": "t"})
    keys = np.arange(1000, dtype=np.int64) << 40
    tables.update("s", keys, np.ones((1000, 3), dtype=np.float32), 7)
    raw = tables.native.export(0)
    columns = [np.frombuffer(bytes(b), dtype=t) for b, t in zip(raw, ("i8", "f4", "f4", "u4", "u4"), strict=True)]
    again = EmbeddingTables(tables.tables, tables.slots)
    again.native.put(0, *columns)
    assert again.rows == {"t": 1000}
    assert np.array_equal(again.lookup("s", keys), tables.lookup("s", keys))
    for each in (tables, again):
        each.update("s", keys, np.ones((1000, 3), dtype=np.float32), 8)
    assert np.array_equal(again.lookup("s", keys), tables.lookup("s", keys)), "state came along"


def test_the_page_on_embeddings_runs() -> None:
    page = (Path(__file__).parents[3] / "docs/embeddings.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    history = (torch.tensor([9, 10, 11]), torch.tensor([0, 1, 1, 2, 3]), None)
    for _ in range(3):
        names["optimizer"].zero_grad()
        names["model"]({"user": torch.arange(4), "item": torch.arange(4) + 9, "history": history}).sum().backward()
        names["optimizer"].step()
    assert names["tables"].rows == {"users": 4, "items": 4}

"""Models whose code nobody touches, on raw keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.errors import RequestError
from penstock.training.tables import Adagrad, Sgd, Table, Uniform

torch = pytest.importorskip("torch", reason="PyTorch is an extra: make test installs it")
from penstock.training.convert import convert  # noqa: E402
from penstock.training.embedding import step_with  # noqa: E402

IDS = 40
LIKE = Table("like", 1, Sgd(), 0.1, Uniform(-1, 1))


class Ranker(torch.nn.Module):  # type: ignore[misc, name-defined]
    """As someone wrote it who never heard of us."""

    def __init__(self) -> None:
        super().__init__()
        self.user = torch.nn.Embedding(IDS, 8, padding_idx=0)
        self.tags = torch.nn.EmbeddingBag(IDS, 4, mode="mean")
        self.alias = self.user
        self.top = torch.nn.Linear(20, 1)

    def forward(self, user: Any, item: Any, tags: Any, cuts: Any) -> Any:
        return self.top(torch.cat([self.user(user), self.alias(item), self.tags(tags, cuts)], 1)).squeeze(1)


def test_a_converted_model_trains_as_the_original_does() -> None:
    torch.manual_seed(1)
    original, model = Ranker(), Ranker()
    model.load_state_dict(original.state_dict())
    converted = convert(model, LIKE, carry=True)
    assert converted.embeddings == (("user", 8, IDS), ("tags", 4, IDS)), "one table for the two names"
    assert "tags: dim 4, had room for 40 ids" in str(converted)
    assert {name for name, _ in model.named_parameters()} == {"top.weight", "top.bias"}
    steps = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (original, model)]
    step_with(converted.tables, steps[1])
    rng = np.random.default_rng(3)
    for _ in range(10):
        user, item = (torch.from_numpy(rng.integers(0, IDS, 16)) for _ in range(2))
        tags, cuts = torch.from_numpy(rng.integers(0, IDS, 48)), torch.arange(16) * 3
        labels = torch.from_numpy(rng.integers(0, 2, 16)).float()
        outputs = [m(user, item, tags, cuts) for m in (original, model)]
        assert torch.allclose(*outputs, atol=1e-5)
        for output, step in zip(outputs, steps, strict=True):
            step.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(output, labels).backward()
            step.step()
    rows = converted.tables.lookup("tags", np.arange(IDS))
    np.testing.assert_allclose(rows, original.tags.weight.detach().numpy(), atol=1e-5)
    model(torch.tensor([2**62]), torch.tensor([-5]), torch.tensor([2**53 + 1]), torch.tensor([0]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_of_deepctr_reaches_the_same_auc_on_raw_keys(seed: int) -> None:
    """DeepFM from the wheel, its code untouched: ids below 2^24 (it casts them to float), no penalty on embeddings."""
    models = pytest.importorskip("deepctr_torch.models", reason="the wheel deepctr-torch: make test installs it")
    from deepctr_torch.inputs import SparseFeat
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    effect = rng.normal(0, 1.5, (3, 200))
    ids = rng.integers(0, 200, (12_000, 3))
    chance = 1 / (1 + np.exp(-effect[np.arange(3), ids].sum(1)))
    labels = (rng.random(len(ids)) < chance).astype(np.float32)
    columns = [SparseFeat(name, 200, embedding_dim=8) for name in "abc"]
    inputs = {name: ids[:, i] for i, name in enumerate("abc")}
    aucs = []
    for swap in (False, True):
        model = models.DeepFM(columns, columns, dnn_hidden_units=(32,), l2_reg_embedding=0, l2_reg_linear=0, seed=seed)
        if swap:
            converted = convert(model, Table("like", 1, Adagrad(), 0.05, Uniform(-1e-4, 1e-4)), release=True)
            assert len(converted.embeddings) == 6
            model.compile(torch.optim.Adagrad(model.parameters(), lr=0.05), "binary_crossentropy")
            step_with(converted.tables, model.optim)
        else:
            model.compile(torch.optim.Adagrad(model.parameters(), lr=0.05), "binary_crossentropy")
        model.fit({k: v[:10_000] for k, v in inputs.items()}, labels[:10_000], batch_size=256, epochs=3, verbose=0)
        scores = model.predict({k: v[10_000:] for k, v in inputs.items()}, 1024).reshape(-1)
        aucs.append(roc_auc_score(labels[10_000:], scores))
    assert aucs[0] > 0.8
    assert abs(aucs[0] - aucs[1]) <= 0.002, aucs


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_din_of_deepctr_reaches_the_same_auc_on_raw_keys(seed: int) -> None:
    """Its code untouched: one table serves the target item and the history, which attention compares."""
    models = pytest.importorskip("deepctr_torch.models", reason="the wheel deepctr-torch: make test installs it")
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from sklearn.metrics import roc_auc_score

    items, longest, rows, train = 60, 4, 12_000, 10_000
    rng = np.random.default_rng(6)
    kind = rng.integers(0, 6, items + 1)  # an item is clicked after others of its kind
    user, item = rng.integers(1, 100, rows), rng.integers(1, items + 1, rows)
    length = rng.integers(1, longest + 1, rows)
    history = rng.integers(1, items + 1, (rows, longest)) * (np.arange(longest) < length[:, None])
    alike = ((kind[history] == kind[item][:, None]) & (history > 0)).sum(1)
    price, taste, liked = rng.normal(0, 1, rows), rng.normal(0, 1.2, 100), rng.normal(0, 1.2, items + 1)
    chance = 1 / (1 + np.exp(1.5 - 2.5 * alike - taste[user] - liked[item] + 0.5 * price))
    labels = (rng.random(rows) < chance).astype(np.float32)
    columns = [
        SparseFeat("user", 100, embedding_dim=8),
        SparseFeat("item", items + 1, embedding_dim=8),
        DenseFeat("price", 1),
        VarLenSparseFeat(
            SparseFeat("hist_item", items + 1, embedding_dim=8, embedding_name="item"), longest, length_name="length"
        ),
    ]
    inputs = {"user": user, "item": item, "price": price, "hist_item": history, "length": length}
    aucs = []
    for swap in (False, True):
        model = models.DIN(columns, ["item"], dnn_hidden_units=(32,), l2_reg_embedding=0, init_std=0.05, seed=seed)
        if swap:
            converted = convert(model, Table("like", 1, Adagrad(), 0.05), release=True, carry=True)
            assert [name for name, _, _ in converted.embeddings] == ["embedding_dict.user", "embedding_dict.item"]
        model.compile(torch.optim.Adagrad(model.parameters(), lr=0.05), "binary_crossentropy")
        if swap:
            step_with(converted.tables, model.optim)
        model.fit({k: v[:train] for k, v in inputs.items()}, labels[:train], batch_size=256, epochs=4, verbose=0)
        scores = model.predict({k: v[train:] for k, v in inputs.items()}, 1024).reshape(-1)
        aucs.append(roc_auc_score(labels[train:], scores))
    assert aucs[0] > 0.75
    assert abs(aucs[0] - aucs[1]) <= 0.002, aucs


def test_a_weight_that_is_held_elsewhere_is_refused_until_released() -> None:
    model = Ranker()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalised = ([model.tags.weight], 1e-5)
    with pytest.raises(RequestError, match=r"held elsewhere: user.weight by parameter group 0 of an optimizer") as told:
        convert(model, LIKE, optimizers=[optimizer])
    assert "tags.weight by a list of 1 that something keeps" in str(told.value)
    assert isinstance(model.user, torch.nn.Embedding), "nothing was changed"
    convert(model, LIKE, optimizers=[optimizer], release=True)
    assert [tuple(p.shape) for p in optimizer.param_groups[0]["params"]] == [(1, 20), (1,)]
    assert penalised[0] == []


def test_a_module_that_a_list_outside_the_tree_holds_is_not_left_behind() -> None:
    """A forward that goes through such a list would quietly call the old embedding, which nothing trains."""

    class Listed(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.user = torch.nn.Embedding(IDS, 8)
            self.all = [self.user]
            self.by_name = {"user": self.user}

        def forward(self, ids: Any) -> Any:
            return self.all[0](ids) + self.by_name["user"](ids)

    model = Listed()
    with pytest.raises(RequestError, match=r"a module itself by a (list|dict) of 1 that something keeps"):
        convert(model, LIKE)
    assert isinstance(model.user, torch.nn.Embedding), "nothing was changed"
    converted = convert(model, LIKE, release=True)
    model(torch.tensor([2**40])).sum().backward()
    converted.tables.step()
    assert converted.tables.rows == {"user": 1}


def test_what_a_table_cannot_be_is_refused_by_name() -> None:
    class Tied(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(IDS, 8)
            self.out = torch.nn.Linear(8, IDS, bias=False)
            self.out.weight = self.words.weight

    with pytest.raises(RequestError, match=r"out\.weight is the same parameter"):
        convert(Tied(), LIKE)
    with pytest.raises(RequestError, match=r"0 renormalises its rows \(max_norm\); 1 pools by max"):
        convert(torch.nn.Sequential(torch.nn.Embedding(3, 2, max_norm=1.0), torch.nn.EmbeddingBag(3, 2, mode="max")))
    with pytest.raises(RequestError, match=r"0 is frozen"):
        convert(torch.nn.Sequential(torch.nn.Embedding.from_pretrained(torch.zeros(3, 2))))
    with pytest.raises(RequestError, match=r"no nn\.Embedding"):
        convert(torch.nn.Linear(1, 1))

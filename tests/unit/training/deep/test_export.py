"""ONNX: every model scores the same without PyTorch, with any batch, and with weights that came later."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from penstock.training.deep.export import Feed, to_onnx, with_weights  # noqa: E402
from penstock.training.deep.models import MODELS, Inputs  # noqa: E402
from penstock.training.embedding import HashEmbedding  # noqa: E402
from penstock.training.tables import Bag, Constant, EmbeddingTables, Normal, Table  # noqa: E402

DIM = 9


def built(name: str, numbers: int = 3) -> tuple[Any, Inputs]:
    torch.manual_seed(0)
    like = {"init": Normal(0.0, 0.5)}
    tables = EmbeddingTables(
        [Table("a", DIM, **like), Table("b", DIM, **like)],  # type: ignore[arg-type]
        {"a": "a", "b": "b", "seen": "a"},
        threads=1,
    )
    history = (("seen", "a"),) if name == "din" else ()
    inputs = Inputs(tables, ("a", "b", "seen") if history else ("a", "b"), numbers, "mean", history)
    return MODELS[name](inputs, [16, 8], 0.1), inputs


@cache
def exported(name: str) -> tuple[Any, Inputs, bytes, list[Feed]]:
    """Exporting takes seconds: once a model."""
    model, inputs = built(name)
    graph, feeds = to_onnx(model, inputs)
    assert model.training, "exporting leaves the model as it was"
    return model, inputs, graph, feeds


def some(inputs: Inputs, samples: int, seed: int = 0) -> tuple[dict[str, Bag], Any]:
    draws = np.random.default_rng(seed)
    bags = {}
    for slot in inputs.slots:
        lengths = draws.integers(0, 4, samples)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        bags[slot] = Bag(draws.integers(0, 50, offsets[-1]), offsets)
    return bags, draws.normal(size=(samples, inputs.numbers)).astype(np.float32)


def fed(feeds: list[Feed], inputs: Inputs, bags: dict[str, Bag], numbers: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for feed in feeds:
        bag = bags[feed.slots[0]] if feed.slots else None
        if feed.kind == "pooled":
            given[feed.name] = inputs.tables.pool({slot: bags[slot] for slot in feed.slots}, feed.pooling)  # type: ignore[arg-type]
        elif feed.kind == "numbers":
            given[feed.name] = numbers
        elif feed.kind == "lengths":
            assert bag is not None
            given[feed.name] = np.diff(bag.offsets)
        else:
            assert bag is not None
            rows = inputs.tables.lookup(feed.slots[0], bag.keys)
            lengths = np.diff(bag.offsets)
            padded = np.zeros((len(lengths), max(1, int(lengths.max())), DIM), np.float32)
            for at, length in enumerate(lengths):
                padded[at, :length] = rows[bag.offsets[at] : bag.offsets[at + 1]]
            given[feed.name] = padded
    return given


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_scores_the_same_without_torch(name: str) -> None:
    import onnxruntime as ort

    model, inputs, graph, feeds = exported(name)
    session = ort.InferenceSession(graph)
    for samples in (1, 2, 7):
        bags, numbers = some(inputs, samples, samples)
        with torch.no_grad():
            wanted = model.eval()(bags, torch.from_numpy(numbers)).numpy()
        model.train()
        found = session.run(["logit"], fed(feeds, inputs, bags, numbers))[0]
        assert found.shape == (samples,)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_dense_weights_are_replaced_without_exporting_again(name: str) -> None:
    import onnxruntime as ort

    _, _, graph, feeds = exported(name)
    model, inputs = built(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    bags, numbers = some(inputs, 5)
    given = fed(feeds, inputs, bags, numbers)
    with torch.no_grad():
        wanted = model.eval()(bags, torch.from_numpy(numbers)).numpy()
    before = ort.InferenceSession(graph).run(None, given)[0]
    after = ort.InferenceSession(with_weights(graph, weights)).run(None, given)[0]
    assert np.abs(before - wanted).max() > 0.01
    np.testing.assert_allclose(after, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["deepfm", "din"])
def test_models_without_numbers(name: str) -> None:
    import onnxruntime as ort

    model, inputs = built(name, numbers=0)
    graph, feeds = to_onnx(model, inputs)
    assert all(feed.kind != "numbers" for feed in feeds)
    bags, numbers = some(inputs, 5)
    with torch.no_grad():
        wanted = model.eval()(bags, torch.from_numpy(numbers)).numpy()
    found = ort.InferenceSession(graph).run(None, fed(feeds, inputs, bags, numbers))[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    _, _, graph, _ = exported("wide_deep")
    with pytest.raises(ValueError, match="no weight 'deeper'"):
        with_weights(graph, {"deeper": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match=r"wide.bias.* of shape \[1\], not \[2\]"):
        with_weights(graph, {"wide.bias": np.zeros(2, np.float32)})


def test_any_module_on_hash_embeddings_is_cut() -> None:
    import onnxruntime as ort

    tables = EmbeddingTables([Table("s", 4, init=Constant(0.5))], {"s": "s"}, threads=1)

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once = HashEmbedding(tables, ["s"], "sum")
            self.again = HashEmbedding(tables, ["s"], "mean")

        def forward(self, keys: Any, numbers: Any) -> Any:
            return self.once(keys).sum(1) - self.again(keys).sum(1) * numbers[:, 0]

    graph, feeds = to_onnx(Own(), Inputs(tables, ("s",), 1))
    assert [feed.pooling for feed in feeds if feed.kind == "pooled"] == ["mean", "sum"] or len(feeds) == 3
    given = {feed.name: np.full((3, 4), 2.0, np.float32) for feed in feeds if feed.kind == "pooled"}
    given |= {feed.name: np.ones((3, 1), np.float32) for feed in feeds if feed.kind == "numbers"}
    assert ort.InferenceSession(graph).run(None, given)[0].tolist() == [0.0, 0.0, 0.0]


def test_keys_read_otherwise_are_refused() -> None:
    tables = EmbeddingTables([Table("s", 4)], {"s": "s"}, threads=1)

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = HashEmbedding(tables, ["s"], "sum")

        def forward(self, keys: Any, numbers: Any) -> Any:
            return self.rows(keys).sum(1) + keys["s"][0].sum()

    with pytest.raises(ValueError, match="otherwise than through a HashEmbedding"):
        to_onnx(Own(), Inputs(tables, ("s",), 1))

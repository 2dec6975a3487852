"""State dicts as bytes: what goes in comes out to the bit, and nothing else is taken."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from penstock.training.deep.schedule import Schedule  # noqa: E402
from penstock.training.deep.state import pack, unpack  # noqa: E402


def test_an_optimizers_state_comes_back() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    found = unpack(pack(optimizer.state_dict()))
    other = torch.optim.Adam(torch.nn.Linear(3, 2).parameters(), fused=True)
    other.load_state_dict(found)
    for key, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(other.state_dict()["state"][key][name], value), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_any_shape(dtype: object) -> None:
    for shape in ((), (0,), (3,), (2, 0, 4), (2, 3)):
        value = torch.ones(shape, dtype=dtype)
        found = unpack(pack({"a": [value, 1, None, "x", True, 0.5]}))["a"]
        assert found[0].dtype == dtype and torch.equal(found[0], value) and found[1:] == [1, None, "x", True, 0.5]


def test_what_cannot_be_stored_is_said_and_what_is_torn_is_refused() -> None:
    with pytest.raises(TypeError, match="set cannot be stored"):
        pack({"a": {1, 2}})
    whole = pack({"a": torch.arange(100)})
    for size in (0, 4, 20, len(whole) - 1):
        with pytest.raises(ValueError):
            unpack(whole[:size])


def test_schedules() -> None:
    assert Schedule().factor(0) == Schedule().factor(10**9) == 1.0
    warm = Schedule("inverse_sqrt", warmup=100)
    assert (warm.factor(0), warm.factor(50), warm.factor(100), warm.factor(400)) == (0.01, 0.5, 1.0, 0.5)
    cosine = Schedule("cosine", warmup=100, total=300, least=0.1)
    assert cosine.factor(100) == 1.0 and cosine.factor(200) == pytest.approx(0.55) and cosine.factor(999) == 0.1
    assert Schedule("linear", total=10).factor(5) == 0.5
    with pytest.raises(ValueError, match="beyond the warm-up"):
        Schedule("linear", warmup=5, total=5)
    with pytest.raises(ValueError, match="give warmup"):
        Schedule("inverse_sqrt")

"""The tables' optimizers against their papers written out in numpy, the user's own against the built-in ones they copy,
and what a table refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from penstock.errors import RequestError
from penstock.training.checkpoints import Checkpoints
from penstock.training.faults import TablesFull
from penstock.training.snapshots import Snapshot, write_snapshot
from penstock.training.tables import (
    Adagrad,
    Adam,
    Bag,
    Constant,
    EmbeddingTables,
    Eviction,
    Ftrl,
    Momentum,
    RowwiseAdagrad,
    Score,
    Sgd,
    Table,
    Truncated,
    Uniform,
)
from penstock.training.user_steps import optimizer, policy

numba = pytest.importorskip("numba", reason="numba is of the extra 'local'")

F = np.float32
Floats = npt.NDArray[np.float64]
RATE, DIM = 0.1, 24
KEYS = np.array([3, -3, 0, -1, 2**63 - 1, -(2**63), 2**52], dtype=np.int64)

#: (w, state, g, t) -> w, state; state is a list of arrays of rows.
Step = Callable[[Floats, list[Floats], Floats], tuple[Floats, list[Floats]]]


def momentum(w: Floats, state: list[Floats], g: Floats) -> tuple[Floats, list[Floats]]:
    """Polyak's heavy ball as torch.optim.SGD has it: dampening 0."""
    m = 0.9 * state[0] + g
    return w - RATE * m, [m]


def nesterov(w: Floats, state: list[Floats], g: Floats) -> tuple[Floats, list[Floats]]:
    m = 0.9 * state[0] + g
    return w - RATE * (g + 0.9 * m), [m]


def rowwise_adagrad(w: Floats, state: list[Floats], g: Floats) -> tuple[Floats, list[Floats]]:
    """FBGEMM's EXACT_ROWWISE_ADAGRAD: `momentum1 += mean(g^2); w -= lr / (sqrt(momentum1) + eps) * g`."""
    s = state[0] + (g**2).mean(axis=1, keepdims=True)
    return w - RATE / (np.sqrt(s) + 1e-8) * g, [s]


def ftrl(w: Floats, state: list[Floats], g: Floats) -> tuple[Floats, list[Floats]]:
    """McMahan et al. 2013, algorithm 1, per coordinate: alpha = RATE, beta = 1, l1 = 1, l2 = .5."""
    z, n = state
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / RATE
    z, n = z + g - sigma * w, n + g**2
    return np.where(np.abs(z) <= 1, 0, -(z - np.sign(z)) / ((1 + np.sqrt(n)) / RATE + 0.5)), [z, n]


def adam_per_row(w: Floats, state: list[Floats], g: Floats) -> tuple[Floats, list[Floats]]:
    """Kingma and Ba 2014, with each row's own count of steps."""
    m, v, t = 0.9 * state[0] + 0.1 * g, 0.999 * state[1] + 0.001 * g**2, state[2] + 1
    return w - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), [m, v, t]


PAPERS: list[tuple[Any, Step, int, float]] = [
    (Momentum(0.9), momentum, 1, 0.3),
    (Momentum(0.9, nesterov=True), nesterov, 1, 0.3),
    (RowwiseAdagrad(), rowwise_adagrad, 1, 0.3),
    (Ftrl(beta=1.0, l1=1.0, l2=0.5), ftrl, 2, 0.0),
    (Adam(per_row=True), adam_per_row, 3, 0.3),
]


@pytest.mark.parametrize(("ours", "paper", "states", "start"), PAPERS, ids=lambda x: getattr(x, "__name__", None))
def test_steps_are_those_of_the_paper(ours: Any, paper: Step, states: int, start: float) -> None:
    tables = EmbeddingTables([Table("t", DIM, ours, RATE, Constant(start))], {"s": "t"})
    w, rng = np.full((len(KEYS), DIM), start), np.random.default_rng(7)
    state = [np.zeros((len(KEYS), DIM)) for _ in range(states)]
    for _ in range(40):
        at = rng.permutation(len(KEYS))[: rng.integers(1, len(KEYS) + 1)]
        twice = np.concatenate([at, at[:1]])  # a key that stands twice: its gradients are summed
        grads = rng.normal(size=(len(twice), DIM)).astype(F)
        tables.update("s", KEYS[twice], grads)
        g = grads[:-1].astype(np.float64)
        g[0] += grads[-1]
        w[at], new = paper(w[at], [s[at] for s in state], g)
        for s, rows in zip(state, new, strict=True):
            s[at] = rows
    np.testing.assert_allclose(tables.lookup("s", KEYS), w, rtol=2e-4, atol=2e-5)
    zeros = tables.lookup("s", KEYS) == 0
    assert np.array_equal(zeros, w == 0) and zeros.any() == isinstance(ours, Ftrl), "l1 makes zeros, and exact ones"


def own_sgd(n: Any, rows: Any, state: Any, grads: Any, context: Any) -> None:
    here = numba.carray(context, 1)[0]
    for i in range(n):
        row = rows[i]
        for j in range(here.dim):
            row[j] -= here.learning_rate * grads[i * here.dim + j]


def own_rowwise(n: Any, rows: Any, state: Any, grads: Any, context: Any) -> None:
    here = numba.carray(context, 1)[0]
    for i in range(n):
        row, sums = rows[i], state[i]
        squares = F(0)
        for j in range(here.dim):
            squares += grads[i * here.dim + j] ** 2
        sums[0] += squares / F(here.dim)
        rate = here.learning_rate / (np.sqrt(sums[0]) + F(1e-8))
        for j in range(here.dim):
            row[j] -= rate * grads[i * here.dim + j]


def own_count(n: Any, rows: Any, state: Any, grads: Any, context: Any) -> None:
    """Leaves the table's update number in the state, and the width of the state in the row."""
    here = numba.carray(context, 1)[0]
    for i in range(n):
        state[i][1] = here.update
        rows[i][0] = here.state_len


@pytest.mark.parametrize(
    ("own", "built_in"), [(optimizer(own_sgd), Sgd()), (optimizer(own_rowwise, state=1), RowwiseAdagrad())]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_users_optimizer_does_what_the_built_in_one_does(own: Any, built_in: Any, threads: int) -> None:
    ours, theirs = (
        EmbeddingTables([Table("t", DIM, o, RATE, Uniform(-1, 1), clip_norm=3.0)], {"s": "t"}, threads=threads)
        for o in (own, built_in)
    )
    rng = np.random.default_rng(1)
    for _ in range(20):
        keys, grads = rng.integers(0, 700, 900), rng.normal(size=(900, DIM)).astype(F)
        for tables in (ours, theirs):
            tables.update("s", keys, grads)
    keys = np.arange(700)
    np.testing.assert_allclose(ours.lookup("s", keys), theirs.lookup("s", keys), rtol=1e-4, atol=1e-5)


def test_a_users_state_is_kept_with_its_rows(tmp_path: Path) -> None:
    def made() -> EmbeddingTables:
        own = optimizer(own_count, state=2, initial=0.5)
        return EmbeddingTables([Table("t", 4, own, RATE)], {"s": "t"})

    tables = made()
    for key in (8, 9, 10):
        tables.update("s", np.array([key]), np.ones((1, 4), dtype=F))
    Checkpoints(tmp_path, tables).save({})
    resumed = made()
    Checkpoints(tmp_path, resumed).resume()
    resumed.update("s", np.array([8]), np.ones((1, 4), dtype=F))
    keys, _, state, *_ = resumed.native.export(0)
    rows = dict(
        zip(np.frombuffer(keys, np.int64).tolist(), np.frombuffer(state, F).reshape(3, 2).tolist(), strict=True)
    )
    assert rows == {8: [0.5, 4.0], 9: [0.5, 2.0], 10: [0.5, 3.0]}
    assert (resumed.lookup("s", np.array([8, 9, 10]))[:, 0] == 2).all()


def test_what_numba_does_not_compile_is_told_and_without_numba_what_to_install(monkeypatch: Any) -> None:
    def broken(n: Any, rows: Any, state: Any, grads: Any, context: Any) -> None:
        rows.append(open("file"))  # noqa: SIM115

    with pytest.raises(RequestError, match="numba does not compile 'broken'"):
        optimizer(broken)
    monkeypatch.setattr("penstock.training.user_steps.find_spec", lambda _: None)
    with pytest.raises(RequestError, match=r"hint: pip install 'penstock\[local\]'"):
        optimizer(own_sgd)


def drop_odd(n: Any, rows: Any, state: Any, facts: Any, context: Any) -> None:
    for i in range(n):
        if facts[4 * i] < 3 and facts[4 * i + 1] >= 10 and rows[i][0] > 0:
            facts[4 * i + 3] = 1


def test_a_users_policy_decides_what_a_sweep_drops() -> None:
    eviction = Eviction(policy=policy(drop_odd))
    tables = EmbeddingTables([Table("t", 1, Sgd(), 1.0, Constant(0.0), eviction=eviction)], {"s": "t"})

    def see(key: int, at: int, gradient: float) -> None:
        tables.update("s", np.array([key]), np.array([[gradient]], dtype=F), at)

    see(1, 100, -1)  # seen once, above zero: goes
    see(2, 100, 1)  # below zero
    for at in (90, 95, 100):
        see(3, at, -1)  # seen three times
    see(4, 105, -1)  # seen lately
    see(5, 110, 1)
    assert tables.sweep(1 << 20) == 1
    assert tables.lookup("s", np.arange(1, 6)).ravel().tolist() == [0, -1, 3, 1, -1]


def test_a_score_of_shows_and_clicks_decays_and_drops() -> None:
    eviction = Eviction(score=Score(show_weight=0.1, click_weight=1.0, half_life_s=100, least=0.6), grace_s=10)
    table = Table("t", 2, Sgd(), 1.0, Truncated(0, 1), eviction=eviction)
    tables = EmbeddingTables([table], {"s": "t"})
    keys, grads = np.array([1, 2]), np.zeros((2, 2), dtype=F)
    tables.update("s", keys, grads, 0, shows=np.array([5, 5], dtype=F), clicks=np.array([1, 0], dtype=F))
    tables.update("s", np.array([3]), grads[:1], 20)
    assert tables.sweep(1 << 20) == 1, "key 2 has but .5, key 3 has its grace"
    tables.update("s", np.array([4]), grads[:1], 200)
    tables.sweep(1 << 20)
    assert tables.rows == {"t": 1}, "key 1 fell from 1.5 to .4, key 3 never was shown"


# --- bad input ---------------------------------------------------------------------------------------------------


def plain(**changed: Any) -> EmbeddingTables:
    return EmbeddingTables([Table("t", 2, Sgd(), 1.0, Constant(0.0), **changed)], {"s": "t"})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_change_nothing(bad: float) -> None:
    tables = plain()
    grads = np.ones((3, 2), dtype=F)
    grads[1, 1] = bad
    with pytest.raises(ValueError, match=r"the gradient of element 1 \(key 18446744073709551615\) is not finite"):
        tables.update("s", np.array([0, -1, 5]), grads)
    assert tables.rows == {"t": 0}


def test_the_first_and_the_last_key_are_keys_as_any(tmp_path: Path) -> None:
    tables = plain()
    keys = np.array([0, 2**64 - 1, 1, 2**63], dtype=np.uint64).view(np.int64)
    tables.update("s", keys, -np.arange(8, dtype=F).reshape(4, 2))
    Checkpoints(tmp_path / "c", tables).save({})
    write_snapshot(tables, tmp_path / "s")
    resumed = plain()
    Checkpoints(tmp_path / "c", resumed).resume()
    for found in (tables, resumed, Snapshot(tmp_path / "s")):
        assert found.lookup("s", keys).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]  # type: ignore[attr-defined]
        assert not found.lookup("s", keys + 7).any()  # type: ignore[attr-defined]


def test_empty_batches_are_batches() -> None:
    tables = plain()
    none = np.zeros(0, dtype=np.int64)
    assert tables.lookup("s", none).shape == (0, 2)
    assert tables.update("s", none, np.zeros((0, 2), dtype=F))["distinct"] == 0
    assert tables.pool({"s": Bag(none, np.zeros(1, dtype=np.int64))}).shape == (0, 2)
    assert tables.pool({"s": Bag(none, np.zeros(4, dtype=np.int64))}).tolist() == [[0, 0]] * 3
    assert tables.step() == {"distinct": 0, "stepped": 0, "created": 0, "sightings": 0}


OFFSETS = [
    ([0, 3, 2, 4], "offset 2 is below the one before it"),
    ([0, 2, 5], "the last offset is 5, and there are 4 keys"),
    ([1, 4], "the first offset must be 0"),
    ([], "the first offset must be 0"),
    ([0, -1, 4], "offset 1 is below the one before it"),
]


@pytest.mark.parametrize(("offsets", "message"), OFFSETS)
def test_offsets_that_do_not_cut_the_keys_are_refused(tmp_path: Path, offsets: list[int], message: str) -> None:
    tables = plain()
    write_snapshot(tables, tmp_path / "s")
    bag = Bag(np.arange(4), np.array(offsets, dtype=np.int64))
    for source in (tables, Snapshot(tmp_path / "s")):
        with pytest.raises(ValueError, match=f"slot 's': {message}"):
            source.pool({"s": bag})  # type: ignore[attr-defined]


def test_a_table_that_may_not_grow_evicts_or_errs_and_is_not_killed() -> None:
    least = max(plain().bytes.values())
    keys = np.arange(200_000, dtype=np.int64)
    full = plain(memory_limit=least + (1 << 20))
    with pytest.raises(
        TablesFull, match=r"TRAIN045 table 't' may use \d+ bytes, and \d+ are needed; raise memory_limit or evict"
    ) as told:
        full.update("s", keys, np.zeros((len(keys), 2), dtype=F), 100)
    assert isinstance(told.value, MemoryError) and "min_count" in told.value.hint
    assert full.rows == {"t": 0} and full.bytes["t"] <= least + (1 << 20)
    evicting = plain(memory_limit=least + (1 << 21), eviction=Eviction(ttl_s=5))
    for now in range(20):
        part = keys[now * 10_000 :][:10_000]
        evicting.update("s", part, np.ones((len(part), 2), dtype=F), 100 * now)
        assert evicting.bytes["t"] <= least + (1 << 21)
        assert (evicting.lookup("s", part) == -1).all()
    assert evicting.rows["t"] < 150_000, "what was stale made room"


def test_expected_rows_have_their_memory_at_once_and_are_the_same_rows() -> None:
    grown, expecting = plain(), plain(expected_rows=100_000)
    at_first = expecting.bytes["t"]
    keys = np.arange(100_000, dtype=np.int64) * 7919
    for tables in (grown, expecting):
        tables.update("s", keys, np.ones((len(keys), 2), dtype=F))
    np.testing.assert_array_equal(grown.lookup("s", keys), expecting.lookup("s", keys))
    assert at_first > grown.bytes["t"] * 0.9 and expecting.bytes["t"] < at_first * 1.1
    with pytest.raises(TablesFull, match="TRAIN045 table 't' may use 1000000 bytes"):
        plain(expected_rows=100_000, memory_limit=1_000_000)
    with pytest.raises(ValueError, match="table 't': expected_rows is -1; 0 is the least"):
        plain(expected_rows=-1)


def test_a_table_that_means_nothing_says_why() -> None:
    for changed, message in [
        ({"dim": 0}, "table 't': dim is 0, it must be 1 to 512"),
        ({"dim": 513}, "dim is 513"),
        ({"learning_rate": float("nan")}, "table 't': learning_rate is nan; it must be finite"),
        ({"optimizer": Momentum(float("inf"))}, "table 't': momentum is inf; it must be finite"),
        ({"optimizer": Momentum(-1.0)}, "momentum: its numbers must be finite and not negative"),
        ({"clip_norm": -1.0}, "clips must be above 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            EmbeddingTables([Table(**{"name": "t", "dim": 2, **changed})], {"s": "t"})  # type: ignore[arg-type]


def test_adagrad_of_a_wide_row_does_not_overflow() -> None:
    tables = EmbeddingTables([Table("t", 512, Adagrad(), 0.1, Constant(0.0))], {"s": "t"})
    for _ in range(3):
        tables.update("s", KEYS, np.full((len(KEYS), 512), 1e18, dtype=F))
    np.testing.assert_allclose(tables.lookup("s", KEYS), -0.1 * (1 + 2**-0.5 + 3**-0.5), rtol=1e-5)

"""Frequent itemsets: the same answer as plain counting, and baskets as they really come."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest

from penstock.data.schema import Column, Schema
from penstock.errors import PenstockError
from penstock.operators.base import CheckContext
from penstock.training import itemsets
from penstock.training.operators import FrequentItemsets


def step(**attrs: str) -> FrequentItemsets:
    return FrequentItemsets.model_validate({"from": "x", "items": "goods", **attrs})


def baskets(count: int = 800) -> list[list[str]]:
    rng = np.random.default_rng(0)
    goods = ["bread", "butter", "cheese", "milk", "wine", "tea", "ham", "eggs"]
    made = []
    for _ in range(count):
        held = set(rng.choice(goods, rng.integers(1, 5)).tolist())
        if "bread" in held and rng.random() < 0.7:
            held.add("butter")
        made.append(sorted(held))
    return made


def counted(given: list[list[str]], min_support: float) -> dict[frozenset[str], float]:
    """Every frequent set by counting all subsets that occur: what FP-growth must find (Agrawal, Srikant 1994)."""
    held = [frozenset(b) for b in given]
    level = {frozenset([item]) for basket in held for item in basket}
    found: dict[frozenset[str], float] = {}
    while level:
        supports = {s: sum(s <= basket for basket in held) / len(held) for s in level}
        frequent = {s: v for s, v in supports.items() if v >= min_support}
        found |= frequent
        level = {a | b for a in frequent for b in frequent if len(a | b) == len(a) + 1}
    return found


def test_sets_and_rules_are_those_of_plain_counting(run: Any) -> None:
    given = baskets()
    expected = counted(given, 0.05)
    found = run(step(min_support="0.05", rules="0.4"), {"x": pl.DataFrame({"goods": given})}).outputs
    ours = {frozenset(r["items"]): r["support"] for r in found["itemsets"].collect().to_dicts()}
    assert max(map(len, expected)) >= 3
    assert ours == pytest.approx(expected)
    rules = {
        (frozenset(r["antecedent"]), frozenset(r["consequent"])): (r["support"], r["confidence"], r["lift"])
        for r in found["rules"].collect().to_dicts()
    }
    wanted = {
        (frozenset(left), whole - frozenset(left)): (v, v / expected[frozenset(left)])
        for whole, v in expected.items()
        for size in range(1, len(whole))
        for left in combinations(sorted(whole), size)
        if v / expected[frozenset(left)] >= 0.4
    }
    assert set(rules) == set(wanted)
    for (left, right), (support, confidence) in wanted.items():
        assert rules[left, right] == pytest.approx((support, confidence, confidence / expected[right]))
    assert found[""].collect().equals(found["rules"].collect())


def test_the_bare_name_is_the_itemsets_without_rules(run: Any) -> None:
    found = run(
        step(min_support="0.5"), {"x": pl.DataFrame({"goods": [[3, 1], [1], [1, 3, 3], None, [None, 1]]})}
    ).outputs
    assert found[""].collect().to_dicts() == [
        {"items": [1], "support": 1.0, "count": 4, "length": 1},
        {"items": [3], "support": 0.5, "count": 2, "length": 1},
        {"items": [1, 3], "support": 0.5, "count": 2, "length": 2},
    ]
    assert run.context.metrics_["itemsets"] == 3


def test_an_empty_basket_is_a_basket(run: Any) -> None:
    frame = pl.DataFrame({"goods": [["a"], []]})
    [row] = run(step(min_support="0.1"), {"x": frame}).outputs[""].collect().to_dicts()
    assert row["support"] == 0.5


def test_no_baskets_give_no_sets(run: Any) -> None:
    frame = pl.DataFrame({"goods": []}, schema={"goods": pl.List(pl.String)})
    found = run(step(rules="0.1"), {"x": frame}).outputs
    assert found["itemsets"].collect().is_empty() and found["rules"].collect().is_empty()


def test_max_length_cuts(run: Any) -> None:
    frame = pl.DataFrame({"goods": [["a", "b", "c"]] * 3})
    assert run(step(max_length="2"), {"x": frame}).outputs[""].collect()["length"].max() == 2


def test_too_many_sets_are_refused_with_advice(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(itemsets, "MAX_SETS", 100)
    frame = pl.DataFrame({"goods": [list(range(20))]})
    with pytest.raises(PenstockError, match="more than 100 frequent itemsets") as caught:
        run(step(), {"x": frame})
    assert "raise min_support" in str(caught.value)


def test_a_check_wants_a_list() -> None:
    import pyarrow as pa

    wrong = step().check({"x": Schema((Column("goods", pa.string()),))}, CheckContext())
    assert [f.code for f in wrong.faults] == ["TRAIN008"]
    missing = step().check({"x": Schema((Column("good", pa.list_(pa.string())),))}, CheckContext())
    assert [(f.code, f.hint) for f in missing.faults] == [("TRAIN007", "did you mean 'good'?")]

"""Frequent itemsets: the same answer as mlxtend's, and baskets as they really come."""

from __future__ import annotations

import warnings
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


def test_sets_and_rules_are_those_of_mlxtend(run: Any) -> None:
    import pandas as pd
    from mlxtend.frequent_patterns import association_rules, fpgrowth
    from mlxtend.preprocessing import TransactionEncoder

    given = baskets()
    encoder = TransactionEncoder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = pd.DataFrame(encoder.fit(given).transform(given), columns=encoder.columns_)
        theirs = fpgrowth(table, min_support=0.05, use_colnames=True)
        rules = association_rules(theirs, metric="confidence", min_threshold=0.4)
    found = run(step(min_support="0.05", rules="0.4"), {"x": pl.DataFrame({"goods": given})}).outputs
    ours = found["itemsets"].collect()
    assert {(frozenset(r["items"]), round(r["support"], 12)) for r in ours.to_dicts()} == {
        (frozenset(s), round(float(v), 12)) for s, v in zip(theirs["itemsets"], theirs["support"], strict=True)
    }
    names = ("support", "confidence", "lift")
    assert {
        (frozenset(r["antecedent"]), frozenset(r["consequent"]), *(round(r[n], 9) for n in names))
        for r in found["rules"].collect().to_dicts()
    } == {
        (frozenset(r["antecedents"]), frozenset(r["consequents"]), *(round(float(r[n]), 9) for n in names))
        for _, r in rules.iterrows()
    }
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

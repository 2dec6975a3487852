"""Frequent itemsets and association rules as frames, over the FP-growth kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from penstock import native
from penstock.training.faults import InputError

#: More sets or rules than this are a slip of `min_support`, not an answer anybody reads.
MAX_SETS = 20_000_000


def mine(
    baskets: pl.Series, min_support: float, max_length: int, confidence: float | None, threads: int
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Itemsets (items, support, count, length) and, with `confidence`, rules.

    baskets: a list column; a null list is no basket, a null item none, an item twice counts once. Items stand in
    ascending order. Sets come by support (greatest first), then length, then items; rules by confidence, then lift.
    Raises `InputError` (TRAIN016) where there are too many.
    """
    baskets = baskets.drop_nulls().list.drop_nulls()
    total = len(baskets)
    flat = baskets.explode(empty_as_null=False, keep_nulls=False)
    names = flat.unique().sort()
    places = pl.DataFrame({"item": names}).with_row_index("code")
    coded = pl.DataFrame({"item": flat}).join(places, on="item", how="left", maintain_order="left")["code"]
    lengths = baskets.list.len().cast(pl.Int64)
    offsets = pl.concat([pl.Series([0], dtype=pl.Int64), lengths.cum_sum()])
    # As mlxtend and others count: a share of 0.3 of 10 baskets is 3, whatever 0.3 * 10 is in binary.
    least = max(1, math.ceil(min_support * total - 1e-9))
    try:
        sets, found = native.frequent_itemsets(
            _arrow(offsets, pa.int64()), _arrow(coded, pa.uint32()), len(names), least, max_length, MAX_SETS, threads,
            confidence,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(
            f"{error} at min_support={min_support:g}", "raise min_support, or give max_length", "TRAIN016"
        ) from None
    itemsets = pl.DataFrame({"items": _lists(sets, names), "count": pl.Series(pl.from_arrow(sets[2]))})
    itemsets = itemsets.select(
        "items",
        # numpy divides; Polars would multiply by the reciprocal of a constant, which can be an ulp off.
        pl.Series("support", itemsets["count"].to_numpy() / max(total, 1), dtype=pl.Float64),
        pl.col("count").cast(pl.Int64),
        pl.col("items").list.len().cast(pl.Int64).alias("length"),
    ).sort(["support", "length", "items"], descending=[True, False, False])
    return itemsets, _rules(found, names, total) if found is not None else None


def _rules(found: Any, names: pl.Series, total: int) -> pl.DataFrame:
    antecedents, consequents, confidence, lift = found
    rules = pl.DataFrame(
        {
            "antecedent": _lists(antecedents, names),
            "consequent": _lists(consequents, names),
            "support": pl.Series(pl.from_arrow(antecedents[2])).to_numpy() / max(total, 1),
            "confidence": pl.Series(pl.from_arrow(confidence)),
            "lift": pl.Series(pl.from_arrow(lift)),
        }
    )
    order = ["confidence", "lift", "support", "antecedent", "consequent"]
    return rules.sort(order, descending=[True, True, True, False, False])


def _lists(sets: Sequence[pa.Array], names: pl.Series) -> pl.Series:
    offsets, codes = sets[0], sets[1]
    items = names.gather(pl.Series(pl.from_arrow(codes)))
    values = items.to_arrow()
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, values)))


def _arrow(series: pl.Series, type_: pa.DataType) -> pa.Array:
    array = series.rechunk().to_arrow()
    return array.cast(type_)

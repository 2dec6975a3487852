"""Frequent itemsets and rules: baskets/s against mlxtend's FP-growth on 1,000,000 baskets.

Ours starts from a list column and ends with frames; mlxtend's clock starts with its one-hot table already made. The
answers are compared before anything is timed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import polars as pl

from penstock.training.itemsets import mine

ITEMS = 300
MIN_SUPPORT = 0.005
CONFIDENCE = 0.3


def generate(baskets: int) -> tuple[np.ndarray, np.ndarray]:
    """Popularity falls as a power; one basket in three holds a whole bundle of goods that go together."""
    rng = np.random.default_rng(11)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    popularity /= popularity.sum()
    bundles = [rng.choice(ITEMS, 4, replace=False) for _ in range(40)]
    drawn = rng.choice(ITEMS, (baskets, 8), p=popularity)
    lengths = rng.integers(2, 9, baskets)
    drawn[np.arange(8) >= lengths[:, None]] = -1
    extra = np.array(bundles)[rng.integers(0, 40, baskets)]
    extra[rng.random(baskets) > 1 / 3] = -1
    both = np.sort(np.concatenate([drawn, extra], axis=1), axis=1)
    both[:, 1:][both[:, 1:] == both[:, :-1]] = -1
    held = both >= 0
    offsets = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
    return offsets, both[held]


def main() -> None:
    options = harness.arguments(__doc__)
    baskets = 200_000 if options.quick else 1_000_000
    peer = harness.Peer("mlxtend", harness.peer_python("mlxtend"), harness.HERE / "peers" / "itemsets_mlxtend.py")
    offsets, items = generate(baskets)
    lengths = np.diff(offsets)
    rows = np.repeat(np.arange(baskets, dtype=np.int64), lengths)
    lists = (
        pl.DataFrame({"row": rows, "item": items.astype(np.int64)})
        .group_by("row", maintain_order=True)
        .agg("item")
        .sort("row")["item"]
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "baskets.npz"
        np.savez(
            path,
            offsets=np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)]),
            items=items,
            size=ITEMS,
        )
        question = {"path": str(path), "min_support": MIN_SUPPORT, "confidence": CONFIDENCE}
        answer = Path(name) / "sets.csv"
        theirs = peer.ask(**question, answer=str(answer))
        sets, rules = mine(lists, MIN_SUPPORT, 0, CONFIDENCE, 2)
        ours = {" ".join(map(str, s)): v for s, v in zip(sets["items"].to_list(), sets["support"], strict=True)}
        other = pl.read_csv(answer, schema_overrides={"itemsets": pl.String})
        same = dict(zip(other["itemsets"], other["support"], strict=True))
        if ours.keys() != same.keys() or any(abs(v - same[k]) > 1e-12 for k, v in ours.items()):
            raise SystemExit("error: our itemsets are not mlxtend's")
        if rules is None or len(rules) != theirs["rule_count"]:
            raise SystemExit("error: our rules are not mlxtend's")

        def measure() -> dict[str, float]:
            started = time.perf_counter()
            mine(lists, MIN_SUPPORT, 0, None, 2)
            sets_seconds = time.perf_counter() - started
            started = time.perf_counter()
            mine(lists, MIN_SUPPORT, 0, CONFIDENCE, 2)
            return {"itemsets": len(lists) / sets_seconds, "with_rules": len(lists) / (time.perf_counter() - started)}

        def ask() -> dict[str, float]:
            found = peer.ask(**question)
            return {"itemsets": len(lists) / found["sets"], "with_rules": len(lists) / found["rules"]}

        rounds = harness.alternate({"ours": measure, "mlxtend": ask}, options.rounds)
    peer.close()
    more = {"baskets": len(lists), "itemsets": len(sets), "rules": len(rules), "threads": {"ours": 2, "mlxtend": 1}}
    found = harness.document("itemsets", "baskets/s", rounds, versions={"mlxtend": peer.version}, **more)
    harness.finish(found, options)


if __name__ == "__main__":
    main()

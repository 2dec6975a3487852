"""The features of benchmarks/features.py in scikit-learn, pandas and Polars; one script, `case` says which."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness


class Tables:
    """Holds the raw table in the peer's own form and maps it."""

    def setup(self, question: Mapping[str, Any]) -> str:
        self.q = question
        self.entries = Path(question["entries"]).read_text().splitlines()
        self.bounds = np.array(question["bounds"])
        starts: dict[str, Callable[[], str]] = {"sklearn": self.sklearn, "pandas": self.pandas, "polars": self.polars}
        return starts[question["case"]]()

    def answer(self, check: str = "") -> dict[str, Any]:
        if check:
            self.exact(self.map(self.head())).to_parquet(check)
            return {}
        started = time.perf_counter()
        self.map(self.raw)
        return {"seconds": time.perf_counter() - started}

    def head(self) -> Any:
        return self.raw.head(self.q["checked_rows"])

    # --- pandas ---------------------------------------------------------------------------------------------

    def pandas(self) -> str:
        import pandas as pd

        self.raw = pd.read_parquet(self.q["data"])
        self.index = pd.Series(np.arange(1, len(self.entries) + 1), index=pd.Index(self.entries))
        self.map, self.exact = (
            self.map_pandas,
            lambda mapped: mapped[[c for c in mapped if c[:2] in ("b_", "p_", "l_")]],
        )
        return pd.__version__

    def map_pandas(self, raw: Any) -> Any:
        import pandas as pd

        out: dict[str, Any] = {}
        for name in self.q["numbers"]:
            x = raw[name].to_numpy(dtype=np.float64, na_value=np.nan)
            index = np.searchsorted(self.bounds, x, side="right")
            index[np.isnan(x)] = -1
            out[f"b_{name}"] = index
        for name in self.q["strings"][:2]:
            found = self.index.index.get_indexer(raw[name].to_numpy(dtype=object, na_value=None)) + 1
            found[raw[name].isna().to_numpy()] = -1
            out[f"p_{name}"] = found
        hashes = {}
        for name in self.q["strings"]:
            hashes[name] = pd.util.hash_array(raw[name].fillna("").to_numpy(dtype=object), categorize=True)
            if name not in self.q["strings"][:2]:
                out[f"h_{name}"] = hashes[name]
        for name in self.q["lists"]:
            exploded = raw[name].explode().dropna()
            keys = pd.util.hash_array(exploded.to_numpy(dtype=object), categorize=True)
            places = exploded.index.to_numpy()
            cuts = np.searchsorted(places, np.arange(1, len(raw)))
            out[f"h_{name}"] = pd.Series(np.split(keys, cuts), index=raw.index)
        for a, b in self.q["pairs"]:
            out[f"x_{a}_{b}"] = hashes[a] * np.uint64(0x9E3779B97F4A7C15) ^ hashes[b]
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in self.q["numbers"]:
                y = np.log(raw[name].to_numpy(dtype=np.float64, na_value=np.nan))
                out[f"l_{name}"] = np.where(np.isfinite(y), y, 0).astype(np.float32)
        return pd.DataFrame(out, index=raw.index)

    # --- scikit-learn ---------------------------------------------------------------------------------------

    def sklearn(self) -> str:
        import sklearn
        from sklearn.compose import ColumnTransformer
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.pipeline import FunctionTransformer
        from sklearn.preprocessing import OrdinalEncoder

        self.pandas()
        categories = [np.array([*sorted(self.entries), np.nan], dtype=object)] * 2
        encoder = OrdinalEncoder(categories=categories, handle_unknown="use_encoded_value", unknown_value=-1,
                                 encoded_missing_value=-2, dtype=np.int64)  # fmt: skip
        encoder.fit(np.array([[self.entries[0]] * 2], dtype=object))
        position = {text: i for i, text in enumerate(self.entries, 1)}
        self.order = np.array([position[text] for text in categories[0][:-1]] + [-1, 0])

        def digitize(frame: Any) -> Any:
            x = frame.to_numpy(dtype=np.float64, na_value=np.nan)
            return np.where(np.isnan(x), -1, np.digitize(x, self.bounds))

        def log(frame: Any) -> Any:
            with np.errstate(divide="ignore", invalid="ignore"):
                y = np.log(frame.to_numpy(dtype=np.float64, na_value=np.nan))
            return np.where(np.isfinite(y), y, 0).astype(np.float32)

        def words(names: list[str]) -> Callable[[Any], Any]:
            prefixes = [f"{name}=" for name in names]

            def rows(frame: Any) -> Any:
                columns = [frame[name].fillna("").tolist() for name in names]
                return [[p + w for p, w in zip(prefixes, row, strict=True)] for row in zip(*columns, strict=True)]

            return rows

        def crossed(frame: Any) -> Any:
            columns = [(frame[a].fillna("") + "\x01" + frame[b].fillna("")).tolist() for a, b in self.q["pairs"]]
            return list(zip(*columns, strict=True))

        def listed(name: str) -> Callable[[Any], Any]:
            return lambda frame: [() if row is None else row for row in frame[name]]

        def hasher(make: Callable[[Any], Any]) -> Any:
            from sklearn.pipeline import make_pipeline

            return make_pipeline(
                FunctionTransformer(make), FeatureHasher(n_features=1 << 30, input_type="string", alternate_sign=False)
            )

        q = self.q
        hashed = q["strings"][2:]
        pair_columns = sorted({name for pair in q["pairs"] for name in pair})
        self.parts = ColumnTransformer(
            [
                ("b", FunctionTransformer(digitize), q["numbers"]),
                ("l", FunctionTransformer(log), q["numbers"]),
                ("p", encoder, q["strings"][:2]),
                ("h", hasher(words(hashed)), hashed),
                *((name, hasher(listed(name)), [name]) for name in q["lists"]),
                ("x", hasher(crossed), pair_columns),
            ],
            sparse_threshold=1.0,
        )
        # Fitted once on a few rows: everything here is stateless but the encoder, whose categories are given.
        self.encoder = encoder
        self.map = self.map_sklearn
        self.exact = self.exact_sklearn
        return sklearn.__version__

    def map_sklearn(self, raw: Any) -> Any:
        if not hasattr(self, "fitted"):
            self.parts.fit(raw.head(100))
            self.fitted = True
        return self.parts.transform(raw)

    def exact_sklearn(self, mapped: Any) -> Any:
        import pandas as pd

        numbers, q = len(self.q["numbers"]), self.q
        dense = mapped.tocsr()[:, : 2 * numbers + 2].toarray()
        out = {f"b_{n}": dense[:, i].astype(np.int64) for i, n in enumerate(q["numbers"])}
        for i, n in enumerate(q["strings"][:2]):
            codes = dense[:, 2 * numbers + i].astype(np.int64)
            out[f"p_{n}"] = self.order[codes]
        out |= {f"l_{n}": dense[:, numbers + i].astype(np.float32) for i, n in enumerate(q["numbers"])}
        return pd.DataFrame(out)

    # --- Polars ---------------------------------------------------------------------------------------------

    def polars(self) -> str:
        import polars as pl

        self.raw = pl.read_parquet(self.q["data"]).rechunk()
        q = self.q
        lists = [pl.col(n).list.eval(pl.element().drop_nulls().hash(0)).alias(f"h_{n}") for n in q["lists"]]
        entries = pl.Enum(self.entries)

        def bucket(name: str) -> Any:
            x = pl.col(name)
            count = pl.sum_horizontal(*((x >= b).cast(pl.UInt8) for b in self.bounds))
            return pl.when(x.is_not_null()).then(count).otherwise(-1).cast(pl.Int64).alias(f"b_{name}")

        def picked(name: str) -> Any:
            x = pl.col(name)
            found = x.cast(entries, strict=False).to_physical().cast(pl.Int64) + 1
            return pl.when(x.is_null()).then(-1).otherwise(found.fill_null(0)).alias(f"p_{name}")

        def log(name: str) -> Any:
            y = pl.col(name).log()
            return pl.when(y.is_finite()).then(y).otherwise(0.0).cast(pl.Float32).alias(f"l_{name}")

        slot = 15

        def key(hashed: Any, name: str, *sources: str) -> Any:
            """64-bit keys, the slot in the high bits; none where a source has no value."""
            nonlocal slot
            slot += 1
            known = pl.all_horizontal(*(pl.col(source).is_not_null() for source in sources))
            return pl.when(known).then((hashed & ((1 << 52) - 1)) | (slot << 52)).alias(name)

        self.expressions = [
            *map(bucket, q["numbers"]),
            *map(picked, q["strings"][:2]),
            *(key(pl.col(n).hash(0), f"h_{n}", n) for n in q["strings"][2:]),
            *lists,
            *(
                key(pl.col(a).hash(0) * 0x9E3779B97F4A7C15 ^ pl.col(b).hash(0), f"x_{a}_{b}", a, b)
                for a, b in q["pairs"]
            ),
            *map(log, q["numbers"]),
        ]
        self.map = self.map_polars
        self.exact = lambda mapped: _Parquet(mapped.select(pl.col("^(b|p|l)_.*$")))
        return pl.__version__

    def map_polars(self, raw: Any) -> Any:
        return raw.lazy().select(self.expressions).collect()


class _Parquet:
    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def to_parquet(self, path: str) -> None:
        self.frame.write_parquet(path)


if __name__ == "__main__":
    tables = Tables()
    harness.serve(tables.setup, tables.answer)

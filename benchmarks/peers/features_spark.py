"""The features of benchmarks/features.py as PySpark UDFs: `spark_udf` row by row, `spark_pandas_udf` by batches."""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

NULL = (1 << 52) - 1


class Spark:
    def setup(self, question: Mapping[str, Any]) -> str:
        import pyspark
        from pyspark.sql import SparkSession, types

        self.q = q = question
        self.session = (
            SparkSession.builder.master(f"local[{q['threads']}]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.memory", "6g")
            .config("spark.sql.execution.arrow.pyspark.enabled", "true")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "50000")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
        self.session.sparkContext.setLogLevel("ERROR")
        self.raw = self.session.read.parquet(q["data"]).repartition(4 * q["threads"]).cache()
        self.raw.count()
        keys, number = types.ArrayType(types.LongType()), types.FloatType()
        slots = [f"b_{n}" for n in q["numbers"]] + [f"p_{n}" for n in q["strings"][:2]]
        slots += [f"h_{n}" for n in q["strings"][2:] + q["lists"]] + [f"x_{a}_{b}" for a, b in q["pairs"]]
        self.fields = [*((name, keys) for name in slots), *((f"l_{n}", number) for n in q["numbers"])]
        single = types.LongType()
        self.flat_fields = [(n, t if t is number or n in ("h_tags", "h_history") else single) for n, t in self.fields]
        self.entries = self.session.sparkContext.broadcast(
            {text: i for i, text in enumerate(Path(q["entries"]).read_text().splitlines(), 1)}
        )
        self.make = {"spark_udf": self.rows, "spark_pandas_udf": self.batches}[q["case"]]
        return str(pyspark.__version__)

    def answer(self, check: str = "") -> dict[str, Any]:
        if check:
            self.exact(check)
            return {}
        started = time.perf_counter()
        self.make(self.raw).write.format("noop").mode("overwrite").save()
        return {"seconds": time.perf_counter() - started}

    def exact(self, target: str) -> None:
        import pandas as pd

        head = self.session.read.parquet(self.q["data"]).limit(self.q["checked_rows"]).coalesce(1)
        mapped = self.make(head).toPandas()
        out = {}
        for name in mapped.columns:
            if name[:2] in ("b_", "p_"):
                column = mapped[name]
                if self.q["case"] == "spark_udf":
                    column = [keys[0] & NULL if len(keys) else -1 for keys in column]
                out[name] = pd.Series(column).astype("int64")
            elif name[:2] == "l_":
                out[name] = mapped[name].astype("float32")
        pd.DataFrame(out).to_parquet(target)

    # --- a Python function of one row ------------------------------------------------------------------------

    def rows(self, frame: Any) -> Any:
        """One UDF for the whole row: a UDF a feature would pay the way to Python 59 times."""
        from pyspark.sql import functions as f
        from pyspark.sql import types

        q, entries = self.q, self.entries
        bounds, numbers, strings, lists, pairs = q["bounds"], q["numbers"], q["strings"], q["lists"], q["pairs"]
        schema = types.StructType([types.StructField(n, t) for n, t in self.fields])
        n, s = len(numbers), len(strings)
        at = {name: n + i for i, name in enumerate(strings)}

        def mapped(*row: Any) -> Any:
            from xxhash import xxh3_64_intdigest as xxh3

            table, out, slot = entries.value, [], 0
            for x in row[:n]:
                slot += 1
                out.append([] if x is None else [slot << 52 | bisect_right(bounds, x)])
            for text in row[n : n + 2]:
                slot += 1
                out.append([] if text is None else [slot << 52 | table.get(text, 0)])
            for text in row[n + 2 : n + s]:
                slot += 1
                out.append([] if text is None else [slot << 52 | min(xxh3(text.encode()) & NULL, NULL - 1)])
            for values in row[n + s :]:
                slot += 1
                out.append([slot << 52 | min(xxh3(text.encode()) & NULL, NULL - 1) for text in values or ()])
            for a, b in pairs:
                slot += 1
                left, right = row[at[a]], row[at[b]]
                if left is None or right is None:
                    out.append([])
                    continue
                parts = xxh3(left.encode()).to_bytes(8, "little") + xxh3(right.encode()).to_bytes(8, "little")
                out.append([slot << 52 | min(xxh3(parts) & NULL, NULL - 1)])
            for x in row[:n]:
                out.append(0.0 if x is None or x <= 0 else math.log(x))
            return tuple(out)

        call = f.udf(mapped, schema)
        return frame.select(call(*numbers, *strings, *lists).alias("m")).select("m.*")

    # --- a function of Arrow batches as pandas frames --------------------------------------------------------

    def batches(self, frame: Any) -> Any:
        from pyspark.sql import types

        q, entries = self.q, self.entries
        schema = types.StructType([types.StructField(n, t) for n, t in self.flat_fields])

        def mapped(frames: Any) -> Any:
            import numpy as np
            import pandas as pd

            bounds = np.array(q["bounds"])
            table = entries.value
            for raw in frames:
                out: dict[str, Any] = {}
                for name in q["numbers"]:
                    x = raw[name].to_numpy(dtype=np.float64, na_value=np.nan)
                    index = np.searchsorted(bounds, x, side="right")
                    index[np.isnan(x)] = -1
                    out[f"b_{name}"] = index
                for name in q["strings"][:2]:
                    get = table.get
                    out[f"p_{name}"] = np.array([-1 if t is None else get(t, 0) for t in raw[name]])
                hashes = {n: pd.util.hash_array(raw[n].fillna("").to_numpy(dtype=object)) for n in q["strings"]}
                for name in q["strings"][2:]:
                    out[f"h_{name}"] = hashes[name].view(np.int64)
                for name in q["lists"]:
                    lengths = raw[name].map(lambda v: 0 if v is None else len(v)).to_numpy()
                    filled = [v for v in raw[name] if v is not None and len(v)]
                    flat = np.concatenate(filled) if filled else np.empty(0, dtype=object)
                    keys = pd.util.hash_array(flat.astype(object)).view(np.int64)
                    out[f"h_{name}"] = np.split(keys, np.cumsum(lengths)[:-1])
                for a, b in q["pairs"]:
                    out[f"x_{a}_{b}"] = (hashes[a] * np.uint64(0x9E3779B97F4A7C15) ^ hashes[b]).view(np.int64)
                with np.errstate(divide="ignore", invalid="ignore"):
                    for name in q["numbers"]:
                        y = np.log(raw[name].to_numpy(dtype=np.float64, na_value=np.nan))
                        out[f"l_{name}"] = np.where(np.isfinite(y), y, 0).astype(np.float32)
                yield pd.DataFrame(out)

        return frame.mapInPandas(mapped, schema)


if __name__ == "__main__":
    spark = Spark()
    harness.serve(spark.setup, spark.answer)

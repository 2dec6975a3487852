"""Kedro: N no-op nodes in this process (memory datasets), or in its ParallelRunner with pickled datasets on disk."""

import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

logging.disable(logging.WARNING)


def same(x):  # type: ignore[no-untyped-def]
    return x


def setup(question):  # type: ignore[no-untyped-def]
    import kedro

    return kedro.__version__


def answer(case, nodes):  # type: ignore[no-untyped-def]
    from kedro.io import DataCatalog, MemoryDataset, SharedMemoryDataCatalog
    from kedro.pipeline import node, pipeline
    from kedro.runner import ParallelRunner, SequentialRunner

    if case == "in_process":
        chain = pipeline([node(same, f"d{i}", f"d{i + 1}", name=f"n{i}") for i in range(nodes)])
        catalog = DataCatalog({"d0": MemoryDataset([1, 2, 3])})
        started = time.perf_counter()
        SequentialRunner().run(chain, catalog)
        return {"rate": nodes / (time.perf_counter() - started)}
    with tempfile.TemporaryDirectory() as folder:
        from kedro_datasets.pickle import PickleDataset

        fan = pipeline([node(same, "d", f"o{i}", name=f"n{i}") for i in range(nodes)])
        datasets = {f"o{i}": PickleDataset(filepath=f"{folder}/o{i}.pkl") for i in range(nodes)}
        source = PickleDataset(filepath=f"{folder}/d.pkl")
        source.save([1, 2, 3])
        started = time.perf_counter()
        ParallelRunner(max_workers=2).run(fan, SharedMemoryDataCatalog({"d": source, **datasets}))
        seconds = time.perf_counter() - started
        assert len(list(Path(folder).glob("o*.pkl"))) == nodes
        return {"rate": nodes / seconds}


if __name__ == "__main__":
    harness.serve(setup, answer)

"""A request becomes a bundle: load the original, convert it, prove it, add rows to warm up with, seal the folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock import __version__
from penstock.registry import bundles, proof
from penstock.registry.converting import rows as row_files
from penstock.registry.converting.original import Original
from penstock.registry.converting.request import Request
from penstock.registry.converting.tensors import Feed, Tensor, rows_of
from penstock.registry.faults import ConversionError, ProofError


def make(request: Request) -> dict[str, Any]:
    """Leave the bundle in `request.folder`; return what the proof found. Raises `ConversionError`, `ProofError`."""
    table = pq.read_table(request.rows) if request.rows else None
    original = _load(request, table)
    refused: ProofError | None = None
    for precision in original.precisions:
        inputs = original.inputs(precision)
        feed = _feed(request, table, inputs)
        staged = Path(request.folder).with_name(f"bundle-{precision}")
        staged.mkdir()
        try:
            made = original.convert(staged, precision)
        except ConversionError:
            if refused is not None:  # what the better precision was refused for says more
                raise refused from None
            raise
        manifest = _manifest(request, original, made, inputs)
        (staged / "categories.json").write_text("{}", encoding="utf-8")
        if feed is not None:
            manifest["warmup"] = _warm_up(staged, feed, inputs)
        found: dict[str, Any] = {"unproven": True} if feed is None else {}
        bundles.write_manifest(staged, {"format_version": bundles.FORMAT_VERSION, **manifest, "files": {}})
        if feed is not None:
            try:
                found = proof.prove(original, staged, feed, inputs, request)
            except ProofError as error:
                refused = error
                shutil.rmtree(staged)
                continue
        bundles.seal(staged, Path(request.folder), manifest)
        return {**found, "precision": precision, "made_up": table is None and feed is not None}
    assert refused is not None
    raise refused


def _load(request: Request, table: pa.Table | None) -> Original:
    """The original, by its framework's own module: nothing else of the libraries is imported."""
    framework = request.framework
    try:
        if framework == "onnx":
            from penstock.registry.converting import onnx_graphs

            return onnx_graphs.load(request)
        if framework == "lightgbm":
            from penstock.registry.converting import lightgbm_models

            return lightgbm_models.load(request)
        if framework == "xgboost":
            from penstock.registry.converting import xgboost_models

            return xgboost_models.load(request)
        if framework == "sklearn":
            from penstock.registry.converting import sklearn_models

            return sklearn_models.load(request, table)
        if framework == "torch":
            from penstock.registry.converting import torch_models

            return torch_models.load(request, row_files.plain_feed(table) if table is not None else None)
        from penstock.registry.converting import tensorflow_models

        return tensorflow_models.load(request)
    except ImportError as error:
        missing = error.name or str(error)
        said = f"bringing in a model of {framework} needs {missing}, which is not installed"
        raise ConversionError(said, "pip install 'penstock[convert]', and the framework itself", "REG018") from error


def _feed(request: Request, table: pa.Table | None, inputs: Sequence[Tensor]) -> Feed | None:
    if table is not None:
        return row_files.feed_of(table, inputs)
    try:
        return row_files.made_up(inputs)
    except ConversionError:
        if request.unproven:
            return None
        raise


def _manifest(
    request: Request, original: Original, made: Mapping[str, Any], inputs: Sequence[Tensor]
) -> dict[str, Any]:
    path = Path(request.path)
    libraries = {"penstock": __version__}
    for name in (original.library, "onnx", "skl2onnx", "onnxmltools", "onnxscript"):
        try:
            libraries[name] = version({"xgboost": "xgboost-cpu"}.get(name, name))
        except PackageNotFoundError:
            continue
    source = {"framework": original.algorithm, "framework_version": request.framework_version, "file": path.name}
    if path.is_file():
        source["sha256"] = bundles.sha256_of(path)
    empty = {"numeric": [], "vectors": [], "categorical": [], "slots": [], "positions": False}
    outputs: Sequence[Tensor] = made["outputs"]
    return {
        "algorithm": made["algorithm"],
        "label": "",
        "signature": {"inputs": [t.as_dict() for t in inputs], "outputs": [t.as_dict() for t in outputs]},
        "plan": "",
        "encoder": made.get("encoder", {"layout": empty, "widths": [], "places": 0}),
        "model": made["model"],
        "parameters": {},
        "metrics": {},
        "lineage": {"source": source},
        "libraries": {**libraries, **made.get("libraries", {})},
        "warmup": None,
    }


def _warm_up(folder: Path, feed: Feed, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """The first rows, as the host will be asked: a column an input, lists where a row has several values."""
    columns = {}
    rows = min(bundles.WARMUP_ROWS, rows_of(feed))
    for tensor in inputs:
        values = tensor.cast(feed[tensor.name][:rows])
        flat = pa.array(values.reshape(-1), pa.string() if tensor.datatype == "BYTES" else None)
        width = values.size // max(rows, 1)
        columns[tensor.name] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
    pq.write_table(pa.table(columns), folder / bundles.WARMUP)
    return {"file": bundles.WARMUP, "rows": rows}

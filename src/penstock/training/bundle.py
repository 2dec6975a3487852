"""The model bundle: a folder with everything that scoring needs, in open formats. docs/models.md describes it.

`manifest.json` is written last, and the folder is renamed into place: a torn bundle does not load.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock import __version__
from penstock.data.schema import ModelInfo
from penstock.errors import PenstockError, did_you_mean
from penstock.features.plan import Form, Plan
from penstock.operators.places import is_name, models
from penstock.registry.bundles import check_files, read_manifest, seal
from penstock.registry.faults import BundleError
from penstock.training import warm_rows
from penstock.training.matrices import Encoder
from penstock.training.scorers import Scorer, load_scorer

if TYPE_CHECKING:
    import polars as pl

CATEGORIES = "categories.json"
LIBRARIES = ("lightgbm", "numpy", "polars", "pyarrow")


@dataclass(frozen=True)
class Bundle:
    """A trained model with what it was trained on. `plan` maps raw columns; what is not of the plan is taken as given.

    `types`: raw column -> Arrow type as text ("" where it was not known). `chain`: where in a chain it stands
    (docs/models.md); of a bundle that is being saved alone: what is made from a loaded one stands nowhere yet.
    """

    algorithm: str
    label: str
    encoder: Encoder
    scorer: Scorer
    plan: Plan | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    #: Rows in the form of requests (`warm_rows`).
    warmup: pa.Table | None = None
    chain: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return self.plan.fingerprint if self.plan else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns it reads: the plan's, and those that are no feature of the plan."""
        return tuple(dict.fromkeys((*self.plan.columns, *self.beside))) if self.plan else self.encoder.layout.columns

    @property
    def beside(self) -> tuple[str, ...]:
        """What the model reads that the plan does not make: columns that were kept beside the features."""
        made = set(self.plan.schema((), self.form).names) if self.plan else set()
        return tuple(name for name in self.encoder.layout.columns if name not in made)

    @property
    def form(self) -> Form:
        return "flat" if self.encoder.layout.vectors else "slots"

    @property
    def info(self) -> ModelInfo:
        details = {"columns": {name: self.types.get(name, "") for name in self.columns}}
        return ModelInfo(self.algorithm, self.fingerprint, self.label, details)

    def takes_mapped(self, fingerprint: str, names: Any) -> bool:
        """Whether a frame mapped by the plan `fingerprint` holds, among `names`, all that the model reads."""
        return bool(self.plan) and fingerprint == self.fingerprint and set(self.encoder.layout.columns) <= set(names)

    def score(
        self, data: pa.RecordBatch | pl.DataFrame, *, mapped: bool = False, threads: int = 0, first_row: int = 0
    ) -> npt.NDArray[np.float64]:
        """Probabilities of label 1, a row each. `mapped`: the columns are the plan's outputs rather than raw ones.

        Raises `BundleError` naming a missing column, `DataError` naming a row that the plan has no meaning for.
        """
        batch = data if isinstance(data, pa.RecordBatch) else one_batch(data)
        self.require(batch.schema.names, mapped=mapped)
        if self.plan and not mapped:
            batch = self.plan.apply(batch.select(list(self.columns)), self.beside, self.form, threads)
        return self.scorer.scores(self.encoder.encode(batch.select(list(self.encoder.layout.columns))), threads)

    def require(self, names: Any, *, mapped: bool = False) -> None:
        known = list(names)
        needed = self.encoder.layout.columns if mapped else self.columns
        missing = [name for name in needed if name not in known]
        if missing:
            listed = ", ".join(f"'{name}'" for name in missing)
            hint = did_you_mean(missing[0], known, f"the columns are {', '.join(known[:20])}")
            raise BundleError(f"the {self.algorithm} model reads {listed}, not among the columns", hint, "TRAIN013")

    # --- how it travels ---

    def save(self, folder: Path) -> None:
        """Write the bundle as `folder`, whole or not at all; a bundle that is there is replaced."""
        staged = folder.with_name(f".{folder.name}.staged")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        model = self.scorer.save(staged)
        categories = {name: list(values) for name, values in self.encoder.categories.items()}
        (staged / CATEGORIES).write_text(json.dumps(categories, ensure_ascii=False), encoding="utf-8")
        if self.plan:
            self.plan.save(staged)
        manifest = {
            "algorithm": self.algorithm,
            "label": self.label,
            "signature": {
                "inputs": [{"name": name, "type": self.types.get(name, "")} for name in self.columns],
                "outputs": [{"name": "score", "type": "double"}],
            },
            "plan": self.fingerprint,
            "encoder": self.encoder.as_dict(),
            "model": model,
            "parameters": dict(self.parameters),
            "metrics": dict(self.metrics),
            "lineage": dict(self.lineage),
            "libraries": _libraries(),
            "warmup": warm_rows.write(self.warmup, staged),
            **({"chain": dict(self.chain)} if self.chain else {}),
        }
        seal(staged, folder, manifest)


def load(location: str | Path) -> Bundle:
    """The bundle in a folder, or behind a `models:/` name. Raises `BundleError` saying what is wrong with it."""
    folder = place_of(str(location))
    manifest = read_manifest(folder)
    try:
        if not is_name(str(location)):  # the cache has looked at its files when they came in
            check_files(folder, manifest["files"])
        categories = json.loads((folder / CATEGORIES).read_text(encoding="utf-8"))
        encoder = _encoder(manifest, categories)
        scorer = load_scorer(folder, manifest["model"], len(encoder.field_names))
        plan = Plan.load(folder) if manifest["plan"] else None
        bundle = Bundle(
            str(manifest["algorithm"]),
            str(manifest["label"]),
            encoder,
            scorer,
            plan,
            {c["name"]: c["type"] for c in manifest["signature"]["inputs"]},
            manifest["parameters"],
            manifest["metrics"],
            manifest["lineage"],
            warm_rows.read(folder, manifest["warmup"]),
        )
    except PenstockError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"the model bundle {folder} cannot be read: {said}", "train it again", "TRAIN010") from error
    if bundle.fingerprint != manifest["plan"]:
        raise BundleError(
            f"the model bundle {folder} was trained with the feature plan {str(manifest['plan'])[:12]}, "
            f"but holds {bundle.fingerprint[:12]}",
            "a model and its plan belong together: take both from the same training run",
            "TRAIN012",
        )
    return bundle


def _encoder(manifest: Mapping[str, Any], categories: Mapping[str, Any]) -> Encoder:
    if manifest["model"]["form"] == "onnx":
        from penstock.training.graphs import TensorEncoder

        return TensorEncoder.of(manifest["model"]["inputs"])
    return Encoder.from_dict(manifest["encoder"], categories)


def place_of(location: str) -> Path:
    """The folder of a bundle: itself, or where the registry's local cache holds the version that is named."""
    return models().folder(location) if is_name(location) else Path(location.removeprefix("file://"))


def info_of(location: str) -> ModelInfo:
    """What a check may know of a bundle; nothing is fetched for it. Raises `BundleError`, `UnknownVersion`."""
    if is_name(location):
        from penstock.registry.door import version

        return _info(version(location).manifest, location)
    folder = Path(location.removeprefix("file://"))
    return _info(read_manifest(folder), str(folder))


def _info(manifest: Mapping[str, Any], where: str) -> ModelInfo:
    try:
        columns = {c["name"]: c["type"] for c in manifest["signature"]["inputs"]}
        return ModelInfo(manifest["algorithm"], manifest["plan"], manifest["label"], {"columns": columns})
    except (KeyError, TypeError) as error:
        raise BundleError(f"the manifest of {where} is not whole: {error}", code="TRAIN010") from None


def one_batch(frame: pl.DataFrame) -> pa.RecordBatch:
    """A frame as one record batch, without a copy where it is in one chunk."""
    table = frame.rechunk().to_arrow().combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _libraries() -> dict[str, str]:
    found = {"penstock": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

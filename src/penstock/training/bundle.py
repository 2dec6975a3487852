"""The model bundle: a folder with everything that scoring needs, in open formats. docs/models.md describes it.

`manifest.json` is written last, and the folder is renamed into place: a torn bundle does not load.
"""

from __future__ import annotations

import hashlib
import json
import os
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
from penstock.training.faults import BundleError, RegistryNeeded
from penstock.training.matrices import Encoder
from penstock.training.scorers import Scorer, load_scorer

if TYPE_CHECKING:
    import polars as pl

FORMAT_VERSION = 1
MANIFEST, CATEGORIES = "manifest.json", "categories.json"
LIBRARIES = ("lightgbm", "numpy", "polars", "pyarrow")


@dataclass(frozen=True)
class Bundle:
    """A trained model with what it was trained on. `plan` maps raw columns; what is not of the plan is taken as given.

    `types`: raw column -> Arrow type as text ("" where it was not known).
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
        files = {
            str(path.relative_to(staged)): {"size_bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(staged.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "format_version": FORMAT_VERSION,
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
            "files": files,
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False, default=str)
        (staged / MANIFEST).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(staged, folder)  # noqa: PTH104  a folder into its place, whole


def load(location: str | Path) -> Bundle:
    """The bundle in a folder. Raises `BundleError` saying what is wrong with it, `RegistryNeeded` for `models:/`."""
    if str(location).startswith("models:/"):
        raise RegistryNeeded(str(location))
    folder = Path(str(location).removeprefix("file://"))
    manifest = read_manifest(folder)
    try:
        _check_files(folder, manifest["files"])
        categories = json.loads((folder / CATEGORIES).read_text(encoding="utf-8"))
        encoder = Encoder.from_dict(manifest["encoder"], categories)
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone: enough for a check. Raises `BundleError`."""
    hint = "an output of type 'model' writes bundles"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        said = f"{folder} is not a model bundle: it has no {MANIFEST}"
        raise BundleError(
            said if folder.exists() else f"there is no model bundle at {folder}", hint, "TRAIN010"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(
            f"the manifest of the model bundle {folder} cannot be read: {error}", hint, "TRAIN010"
        ) from None
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise BundleError(f"the manifest of {folder} has no format_version", hint, "TRAIN010")
    if found > FORMAT_VERSION:
        raise BundleError(
            f"the model bundle {folder} is of format {found}; this Penstock reads up to {FORMAT_VERSION}",
            f"it was written by a newer Penstock than this one ({__version__}): upgrade",
            "TRAIN011",
        )
    return dict(manifest)


def info_of(folder: Path) -> ModelInfo:
    """What a check may know of a bundle. Raises `BundleError`."""
    manifest = read_manifest(folder)
    try:
        columns = {c["name"]: c["type"] for c in manifest["signature"]["inputs"]}
        return ModelInfo(manifest["algorithm"], manifest["plan"], manifest["label"], {"columns": columns})
    except (KeyError, TypeError) as error:
        raise BundleError(f"the manifest of {folder} is not whole: {error}", code="TRAIN010") from None


def one_batch(frame: pl.DataFrame) -> pa.RecordBatch:
    """A frame as one record batch, without a copy where it is in one chunk."""
    table = frame.rechunk().to_arrow().combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, stored in files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BundleError(f"the manifest of {folder} names a file outside it: {name}", code="TRAIN010")
        if not path.is_file():
            raise BundleError(f"the model bundle {folder} lacks its file {name}", "copy the whole folder", "TRAIN010")
        size = path.stat().st_size
        if size != stored["size_bytes"]:
            said = f"{name} in the model bundle {folder} has {size:,} bytes, not {stored['size_bytes']:,}"
            raise BundleError(said, "was it copied whole?", "TRAIN010")
        if _sha256(path) != stored["sha256"]:
            said = f"{name} in the model bundle {folder} is not the file that was written with it"
            raise BundleError(said, "take the whole folder from one training run", "TRAIN012")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _libraries() -> dict[str, str]:
    found = {"penstock": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

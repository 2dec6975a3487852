"""`.keras` files: a ZIP with the model's layers as JSON, looked through before Keras opens it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.registry.converting.saved_models import BEFORE
from penstock.registry.faults import ConversionError

_CONFIG, _CONFIG_BYTES = "config.json", 64 << 20
#: Where Keras' own layers and what they are made of live: nothing here runs what a file says.
_OWN = re.compile(
    r"keras(\.src)?(\.(layers|models|initializers|regularizers|constraints|activations|optimizers|losses|metrics|ops"
    r"|dtype_policies|quantizers)(\..*)?)?"
)
_LAMBDAS = ("Lambda", "__lambda__")
_INCONVERTIBLE = ("StringLookup", "IntegerLookup", "TextVectorization", "Discretization", "Hashing", "HashedCrossing")


def inspect(path: Path) -> None:
    """Raises `ConversionError`: REG021 for layers that run programs, REG018 for what does not convert, REG015."""
    if not zipfile.is_zipfile(path):
        said = f"{path} is no .keras file; HDF5 files have no safe mode, so they are not opened"
        raise ConversionError(said, "keras.models.load_model(path).save('model.keras') where you trust it", "REG021")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_CONFIG) as file:
            text = file.read(_CONFIG_BYTES + 1)
        if len(text) > _CONFIG_BYTES:
            raise ValueError(f"its {_CONFIG} has more than {_CONFIG_BYTES >> 20} MiB")
        parts = list(_parts(json.loads(text)))
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ConversionError(f"{path} is no .keras file: {error}", "model.save('model.keras')", "REG015") from error
    for kind, name, module in parts:
        if kind in _LAMBDAS:
            said = f"{path} holds a Lambda layer{name}, which runs a program of the file"
            raise ConversionError(said, "a layer of Keras' own, or a SavedModel: model.export(folder)", "REG021")
        if kind in _INCONVERTIBLE:
            raise ConversionError(f"{path} holds a {kind} layer{name}, which does not convert", BEFORE, "REG018")
        if module and module != "builtins" and not _OWN.fullmatch(module):
            said = f"{path} holds {kind}{name} of the module {module}, which is no part of Keras' layers"
            raise ConversionError(said, "save it as a SavedModel, which needs no class: model.export(folder)", "REG018")


def _parts(value: Any) -> Iterator[tuple[str, str, str]]:
    """Class, name (or "") and module of every object that the configuration makes."""
    if isinstance(value, list):
        for each in value:
            yield from _parts(each)
    elif isinstance(value, dict):
        if "class_name" in value:
            config = value.get("config")
            own = config.get("name") if isinstance(config, dict) else None
            module = value.get("module") or str(value.get("registered_name") or "").rpartition(">")[0]
            yield str(value["class_name"]), f" '{own}'" if own else "", str(module)
        for each in value.values():
            yield from _parts(each)

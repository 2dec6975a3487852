"""Where the registry, its blobs and the local cache are: every environment variable of the registry is read here.

One registry serves every project of a user: `models:/ctr@live` means the same in any folder. It lies in
`$PENSTOCK_HOME/registry` where that is set, else in `$XDG_DATA_HOME/penstock/registry` (`~/.local/share/...`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from penstock.data.home import HOME
from penstock.errors import RequestError

URL, BLOBS = "PENSTOCK_REGISTRY", "PENSTOCK_REGISTRY_BLOBS"
CACHE, CACHE_BYTES = "PENSTOCK_MODEL_CACHE", "PENSTOCK_MODEL_CACHE_BYTES"
KEYS = "PENSTOCK_REGISTRY_KEYS"
TENSORFLOW = "PENSTOCK_TENSORFLOW_PYTHON"
#: What the local cache may take before the versions that were used longest ago leave it.
DEFAULT_CACHE_BYTES = 20 << 30


def registry_url() -> str:
    """`$PENSTOCK_REGISTRY`, else the folder of this user's own registry."""
    return os.environ.get(URL, "") or str(_home("registry", "XDG_DATA_HOME", ".local/share"))


def blobs_url() -> str:
    """`$PENSTOCK_REGISTRY_BLOBS`; "" leaves it to the registry."""
    return os.environ.get(BLOBS, "")


def cache_folder() -> Path:
    """Where fetched versions are kept on this machine."""
    given = os.environ.get(CACHE, "")
    return Path(given).expanduser().absolute() if given else _home("models", "XDG_CACHE_HOME", ".cache")


def cache_bytes() -> int:
    """The bound of the local cache, in bytes. Raises `RequestError` where the variable holds no number."""
    given = os.environ.get(CACHE_BYTES, "")
    if not given:
        return DEFAULT_CACHE_BYTES
    if not given.isdigit():
        raise RequestError(f"{CACHE_BYTES} is '{given}'", "a number of bytes, such as 20000000000", "REG004")
    return int(given)


def keys_folder() -> Path:
    """Where this user's signing key (`own.key`) and the public keys that imports trust (`*.pub`) lie."""
    given = os.environ.get(KEYS, "")
    if given:
        return Path(given).expanduser().absolute()
    home = os.environ.get(HOME, "")
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home).expanduser().absolute() / "keys" if home else Path(base) / "penstock" / "keys"


def tensorflow_place() -> Path:
    """Where an environment of TensorFlow is looked for: a virtual environment's folder."""
    return _home("tensorflow", "XDG_DATA_HOME", ".local/share")


def tensorflow_python() -> str:
    """The interpreter that converts TensorFlow's models: `$PENSTOCK_TENSORFLOW_PYTHON`, this one where it has tf2onnx
    and TensorFlow, that of `tensorflow_place`; "" where there is none."""
    given = os.environ.get(TENSORFLOW, "")
    if given:
        return str(Path(given).expanduser().absolute())
    if all(importlib.util.find_spec(name) for name in ("tensorflow", "tf2onnx")):
        return sys.executable
    python = tensorflow_place() / "bin" / "python"
    return str(python) if python.is_file() else ""


def _home(name: str, variable: str, otherwise: str) -> Path:
    home = os.environ.get(HOME, "")
    if home:
        return Path(home).expanduser().absolute() / name
    base = os.environ.get(variable, "") or str(Path.home() / otherwise)
    return Path(base) / "penstock" / name

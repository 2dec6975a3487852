"""TensorFlow's own environment, and models that were made in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ..serving.environments import HERE, ROOT

REQUIREMENTS = HERE / "requirements" / "tensorflow.txt"


@pytest.fixture(scope="session")
def tensorflow() -> Path:
    """The interpreter of the environment; 1.7 GB, so that only `make soak` makes it."""
    given = os.environ.get("PENSTOCK_TENSORFLOW_PYTHON", "")
    python = Path(given) if given else ROOT / "tensorflow" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no environment of TensorFlow: python tests/services/serving/environments.py tensorflow")
    return python


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)


@pytest.fixture(scope="session")
def models(tensorflow: Path, rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models of `models.py`."""
    folder = tmp_path_factory.mktemp("tensorflow")
    np.save(folder / "rows.npy", rows)
    script = Path(__file__).with_name("models.py")
    environment = {"PATH": os.defpath, "HOME": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [tensorflow, "-I", script, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(autouse=True)
def place(tensorflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PENSTOCK_REGISTRY", "PENSTOCK_MODEL_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PENSTOCK_TENSORFLOW_PYTHON", str(tensorflow))

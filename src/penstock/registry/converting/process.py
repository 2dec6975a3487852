"""Starts the limited process, and tells what became of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.registry import settings
from penstock.registry.converting import rows as row_files
from penstock.registry.converting.request import FRAMEWORKS, SPELLINGS, Outcome, Request
from penstock.registry.faults import ConversionError, ProofError

_PROOF = "REG020"


@contextmanager
def converted(request: Request, rows: Any = None) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The bundle made of a model, until the block ends, and its proof. `rows`: as `rows.write` takes them, or a path.

    Raises `ConversionError` (REG015 to REG019, REG021), `ProofError` (REG020).
    """
    with tempfile.TemporaryDirectory(prefix="penstock-convert-") as scratch:
        place = Path(scratch)
        given = str(place / "rows.parquet") if rows is not None else ""
        if rows is not None:
            row_files.write(row_files.read_file(Path(rows)) if isinstance(rows, str | Path) else rows, Path(given))
        framework = known(request.framework) or detected(Path(request.path))
        path = str(Path(request.path).absolute())
        whole = replace(
            request, path=path, folder=str(place / "bundle"), rows=given, framework=framework,
            tensorflow_python=settings.tensorflow_python(), tensorflow_place=str(settings.tensorflow_place()),
        )  # fmt: skip
        outcome = _run(whole, place)
        if outcome.error is not None:
            code, message, hint = outcome.error
            raise (ProofError if code == _PROOF else ConversionError)(message, hint, code)
        yield Path(whole.folder), outcome.proof


def known(framework: str) -> str:
    """A framework by the name this package has for it; "" stays "". Raises `ConversionError` (REG015)."""
    name = SPELLINGS.get(framework.lower(), framework.lower())
    if name and name not in FRAMEWORKS:
        said = f"'{framework}' is no framework that models are brought in from"
        raise ConversionError(said, f"one of {', '.join(FRAMEWORKS)}", "REG015")
    return name


def detected(path: Path) -> str:
    """The framework whose file or folder this is. Raises `ConversionError` (REG015)."""
    if not path.exists():
        raise ConversionError(
            f"there is no model at {path}", "a bundle's folder, or another framework's file", "REG015"
        )
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "tensorflow"
    else:
        by_suffix = {".onnx": "onnx", ".pt2": "torch", ".pt": "torch", ".pth": "torch", ".skops": "sklearn",
                     ".keras": "keras", ".h5": "keras", ".ubj": "xgboost"}  # fmt: skip
        if path.suffix in by_suffix:
            return by_suffix[path.suffix]
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(b"tree"):
            return "lightgbm"
        if b'"learner"' in head:
            return "xgboost"
        if path.suffix in (".pkl", ".pickle", ".joblib"):
            return "sklearn"
    raise ConversionError(f"{path} may be a model of several frameworks", "name it: --framework sklearn", "REG015")


def _run(request: Request, place: Path) -> Outcome:
    asked, answered, log = place / "request.json", place / "outcome.json", place / "log"
    asked.write_text(request.to_json(), encoding="utf-8")
    home = place / "home"
    home.mkdir()
    # Nothing of this process's environment: no tokens, no proxies, no PYTHONPATH.
    environment = {
        "PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home), "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow",
    }  # fmt: skip
    command = [sys.executable, "-I", "-m", "penstock.registry.converting.child", str(asked), str(answered)]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
            cwd=home,
            start_new_session=True,
        )
        try:
            process.wait(2 * request.cpu_s)
        except subprocess.TimeoutExpired:
            late = f"converting {request.path} took more than {2 * request.cpu_s} s"
            raise ConversionError(late, "convert it to ONNX by hand", "REG015") from None
        finally:
            with suppress(ProcessLookupError):  # what it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if answered.is_file():
        return Outcome.load(answered)
    raise ConversionError(
        f"converting {request.path} failed: {_why(process.returncode, log, request)}",
        "the model's own library may say more when it loads the model by itself",
        "REG015",
    )


def _why(status: int, log: Path, request: Request) -> str:
    if status == -signal.SIGXCPU:
        return f"it took more than {request.cpu_s} s of CPU"
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name} ({last[0][:200]})"
    return last[0][:300] or f"its process ended with {status}"

"""What goes into the limited process and what comes out of it, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Beyond these a served score is not the original's: |served - original| <= ABSOLUTE + RELATIVE x |original|.
ABSOLUTE, RELATIVE = 1e-5, 1e-4

FRAMEWORKS = ("onnx", "lightgbm", "xgboost", "sklearn", "torch", "keras", "tensorflow")
#: Names that people use for the same.
SPELLINGS = {"scikit-learn": "sklearn", "scikit_learn": "sklearn", "pytorch": "torch", "saved_model": "tensorflow",
             "savedmodel": "tensorflow", "tf": "tensorflow", "lgb": "lightgbm", "xgb": "xgboost"}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """`rows`: a Parquet file, "" for none. `factory`: module:function that makes the module of a state dict."""

    path: str
    framework: str
    folder: str  # the bundle is made here
    rows: str = ""
    framework_version: str = ""
    tolerance: float = 0.0  # absolute; 0: the default pair
    unproven: bool = False
    trust_pickle: bool = False
    factory: str = ""
    code_folder: str = ""  # where the factory's module may be found
    tensorflow_python: str = ""  # the interpreter of TensorFlow's environment, "" where there is none
    tensorflow_place: str = ""  # where such an environment is looked for
    memory_bytes: int = 16 << 30
    cpu_s: int = 900

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Request:
        return Request(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """What came of it: a proof, or the error to raise (code, message, hint)."""

    proof: Mapping[str, Any] = field(default_factory=dict)
    error: tuple[str, str, str] | None = None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Outcome:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(stored["proof"], tuple(stored["error"]) if stored["error"] else None)

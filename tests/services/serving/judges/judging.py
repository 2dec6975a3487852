"""What the judges share. A judge is a script in an environment of its own: `judge.py HTTP GRPC QUESTION.json`.

The question: `model`, `version`, `rows`, `columns` (name -> datatype, values with nulls), `broadcast` (names whose
first value stands for all rows), `token` ("" for none). A judge makes every call that its client has and prints one
JSON object: call -> {"value": ...} or {"error": {"status": ..., "message": ...}}. It judges nothing: the tests do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"INT64": np.int64, "UINT64": np.uint64, "FP64": np.float64, "FP32": np.float32, "BOOL": np.bool_}


class Question:
    def __init__(self, path: str) -> None:
        told = json.loads(Path(path).read_text())
        self.model: str = told["model"]
        self.version: str = told["version"]
        self.rows: int = told["rows"]
        self.columns: dict[str, Any] = told["columns"]
        self.broadcast: list[str] = told["broadcast"]
        self._token: str = told["token"]

    @property
    def headers(self) -> dict[str, str]:
        """Made anew for each call: Triton's HTTP client writes into what it is given."""
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def arrays(self) -> dict[str, tuple[str, Any]]:
        """Tensors by name: a column with nulls is filled and comes with its marks."""
        found: dict[str, tuple[str, Any]] = {}
        for name, column in self.columns.items():
            datatype, values = column["datatype"], column["values"]
            gone = np.array([value is None for value in values])
            if datatype == "BYTES":
                array = np.array([b"" if value is None else str(value).encode() for value in values], dtype=np.object_)
            else:
                array = np.array([0 if value is None else value for value in values], dtype=DTYPES[datatype])
            found[name] = (datatype, array)
            if gone.any():
                found[f"{name}.null"] = ("BOOL", gone)
        return found

    def of_one_row(self) -> dict[str, tuple[str, Any]]:
        """The same with the columns of `broadcast` cut to their first value."""
        alone = {*self.broadcast, *(f"{name}.null" for name in self.broadcast)}
        return {name: (kind, array[:1] if name in alone else array) for name, (kind, array) in self.arrays().items()}


class Record:
    """Call -> what came of it."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}

    def fault(self, name: str, error: BaseException) -> None:
        status = getattr(error, "status", None) or getattr(error, "code", None)
        response = getattr(error, "response", None)
        found = response.status_code if response is not None else status() if callable(status) else status
        message = getattr(error, "message", None)
        said = message() if callable(message) else str(error)
        self.calls[name] = {"error": {"status": str(found), "message": str(said), "type": type(error).__name__}}

    def call(self, name: str, function: Callable[[], Any]) -> Any:
        try:
            value = function()
        except Exception as error:
            self.fault(name, error)
            return None
        self.calls[name] = {"value": value}
        return value

    def print(self) -> None:
        json.dump(self.calls, sys.stdout)
        print()

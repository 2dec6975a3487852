"""What a framework's module must say of a model: its inputs, how the original scores, and how it becomes a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from penstock.registry.converting.tensors import Feed, Tensor


class Original(Protocol):
    """A loaded model. `precisions`: in which float datatypes it may be converted, the best first."""

    algorithm: str
    library: str
    precisions: Sequence[str]

    def inputs(self, precision: str) -> Sequence[Tensor]:
        """What will be served, in order."""

    def scores(self, feed: Feed) -> Feed:
        """The original's outputs, by the names that will be served. It may raise whatever its library raises."""

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        """Write the model's files; return the manifest's `algorithm`, `model`, `encoder`, `outputs`.

        Raises `ConversionError`.
        """

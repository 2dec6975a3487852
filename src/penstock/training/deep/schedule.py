"""Learning rates over time, as a factor on every rate: of the dense part and of the tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """A function of the samples seen alone, so that it needs no state. `warmup`, `total`: in samples.

    constant: 1 after warming up. inverse_sqrt: sqrt(warmup / samples) (Vaswani et al. 2017). cosine: from 1 to
    `least` at `total` (Loshchilov and Hutter 2017). linear: likewise, straight.
    """

    kind: Literal["constant", "inverse_sqrt", "cosine", "linear"] = "constant"
    warmup: int = 0
    total: int = 0
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.kind == "inverse_sqrt" and not self.warmup:
            raise ValueError("inverse_sqrt falls from the end of the warm-up: give warmup")
        if self.kind in ("cosine", "linear") and self.total <= self.warmup:
            raise ValueError(f"{self.kind} needs a total of samples beyond the warm-up")

    def factor(self, samples: int) -> float:
        if samples < self.warmup:
            return max(samples, 1) / self.warmup
        if self.kind == "constant":
            return 1.0
        if self.kind == "inverse_sqrt":
            return math.sqrt(self.warmup / samples)
        share = min(1.0, (samples - self.warmup) / (self.total - self.warmup))
        fallen = (1 + math.cos(math.pi * share)) / 2 if self.kind == "cosine" else 1 - share
        return self.least + (1 - self.least) * fallen

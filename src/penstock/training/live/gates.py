"""When what is learnt may be published, and which checkpoints have proved good.

The gate shuts as soon as a metric leaves its band, and opens after half a half-life of samples within all bands. While
it is shut training goes on: what is not published is the quarantine. Where too few positives came for anything to be
said, the gate stays as it is, and nothing proves good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: Samples that a decayed metric effectively rests on, in half-lives: Kish's (sum w)^2 / sum w^2 of a long stream.
EFFECTIVE = 2 / math.log(2)


class Bands(Protocol):
    """`settings.Gates`."""

    @property
    def half_life(self) -> float: ...
    @property
    def auc(self) -> float | None: ...
    @property
    def calibration(self) -> tuple[float, float] | None: ...
    @property
    def positives(self) -> float: ...


@dataclass
class Gate:
    """`why`: of the gate that is shut, "" of an open one. `samples`: judged so far. `green_since`: the sample since
    which every metric was in its band, None while one is not or nothing can be said."""

    bands: Bands
    why: str = ""
    samples: int = 0
    green_since: int | None = None

    @property
    def open(self) -> bool:
        return not self.why

    def judge(self, values: Mapping[str, float | None], samples: int) -> bool:
        """Look at the metrics after so many samples; whether the gate shut or opened now."""
        self.samples = samples
        found = self._outside(values)
        if found is None:
            self.green_since = None
            return False
        if found:
            self.green_since = None
            changed = self.open
            self.why = found if changed else self.why
            return changed
        if self.green_since is None:
            self.green_since = samples
        if self.why and samples - self.green_since >= self.bands.half_life / 2:
            self.why = ""
            return True
        return False

    def proved(self, at: int) -> bool:
        """Whether a cut after `at` samples has one effective window of green samples behind it."""
        window = EFFECTIVE * self.bands.half_life
        return self.green_since is not None and self.samples - max(at, self.green_since) >= window

    def _outside(self, values: Mapping[str, float | None]) -> str | None:
        """What is outside its band, "" where nothing is; None: too few positives to say."""
        bands = self.bands
        if bands.auc is None and bands.calibration is None:
            return ""
        if (values["decayed_auc_positives"] or 0.0) < bands.positives:
            return None
        auc, calibration = values["decayed_auc"], values["calibration"]
        if bands.auc is not None and auc is not None and auc < bands.auc:
            return f"decayed AUC {auc:.4f} is below {bands.auc:g}"
        if bands.calibration is not None and calibration is not None:
            low, high = bands.calibration
            if not low <= calibration <= high:
                return f"calibration {calibration:.3f} is outside {low:g} to {high:g}"
        return ""

    def document(self) -> dict[str, Any]:
        return {"why": self.why, "samples": self.samples, "green_since": self.green_since}

    def restore(self, stored: Mapping[str, Any]) -> None:
        self.why, self.samples, self.green_since = stored["why"], stored["samples"], stored["green_since"]

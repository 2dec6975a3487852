"""The models that `type="deep"` names, a file each. A model maps slots' keys and numbers to logits."""

from __future__ import annotations

from typing import Any

from penstock.training.deep.models.dcn_v2 import DcnV2
from penstock.training.deep.models.deepfm import DeepFM
from penstock.training.deep.models.din import Din
from penstock.training.deep.models.parts import Inputs
from penstock.training.deep.models.wide_deep import WideDeep

MODELS: dict[str, Any] = {"wide_deep": WideDeep, "deepfm": DeepFM, "dcn_v2": DcnV2, "din": Din}

__all__ = ["MODELS", "DcnV2", "DeepFM", "Din", "Inputs", "WideDeep"]

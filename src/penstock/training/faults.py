"""The errors of training, one class each family of causes; the codes' pages are in docs/errors."""

from __future__ import annotations

from importlib.util import find_spec

from penstock.errors import DataError, PenstockError, RequestError


class LabelError(DataError):
    """Labels or sample weights that no model can be fitted to (TRAIN002 to TRAIN005)."""


class InputError(DataError):
    """Columns that cannot be what a model takes (TRAIN006 to TRAIN009, TRAIN015, TRAIN046)."""


class LearnerMissing(RequestError):
    """LightGBM, which the core install leaves out, is needed and not there (TRAIN019)."""

    def __init__(self) -> None:
        super().__init__(
            "boosted trees need lightgbm, which is not installed", "pip install 'penstock[local]'", "TRAIN019"
        )


class LearningError(DataError):
    """What was learnt left all bounds, or cannot be continued (TRAIN020, TRAIN021)."""

    def __init__(self, message: str, hint: str = "", code: str = "TRAIN021") -> None:
        super().__init__(message, hint, code)


class TablesFull(PenstockError, MemoryError):
    """Embedding tables need more memory than they may have, or than there is (TRAIN045)."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            "let rows leave (ttl_s, least_count), admit keys later (min_count), take a smaller dim or dtype, "
            "or give more memory",
            "TRAIN045",
        )


def need_trees() -> None:
    """Raises `LearnerMissing` where trees can neither be grown nor scored."""
    if find_spec("lightgbm") is None:
        raise LearnerMissing

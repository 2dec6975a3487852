"""The errors of bundles and the registry, one class each family of causes; the codes' pages are in docs/errors."""

from __future__ import annotations

from penstock.errors import DataError, PenstockError, RequestError


class BundleError(DataError):
    """A bundle that cannot be loaded or does not fit (TRAIN010 to TRAIN013)."""


class UnknownVersion(RequestError):
    """A name, alias or number that is none, or that nothing has (REG001 to REG004)."""


class RegistryLost(PenstockError):
    """The database or the blobs do not answer (REG005, REG006)."""


class PushError(PenstockError):
    """What was to be pushed cannot be a version (REG007)."""


class SweptError(PenstockError):
    """A version whose files gc took away, or that something still needs (REG009)."""


class ArchiveError(DataError):
    """An archive that is not whole, not signed by a known key, or not safe to unpack (REG011 to REG014)."""


class ConversionError(PenstockError):
    """A model of another framework that cannot become a bundle (REG015 to REG019, REG021)."""


class ProofError(PenstockError):
    """What would be served does not score as the original does (REG020)."""


class LeaseHeld(RequestError):
    """Another trainer holds the model's lease (LIVE010)."""


class Superseded(PenstockError):
    """A later generation of the model has begun: this one may write nothing any more (LIVE011)."""

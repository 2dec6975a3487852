"""Feature views: what is known of a user, an item, a shop at a time; the same offline and while serving.

In: a views file (`urn:penstock:views:1`) beside the feature file, and events from files or a topic. Out: columns,
joined to samples as of each one's time (`offline`), or fetched from an online store (`online`). Read `model.py` first.
"""

from __future__ import annotations

from .model import Aggregate, Column, Entity, Source, View, ViewsFile
from .offline import point_in_time
from .online import OnlineStore
from .parse import check, read

__all__ = [
    "Aggregate",
    "Column",
    "Entity",
    "OnlineStore",
    "Source",
    "View",
    "ViewsFile",
    "check",
    "point_in_time",
    "read",
]

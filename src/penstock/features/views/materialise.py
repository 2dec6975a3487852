"""Writing views into an online store: from where it stands to the end of the source, or along with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from penstock.features.views import sources
from penstock.features.views.model import View
from penstock.features.views.online import OnlineStore

Told = Callable[["Written"], None]


@dataclass
class Written:
    """How far it is. `refused`: records that are no events of the view; `keyless`: events without key or time."""

    view: str
    events: int = 0
    refused: int = 0
    keyless: int = 0
    seconds: float = 0.0
    position: str = ""

    def document(self) -> dict[str, Any]:
        return asdict(self)


def materialise(
    store: OnlineStore, view: View, *, anew: bool = False, follow: bool = False, told: Told = lambda written: None
) -> Written:
    """Add to a view the events after its position; each batch, its blobs and the position are one transaction.

    Killed at any instant it goes on from there when it is run again. `anew`: from the source's start. `follow`: does
    not return. Raises what `sources.read` and `OnlineStore` raise.
    """
    started = time.monotonic()
    store.declare(view, anew=anew)
    written = Written(view.name, position=store.stored(view.name).position)
    for part in sources.read(view, written.position, follow=follow):
        written.keyless += store.add(view, part.rows, written.position, part.position)
        written.events += part.rows.num_rows
        written.refused += part.bad
        written.position = part.position
        written.seconds = time.monotonic() - started
        told(written)
    return written

"""Results that flows keep of nodes which read a version: forgotten with it, in the stores that this machine knows.

Stores are SQLite files of their own, so "in the same transaction" means: theirs are begun (BEGIN IMMEDIATE) before
gc's and committed after it. A crash between the two commits leaves results of a version that is gone; every later gc
names all digests that are gone and forgets them then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.flow.store import BUSY_S
from penstock.flow.store_places import known_stores


@dataclass(frozen=True)
class Caches:
    """Open stores, each in a transaction."""

    stores: Sequence[sqlite3.Connection]

    def forget(self, digests: Sequence[str]) -> int:
        """Forget what nodes left that read any of these bundles: their lineage holds the digest. How many results."""
        forgotten = 0
        for store in self.stores:
            for digest in digests:
                asked = "DELETE FROM cache WHERE (run, node) IN (SELECT run, node FROM nodes WHERE lineage LIKE ?)"
                with suppress(sqlite3.Error):  # a store that breaks now is for the next gc
                    forgotten += store.execute(asked, (f"%{digest}%",)).rowcount
        return forgotten


@contextmanager
def locked() -> Iterator[Caches]:
    """Every known store, locked until the block ends; what was forgotten stands only if the block succeeds."""
    stores = [store for folder in sorted(known_stores()) if (store := _begun(folder)) is not None]
    try:
        yield Caches(stores)
        for store in stores:
            with suppress(sqlite3.Error):
                store.execute("COMMIT")
    finally:
        for store in stores:
            store.close()  # which rolls back what was not committed


def _begun(folder: Path) -> sqlite3.Connection | None:
    """None where the store is of another kind or cannot be written: no flow of ours takes results from it then."""
    store = sqlite3.connect(folder / "store.sqlite", timeout=BUSY_S, isolation_level=None)
    with suppress(sqlite3.Error):
        store.execute("SELECT run, node FROM cache LIMIT 0")
        store.execute("BEGIN IMMEDIATE")
        return store
    store.close()
    return None

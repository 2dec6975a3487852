"""Topics: records with offsets, kept in order within a key, by one interface whatever keeps them.

In: `open_topic("log:PATH" | "kafka://HOST:PORT/TOPIC" | "redis://HOST:PORT/TOPIC")`. Out: a `Topic` to append to, read
from any offset, and commit positions in. Read `topic.py` first, then `docs/streams.md`.
"""

from __future__ import annotations

from .addresses import open_topic
from .faults import BacklogFull, BeyondEnd, Fenced, RecordsLost, StreamError, TopicTrimmed, Unreachable
from .tail import Tail
from .topic import Ack, Batch, Record, Topic

__all__ = [
    "Ack",
    "BacklogFull",
    "Batch",
    "BeyondEnd",
    "Fenced",
    "Record",
    "RecordsLost",
    "StreamError",
    "Tail",
    "Topic",
    "TopicTrimmed",
    "Unreachable",
    "open_topic",
]

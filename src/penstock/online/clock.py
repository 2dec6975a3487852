"""A partition's clock: how late it is there, by nothing but the times its writers stamped on records and ticks.

A record happens, for the join, when its partition's clock has come to it: at the latest time stamped so far. A stamp
further ahead than `jump_ms` may be a broken clock, or the first after a night without records. It is held, and moves
the clock only when most of what comes agrees; a tick, which says nothing but the time, is believed at once.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.streams import Record

#: Stamps ahead that must agree, and records within reach after which one that is held is refused.
QUORUM, PATIENCE = 16, 64


class Held(NamedTuple):
    """A record ahead of its partition's clock. passed: records within reach that have come since."""

    record: Record
    passed: int


class Clock(NamedTuple):
    """now_ms: the latest time believed; -1 before the first record."""

    now_ms: int = -1
    held: tuple[Held, ...] = ()


class Step(NamedTuple):
    """decided: (time in ms, record) in the order in which they happen. refused: from the future."""

    clock: Clock
    decided: list[tuple[int, Record]]
    refused: list[Record]


def ticked(clock: Clock, time_ms: int, jump_ms: int) -> Step:
    """The clock after a tick."""
    return _released(max(clock.now_ms, time_ms), clock.held, jump_ms)


def stepped(clock: Clock, record: Record, jump_ms: int) -> Step:
    """The clock after a record: decided at once where nothing is held and its stamp is within reach."""
    now, stamp = clock.now_ms, record.time_ms
    if not clock.held and now >= 0 and stamp <= now + jump_ms:
        if stamp > now:
            clock, now = Clock(stamp), stamp
        return Step(clock, [(now, record)], [])
    if now < 0 or stamp <= now + jump_ms:
        step = _released(max(now, stamp), tuple(Held(h.record, h.passed + 1) for h in clock.held), jump_ms)
        kept = tuple(h for h in step.clock.held if h.passed < PATIENCE)
        refused = [h.record for h in step.clock.held if h.passed >= PATIENCE]
        decided = [*step.decided, (step.clock.now_ms, record)]
        return Step(Clock(step.clock.now_ms, kept), decided, refused)
    held = (*clock.held, Held(record, 0))
    if len(held) >= QUORUM and len(held) > held[0].passed:
        return _released(min(h.record.time_ms for h in held), held, jump_ms)
    return Step(Clock(now, held), [], [])


def _released(now: int, held: tuple[Held, ...], jump_ms: int) -> Step:
    """What was held happens once the clock has come within reach of it."""
    decided: list[tuple[int, Record]] = []
    kept = []
    for one in held:
        if one.record.time_ms <= now + jump_ms:
            now = max(now, one.record.time_ms)
            decided.append((now, one.record))
        else:
            kept.append(one)
    return Step(Clock(now, tuple(kept)), decided, [])

"""The join equals brute force over any events, and where its calls are cut does not show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.online.events import FEEDBACK, IMPRESSION, Event
from penstock.online.joiner import Joiner, Memory, Sample
from penstock.online.memory import DictMemory
from penstock.online.negatives import kept
from penstock.online.state import State
from penstock.online.terms import Kind, Terms

T0 = 1_000_000


def impressions(at: int) -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(
        st.integers(0, 400),
        st.just(IMPRESSION),
        st.sampled_from([b"a", b"b", b"c", "ü/0".encode()]),
        st.integers(-60, 20),
        st.just(0),
        st.just(at),
        st.sampled_from([b'"x":1', b""]),
        st.sampled_from([0.25, 1, None, 7.0]),
    )


def feedbacks(at: int) -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(
        st.integers(0, 400),
        st.just(FEEDBACK),
        st.sampled_from([b"a", b"b", b"c", "ü/0".encode()]),
        st.integers(0, 1),
        st.integers(-150, 20),
        st.sampled_from([0.0, 1.0, 2.5]),
        st.just(0),
        st.just(at),
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Events as they happen; own times lie around the times at which they happen."""
    raw = draw(st.lists(st.integers(0, 1), max_size=14))
    events = []
    for at, which in enumerate(raw):
        event = list(draw(impressions(at) if which == 0 else feedbacks(at)))
        own = 3 if which == 0 else 4
        event[0] += T0
        event[own] += event[0]
        events.append(tuple(event))
    return sorted(events)  # type: ignore[type-var]


terms = st.builds(
    Terms,
    kinds=st.sampled_from(
        [
            (Kind("click", 100), Kind("never", 0)),
            (Kind("click", 40, 1.0), Kind("buy", 120, 3.0)),
            (Kind("see", 70, None), Kind("buy", 90)),
        ]
    ),
    emit=st.sampled_from(["at_once", "at_close"]),
    lateness_ms=st.sampled_from([0, 30]),
    skew_ms=st.just(20),
    negatives=st.sampled_from([1.0, 0.5]),
    weighting=st.sampled_from(["fake_negative", "none"]),
)


def brute(events: list[Event], terms: Terms) -> list[tuple[object, ...]]:
    """By definition, each impression against all feedback: (emit, id, kind, revision, label, weight) of samples."""
    shown: list[tuple[int, bytes, int, float, bool]] = []
    open_ms = max(kind.window_ms for kind in terms.kinds) + terms.lateness_ms
    for happens, kind, id, *rest in events:
        if kind != IMPRESSION:
            continue
        time, score = rest[0], rest[4]
        if happens - time > terms.lateness_ms:
            continue
        if any(other == id and happens <= close for _, other, _, _, close in shown):
            continue
        p = score if score is not None and 0 <= score <= 1 else 0.0
        shown.append((happens, id, time, p, max(happens, time) + open_ms))
    out: list[tuple[object, ...]] = []
    for happens, id, time, p, close in shown:
        keep = next(kept([id], terms.negatives))
        mine = []
        for when, kind, other, number, own, value, *_ in events:
            if kind != FEEDBACK or other != id or when > close:
                continue
            # It may have been another impression's of the same id, which was closed before this one came.
            if when < happens and (
                when + terms.lateness_ms < happens
                or any(i == id and h < happens and h <= when <= c for h, i, _, _, c in shown)
                or any(i == id and when < h < happens for h, i, _, _, _ in shown)
            ):
                continue
            mine.append((max(when, happens), when, number, own, value))
        given, seen, revision = 0.0, set(), 0
        fake = terms.weighting == "fake_negative" and terms.emit == "at_once"
        if terms.emit == "at_once" and keep:
            out.append((happens, id, 0, 0, 0, (1 - p) * (1 + p) if fake else 1.0))
        orphans = sorted(m for m in mine if m[1] < happens)
        for emit, _, number, own, value in [*orphans, *(m for m in mine if m[1] >= happens)]:
            kind_ = terms.kinds[number]
            weight = value if kind_.weight is None else kind_.weight
            if number in seen or not -terms.skew_ms <= own - time <= kind_.window_ms or not weight:
                continue
            seen.add(number)
            if weight > given:
                revision += 1
                if terms.emit == "at_once":
                    out.append((emit, id, 1, revision, 1, (weight - given) * (1 + p if fake else 1)))
                given = weight
        if terms.emit == "at_close" and (given or keep):
            out.append((close, id, 0, 0, int(given > 0), given or 1 / terms.negatives))
    if terms.emit == "at_once":
        out = [(*o[:5], o[5] / terms.negatives) if o[2] == 0 else o for o in out]
    return sorted(out)  # type: ignore[type-var]


def told(samples: list[Sample]) -> list[tuple[object, ...]]:
    found = []
    for sample in samples:
        value = json.loads(sample.value)
        assert (value["_id"].encode(), value["_revision"]) == (sample.id, sample.revision)
        assert value["_emit_ms"] == sample.emit_ms and value["_kind"] == ("impression", "correction")[sample.kind]
        found.append((sample.emit_ms, sample.id, sample.kind, sample.revision, value["_label"], value["_weight"]))
    return found


@contextmanager
def memories(on_disk: bool) -> Iterator[Memory]:
    if not on_disk:
        yield DictMemory()
        return
    with TemporaryDirectory() as folder, State(Path(folder) / "state") as state:
        state.begin()
        yield state


def close_to(found: list[tuple[object, ...]], wanted: list[tuple[object, ...]]) -> bool:
    same = [one[:5] for one in found] == [one[:5] for one in wanted]
    return same and all(abs(a[5] - b[5]) < 1e-12 for a, b in zip(found, wanted, strict=True))  # type: ignore[operator]


@settings(max_examples=100, deadline=None)
@given(logs(), terms, st.lists(st.integers(T0, T0 + 400), max_size=4))
def test_the_join_equals_brute_force_wherever_it_is_cut(events: list[Event], terms: Terms, cuts: list[int]) -> None:
    with memories(on_disk=False) as memory:
        joiner = Joiner(terms, memory)
        samples: list[Sample] = []
        before = 0
        for frontier in [*sorted(cuts), T0 + 10_000]:
            samples += joiner.join([event for event in events if before <= event[0] < frontier], frontier)
            before = frontier
    assert samples == sorted(samples)
    assert close_to(told(samples), brute(events, terms))


@settings(max_examples=25, deadline=None)
@given(logs(), terms)
def test_what_is_on_disk_gives_the_same_as_what_is_in_memory(events: list[Event], terms: Terms) -> None:
    with memories(on_disk=True) as disk, memories(on_disk=False) as memory:
        cut = T0 + 200
        parts = [[e for e in events if e[0] < cut], [e for e in events if e[0] >= cut]]
        one, other = Joiner(terms, disk), Joiner(terms, memory)
        for part, frontier in zip(parts, (cut, T0 + 10_000), strict=True):
            assert one.join(part, frontier) == other.join(part, frontier)
        assert one.counts == other.counts

"""`join_feedback` over frames gives the samples that the join over topics gives."""

from __future__ import annotations

import json

import polars as pl
from hypothesis import given, settings

from penstock.online.events import FEEDBACK, IMPRESSION, Event
from penstock.online.frames import Columns, joined
from penstock.online.joiner import Joiner
from penstock.online.memory import DictMemory
from penstock.online.terms import Terms

from .test_joiner import T0, logs, terms


@settings(max_examples=30, deadline=None)
@given(logs(), terms)
def test_frames_give_what_topics_give(events: list[Event], terms: Terms) -> None:
    expected = [json.loads(sample.value) for sample in Joiner(terms, DictMemory()).join(events, T0 + 10_000)]
    expected = [{key: value for key, value in one.items() if key != "x"} for one in expected]
    shown = pl.DataFrame(
        [(e[2].decode(), e[3], e[0], e[7]) for e in events if e[1] == IMPRESSION],
        {"id": pl.String, "t": pl.Int64, "came": pl.Int64, "p": pl.Float64},
        orient="row",
    )
    done = pl.DataFrame(
        [(e[2].decode(), e[4], e[0], terms.kinds[e[3]].name, e[5]) for e in events if e[1] == FEEDBACK],
        {"id": pl.String, "t": pl.Int64, "came": pl.Int64, "what": pl.String, "v": pl.Float64},
        orient="row",
    )
    named = Columns("id", "t", "what", "v", "p", "came")
    found = joined(shown.lazy(), done.lazy(), named, [], terms, lambda frame: frame.collect()).collect()
    told = found.to_dicts()
    assert [{**one, "_weight": 0} for one in told] == [{**one, "_weight": 0} for one in expected]
    assert all(abs(a["_weight"] - b["_weight"]) < 1e-12 for a, b in zip(told, expected, strict=True))

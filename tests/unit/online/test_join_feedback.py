"""`join_feedback` over frames gives the samples that the join over topics gives."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings

from penstock.cli.main import main
from penstock.online.events import FEEDBACK, IMPRESSION, Event
from penstock.online.frames import Columns, joined
from penstock.online.joiner import Joiner
from penstock.online.memory import DictMemory
from penstock.online.runner import Runner
from penstock.online.settings import read
from penstock.online.terms import Terms
from penstock.streams import open_topic

from .test_joiner import T0, logs, terms

BEGIN = 1_780_000_000_000


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


FLOW = """<flow xmlns="urn:penstock:flow:1" name="samples"><node name="n" engine="local">
  <input name="shown" type="parquet" path="shown.parquet"/>
  <input name="done" type="parquet" path="done.parquet"/>
  <process name="joined" type="join_feedback" from="shown done" types="buy click" windows="2s 600ms" weights="value 1"
           lateness="100ms" skew="1m" negatives="0.7" score="p" value="worth" arrived="came" emit="{emit}"/>
  <output name="out" type="parquet" from="joined" path="samples.parquet"/>
</node></flow>"""
FILE = """name = "j"
state = "state"
lateness = "100ms"
skew = "1m"
negatives = 0.7
emit = "{emit}"
[impressions]
topic = "log:shown"
[feedback]
topic = "log:done"
[samples]
topic = "log:out"
[types.click]
window = "600ms"
[types.buy]
window = "2s"
weight = "value"
"""


def happenings(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Impressions and feedback as they arrive: again, late, before their impression, of nobody, by wrong clocks."""
    draws, shown, done = random.Random(3), [], []
    for number in range(count):
        id, at = f"r{number}/0", BEGIN + number * 3
        row = {
            "id": id,
            "time_ms": at,
            "p": draws.choice([0.1, 0.5, None, 7.0]),
            "user": f"ü{number % 50}",
            "n": number,
        }
        shown += [{**row, "came": at + draws.randrange(110)} for _ in range(1 + (draws.random() < 0.1))]
        for kind, share in (("click", 0.4), ("buy", 0.2), ("other", 0.05)):
            while draws.random() < share:
                when = at + draws.randrange(-50, 2_200) + draws.choice([*[0] * 18, 7_200_000, -7_200_000])
                came = at + draws.randrange(-150, 2_200)
                done.append({"id": id, "type": kind, "time_ms": when, "worth": draws.choice([0, 1, 2.5]), "came": came})
    done += [{"id": f"x{n}", "type": "click", "time_ms": BEGIN, "worth": 1, "came": BEGIN + n} for n in range(9)]
    return [sorted(part, key=lambda event: event["came"]) for part in (shown, done)]  # type: ignore[return-value]


@pytest.mark.parametrize("emit", ["at_once", "at_close"])
def test_a_flow_gives_the_samples_that_the_join_over_topics_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, done = happenings(1_500)
    impressions = [
        {"id": e["id"], "time_ms": e["time_ms"], "features": {"user": e["user"], "n": e["n"]}, "score": e["p"]}
        for e in shown
    ]
    feedback = [{"value": e["worth"], **{k: e[k] for k in ("id", "type", "time_ms")}} for e in done]
    for name, events, said in (("shown", shown, impressions), ("done", done, feedback)):
        pl.DataFrame(events, infer_schema_length=None).write_parquet(f"{name}.parquet")
        with open_topic(f"log:{name}") as topic:
            values = [json.dumps(one).encode() for one in [*said, {"_tick_ms": BEGIN + 10_000_000}]]
            topic.append(values, times_ms=[*(e["came"] for e in events), BEGIN + 10_000_000])
    (tmp_path / "flow.xml").write_text(FLOW.format(emit=emit))
    (tmp_path / "join.toml").write_text(FILE.format(emit=emit))
    counts = Runner(read(tmp_path / "join.toml"), print).run(drain=True)
    hard = ("impressions_repeated", "impressions_late", "feedback_repeated", "feedback_outside", "feedback_of_nothing")
    assert all(counts[kind] > 5 for kind in (*hard, "orphans", "orphans_forgotten", "passed_other_type", "matched"))
    assert main(["flow", "run", "flow.xml"]) == 0

    found = pl.read_parquet("samples.parquet").to_dicts()
    with open_topic("log:out") as topic:
        wanted = [json.loads(record.value) for record in topic.read(0, 0).records]
    wanted = [one for one in wanted if "_id" in one]
    assert len(found) == counts["samples"] > 900
    assert [{**one, "_weight": 0} for one in found] == [{**one, "_weight": 0} for one in wanted]
    assert [one["_weight"] for one in found] == pytest.approx([one["_weight"] for one in wanted], rel=1e-12)

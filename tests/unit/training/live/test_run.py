"""A loop learns from its topic in order, and every sample acts once: whatever is in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import ProblemsFound
from penstock.streams import open_topic
from penstock.training.bundle import load
from penstock.training.live import samples as reading
from penstock.training.live import settings
from penstock.training.live.run import Loop

from .conftest import append, records, rows

SettingsFile = Callable[..., Path]


def run_until(path: Path, samples: int, **options: Any) -> Loop:
    """Run a loop in this process until it has learnt from so many samples in all; it is stopped then."""
    loop = Loop(settings.read(path), **options)
    failed: list[BaseException] = []

    def watch() -> None:
        deadline = time.monotonic() + 60
        while loop.state.samples < samples and time.monotonic() < deadline and not failed:
            time.sleep(0.005)
        loop.stop()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        loop.done = loop.run()  # type: ignore[attr-defined]
    except BaseException as error:
        failed.append(error)
        raise
    finally:
        thread.join()
    assert loop.state.samples >= samples, "it took too long"
    return loop


def weights(loop: Loop, tmp_path: Path) -> bytes:
    """All that was learnt, in bytes."""
    learner: Any = loop.learner
    if "keys" in learner.sizes:
        scorer = learner.scorer(tmp_path)
        order = np.lexsort((scorer.row_keys, scorer.row_fields))
        return bytes(scorer.row_keys[order].tobytes() + scorer.row_values[order].tobytes())
    columns = [column for table in range(len(learner.sizes)) for column in learner.tracked.export(table)]
    return b"".join([*columns, *(values.tobytes() for values in learner.dense().values())])


@pytest.mark.parametrize("kind", ["lr", "deep"])
def test_it_learns_what_the_stream_says(kind: str, settings_file: SettingsFile, tmp_path: Path) -> None:
    if kind == "deep":
        pytest.importorskip("torch")
    count = 6000 if kind == "lr" else 4000
    append(f"log:{tmp_path}/samples", records(rows(count, 1, turn=2.0)))
    path = settings_file(kind, "[train]\nbatch = 100\n[gates]\nhalf_life = 1000")
    loop = run_until(path, count)
    assert loop.done["samples"] == count and loop.done["positions"] == {"0": count}  # type: ignore[attr-defined]
    before = load(settings.read(path).document.model.start)
    test = rows(2000, 2, turn=2.0)
    from penstock.training.metrics import auc

    old = auc(test["label"].to_numpy().astype(float), before.score(test))
    now = loop.quality.values()["decayed_auc"]
    assert old is not None and now is not None and now > old + 0.1


@pytest.mark.parametrize("kind", ["lr", "deep"])
def test_stopped_and_started_again_it_ends_with_the_same_bits(
    kind: str, settings_file: SettingsFile, tmp_path: Path
) -> None:
    if kind == "deep":
        pytest.importorskip("torch")
    count = 3000 if kind == "lr" else 1200
    given = records(rows(count, 1))
    append(f"log:{tmp_path}/samples?partitions=3", given)
    with open_topic(f"log:{tmp_path}/samples") as topic:
        tick = json.dumps({"_tick_ms": given[-1]["_emit_ms"] + 1}).encode()
        for partition in range(3):
            topic.append([tick], keys=[b""], times_ms=[given[-1]["_emit_ms"] + 1], partition=partition)
    deterministic = "[train]\nbatch = 50\nthreads = 1\ndeterministic = true"
    straight = run_until(settings_file(kind, deterministic, "straight"), count)
    for upto in (count // 4, count // 2 + 50, count):
        parted = run_until(settings_file(kind, deterministic, "parted"), upto)
    assert weights(straight, tmp_path) == weights(parted, tmp_path)
    assert straight.quality.sections()["metrics"] == parted.quality.sections()["metrics"]
    assert straight.state.places["samples"].counts == parted.state.places["samples"].counts


def test_poison_is_put_aside_with_its_offset(settings_file: SettingsFile, tmp_path: Path) -> None:
    good = records(rows(10, 1))
    with open_topic(f"log:{tmp_path}/samples") as topic:
        values = [json.dumps(sample).encode() for sample in good]
        spoilt = [json.dumps({**good[0], **said}).encode() for said in ({"_label": 2}, {"_weight": 1e39})]
        bad = [b"garbage", b"", b'{"user": [1]}', *spoilt, b'{"user":"u1"}']
        values[4:4] = [*bad, b'{"_tick_ms": 5}']
        values.append(b'{\n"user": "u1",\n"_label": 1}')
        topic.append(values, keys=[b"k" if b"tick" not in value else b"" for value in values])
    loop = run_until(settings_file("lr", "[train]\nbatch = 4"), 11)
    assert loop.state.places["samples"].counts == {"samples": 11, "ticks": 1, "quarantined": 6, "skipped": 0}
    told = [json.loads(line) for line in (tmp_path / "loop-bad.jsonl").read_text().splitlines()]
    assert [each["offset"] for each in told] == [4, 5, 6, 7, 8, 9]
    assert "neither 0 nor 1" in told[3]["reason"] and "1e+39 is no weight" in told[4]["reason"]
    assert told[0]["record"] == "garbage"


@pytest.mark.parametrize("kind", ["lr", "deep"])
def test_cuts_without_end_fill_no_disk(kind: str, settings_file: SettingsFile, tmp_path: Path) -> None:
    append(f"log:{tmp_path}/samples", records(rows(1500, 1)))
    loop = run_until(settings_file(kind, "every_s = 0.0001\n[train]\nbatch = 10\ndeterministic = true"), 1500)
    cuts = list((tmp_path / "loop-cuts" / "gen-000001").glob("*.cut"))
    assert max(int(cut.stem) for cut in cuts) > 50 and len(cuts) < 10
    append(f"log:{tmp_path}/samples", records(rows(10, 2), first=1500))
    again = run_until(settings_file(kind, "[train]\nbatch = 10\ndeterministic = true"), 1510)
    assert again.learner.sizes != {} and again.state.samples == loop.state.samples + 10


def test_poison_without_end_fills_neither_disk_nor_log(
    settings_file: SettingsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading, "QUARANTINE_BYTES", 5_000)
    monkeypatch.setattr(reading, "LOGGED", 10)
    good = records(rows(100, 1))
    append(f"log:{tmp_path}/samples", [*({**good[0], "_label": 2} for _ in range(400)), *good])
    loop = run_until(settings_file("lr", "[train]\nbatch = 10"), 100)
    assert loop.state.places["samples"].counts["quarantined"] == 400
    assert 5_000 <= (tmp_path / "loop-bad.jsonl").stat().st_size < 6_000
    told = [record.getMessage() for record in caplog.records if "put aside" in record.getMessage()]
    assert len(told) == 10 and told[-1].endswith("more are not logged")


@pytest.mark.parametrize(("kind", "said"), [("lr", {"_weight": -2e6}), ("lr, weighted", {"price": 3e38})])
def test_a_weight_that_would_spoil_the_model_is_put_aside(
    kind: str, said: dict[str, float], settings_file: SettingsFile, tmp_path: Path
) -> None:
    good = records(rows(100, 1))
    append(f"log:{tmp_path}/samples", [{**one, **said} if at in (20, 21) else one for at, one in enumerate(good)])
    loop = run_until(settings_file(kind, "[train]\nbatch = 10"), 98)
    assert loop.state.places["samples"].counts == {"samples": 98, "ticks": 0, "quarantined": 2, "skipped": 0}
    told = [json.loads(line) for line in (tmp_path / "loop-bad.jsonl").read_text().splitlines()]
    assert [each["offset"] for each in told] == [20, 21]
    assert all("1,000,000" in each["reason"] for each in told)


def test_a_negative_weight_takes_back_what_a_row_taught(settings_file: SettingsFile, tmp_path: Path) -> None:
    """The first step of FTRL goes against the gradient, so the sign of a weight says what was taught."""
    samples = records(rows(1, 1)) * 2
    samples = [{**samples[0], "_label": 0, "_weight": -1.0}, {**samples[1], "_id": "b/0", "user": "new", "_label": 0}]
    append(f"log:{tmp_path}/samples", samples)
    loop = run_until(settings_file("lr", "[train]\nbatch = 1", model="anew = true"), 2)
    scorer: Any = loop.learner.scorer(tmp_path)
    keys = {int(key): float(w) for key, w in zip(scorer.row_keys, scorer.row_values[:, 0], strict=True)}
    values = sorted(w for key, w in keys.items() if key >> 52 == 1)
    assert values[0] < 0 < values[1]


def test_a_file_with_faults_says_all_of_them_by_line(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(
        '[model]\nname = "a b"\nstrat = "x"\n[samples]\ntopic = "log:x"\nfrom = "soon"\n[train]\nbatch = 0\n'
    )
    with pytest.raises(ProblemsFound) as found:
        settings.read(path)
    told = {(problem.line, problem.code) for problem in found.value.problems}
    assert told == {(2, "LIVE003"), (3, "LIVE002"), (1, "LIVE004"), (8, "LIVE003"), (0, "LIVE004")}
    assert "did you mean 'start'?" in str(found.value)

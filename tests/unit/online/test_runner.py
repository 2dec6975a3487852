"""The join as its operators meet it: bad records, wrong clocks, topics and disks that fail, files that change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import PenstockError
from penstock.online import clock, outputs, runner
from penstock.online.metrics import line, text
from penstock.online.runner import Runner
from penstock.online.settings import read
from penstock.streams import Record, StreamError, Topic, Unreachable, open_topic

T0 = 1_780_000_000_000
FILE = """name = "j"
state = "state"
lateness = "10s"
[impressions]
topic = "log:shown"
[feedback]
topic = "log:done"
[samples]
topic = "log:out"
[types.click]
window = "60s"
"""


class Place:
    """A join file, its topics, and what came out."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.file = folder, folder / "join.toml"
        self.file.write_text(more + FILE)
        self.said: list[str] = []

    def topic(self, name: str) -> Topic:
        return open_topic(f"log:{self.folder / name}")

    def put(self, name: str, *values: object, at: int = T0) -> None:
        with self.topic(name) as topic:
            raw = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
            topic.append(raw, times_ms=[at] * len(raw))

    def shown(self, id: str, at: int = T0, **more: object) -> None:
        self.put("shown", {"id": id, "time_ms": at, "features": {"x": 1}, "score": 0.5, **more}, at=at)

    def clicked(self, id: str, at: int, stamp: int = 0) -> None:
        self.put("done", {"id": id, "type": "click", "time_ms": at}, at=stamp or at)

    def tick(self, at: int) -> None:
        for name in ("shown", "done"):
            self.put(name, {"_tick_ms": at}, at=at)

    def join(self) -> dict[str, int]:
        return Runner(read(self.file), self.said.append).run(drain=True)

    def samples(self) -> list[tuple[str, int, float]]:
        with self.topic("out") as topic:
            values = [json.loads(record.value) for record in topic.read(0, topic.start(0)).records]
        return [(v["_id"], v["_label"], v["_weight"]) for v in values if "_id" in v]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_click_corrects_what_was_taken_for_a_negative(place: Place) -> None:
    place.shown("a/0")
    place.clicked("a/0", T0 + 500)
    place.clicked("a/0", T0 + 700)
    place.tick(T0 + 1000)
    assert place.join()["feedback_repeated"] == 1
    assert place.samples() == [("a/0", 0, 0.75), ("a/0", 1, 1.5)]
    place.join()
    assert len(place.samples()) == 2, "what was joined is not joined again"


def test_poison_is_quarantined_by_offset_and_the_join_goes_on(place: Place) -> None:
    hour = 3_600_000
    bad: list[object] = [
        b"\xff\x00", b"[1]", {"id": 3, "time_ms": T0, "features": {}}, {"id": "p", "features": {}, "time_ms": "now"},
        {"id": "p", "time_ms": T0, "features": {"_id": 1}}, {"id": "p" * 401, "time_ms": T0, "features": {}},
        {"id": "p", "time_ms": T0 + hour, "features": {}}, b'{"id":"p","time_ms":1,"features":{"x":NaN}}',
        b'{"id":"\\ud800","time_ms":%d,"features":{}}' % T0, b"[" * 100_000, {"_tick_ms": "soon"}, b"",
        b'{"id":"p","time_ms":1,"features":{"x":1e999}}', b'{"id":"p","time_ms":1,"features":{"x":"\\udc00"}}',
    ]  # fmt: skip
    place.put("shown", *bad)
    place.put("done", {"id": "a/0", "type": "click", "time_ms": T0 + hour}, {"id": "a/0", "type": "click", "value": -1})
    place.put("done", {"id": "a/0", "type": "other", "time_ms": T0})
    place.shown("a/0")
    place.shown("s/0", shadow=True)
    place.tick(T0 + 1000)
    counts = place.join()
    assert (counts["poison"], counts["passed_shadow"], counts["passed_other_type"]) == (len(bad) + 2, 1, 1)
    assert [id for id, _, _ in place.samples()] == ["a/0"]
    done = cli("online", "join", str(place.file), "--quarantined")
    found = [json.loads(each) for each in done.stdout.splitlines()]
    assert [one["offset"] for one in found if one["source"] == "impressions"] == [*range(len(bad))]
    assert found[0]["value"] and any("from the future" in one["reason"] for one in found)


def test_clocks_that_are_wrong_by_hours_harm_only_their_own_events(place: Place) -> None:
    hour = 3_600_000
    place.shown("a/0")
    place.clicked("a/0", T0 - 3 * hour, stamp=T0 + 10)  # a client in another zone
    place.clicked("a/0", T0 + 30, stamp=T0 + 20 * hour)  # a collector with a broken clock: its stamp is not believed
    for number in range(70):
        place.clicked("nobody", T0 + 40, stamp=T0 + 40 + number)
    place.clicked("a/0", T0 + 200)
    place.tick(T0 + 1000)
    counts = place.join()
    assert counts["feedback_outside"] == 1 and counts["poison"] == 1 and counts["matched"] == 1
    assert [label for _, label, _ in place.samples()] == [0, 1]


def test_a_night_without_records_ends_with_a_tick_or_with_enough_that_agree() -> None:
    def record(offset: int, stamp: int) -> Record:
        return Record(offset, stamp, None, b"")

    night = clock.stepped(clock.Clock(), record(0, T0), 1000).clock
    morning, taken = night, []
    for offset in range(1, 30):
        step = clock.stepped(morning, record(offset, T0 + 50_000 + offset), 1000)
        morning, taken = step.clock, [*taken, *step.decided]
        assert not step.refused
    assert [one.offset for _, one in taken] == [*range(1, 30)]
    assert [at for at, _ in taken] == sorted(at for at, _ in taken) and morning.held == ()
    held = clock.stepped(night, record(1, T0 + 50_000), 1000).clock
    step = clock.ticked(held, T0 + 50_500, 1000)
    assert [one.offset for _, one in step.decided] == [1]
    for offset in range(2, 2 + clock.PATIENCE):
        step = clock.stepped(held, record(offset, T0 + offset), 1000)
        held = step.clock
    assert [one.offset for one in step.refused] == [1] and held == clock.Clock(T0 + 1 + clock.PATIENCE)


def test_columns_that_change_in_mid_stream_are_passed_on_as_they_came(place: Place) -> None:
    place.shown("a/0", features={"x": 1, "tags": ["ü", None]})
    place.shown("b/0", at=T0 + 1, features={"x": "now a text", "new": 12345678901234567890})
    place.shown("c/0", at=T0 + 2, features={})
    place.tick(T0 + 1000)
    place.join()
    with place.topic("out") as topic:
        values = [json.loads(record.value) for record in topic.read(0, 0).records][:3]
    columns = [{key: value for key, value in one.items() if key[0] != "_"} for one in values]
    assert columns == [{"x": 1, "tags": ["ü", None]}, {"x": "now a text", "new": 12345678901234567890}, {}]


def test_a_topic_that_is_trimmed_under_the_join_is_counted_and_gone_on_with(place: Place) -> None:
    place.shown("a/0")
    place.tick(T0 + 1000)
    place.join()
    with open_topic(f"log:{place.folder / 'shown'}?segment=4KiB") as topic:
        for number in range(200):
            value = {"id": f"t{number}", "time_ms": T0 + 2000, "features": {"x": "." * 90}}
            topic.append([json.dumps(value).encode()], times_ms=[T0 + 2000])
        topic.trim(0, 150)
        start = topic.start(0)
    place.tick(T0 + 3000)
    counts = place.join()
    assert start > 100 and counts["impressions_lost"] == start - 1 and counts["impressions"] == 1 + 202 - start
    assert any("were trimmed" in said for said in place.said)


@pytest.mark.parametrize("where", ["append", "sync"])
def test_a_disk_or_broker_that_fails_is_waited_for_and_nothing_is_doubled(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(runner, "_PAUSE_S", 0.01)
    full = StreamError("out: the disk is full", "make room", "STRM011")
    away = Unreachable("out", "appending", 120, "gone")
    failures = [full, away, full]
    real: Callable[..., Any] = outputs.Outputs.append if where == "append" else runner.Runner._commit

    def failing(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named) if where == "append" else None
        if failures:
            raise failures.pop()  # after the append: the samples are there, and must not come twice
        return found if where == "append" else real(*arguments, **named)

    monkeypatch.setattr(
        outputs.Outputs if where == "append" else runner.Runner, "append" if where == "append" else "_commit", failing
    )
    for number in range(20):
        place.shown(f"a{number}/0", at=T0 + number)
    place.tick(T0 + 1000)
    run = Runner(read(place.file), place.said.append)
    counts = run.run(drain=True)
    assert run.failures == 3 and counts["samples"] == 20
    assert [id for id, _, _ in place.samples()] == [f"a{n}/0" for n in range(20)]
    assert sum("waiting: " in said for said in place.said) == 3


def test_a_state_is_one_processs_and_one_meanings(place: Place) -> None:
    place.shown("a/0")
    place.tick(T0 + 1000)
    place.join()
    from penstock.online.state import State

    with State(place.folder / "state"), pytest.raises(PenstockError) as taken:
        place.join()
    assert taken.value.code == "JOIN003"
    place.file.write_text(place.file.read_text().replace("60s", "61s"))
    with pytest.raises(PenstockError) as other:
        place.join()
    assert other.value.code == "JOIN004"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("window", "windw", "11: JOIN002 'types.click.windw' is no setting"),
        ('"10s"', '"10 apples"', "3: JOIN002 lateness = '10 apples': a time such as"),
        ('[types.click]\nwindow = "60s"\n', "", "0: JOIN002 'types' is missing"),
        ("log:done", "log:shown", "9: JOIN002 impressions, feedback and samples are three topics"),
        ("state =", "state", "2: JOIN001 it cannot be read"),
    ],
)
def test_every_problem_of_a_join_file_has_its_line(place: Place, old: str, new: str, said: str) -> None:
    place.file.write_text(place.file.read_text().replace(old, new))
    done = cli("online", "join", str(place.file), "--check", status=2)
    assert f"join.toml:{said}" in done.stderr


def cli(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "penstock.cli", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done


def test_the_command_joins_until_it_is_told_to_stop_and_says_how_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path, 'metrics = "127.0.0.1:0"\n')
    place.shown("a/0")
    place.tick(T0 + 1000)
    command = [sys.executable, "-m", "penstock.cli", "online", "join", str(place.file), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    where = process.stderr.readline().split()[1]
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").exists() or not place.samples():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    import urllib.request

    while 'penstock_join_events_total{kind="samples"} 1' not in urllib.request.urlopen(where).read().decode():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(out)["samples"] == 1


def test_a_status_is_a_line_and_metrics_before_anything_was_read() -> None:
    starting = {"state": "starting"}
    assert line(starting).startswith("starting") and "penstock_join_up 0\n" in text(starting)


def test_a_join_that_waits_within_a_call_says_so_and_for_what(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics are patient with a broker that is away: for two minutes nothing fails."""
    monkeypatch.setattr(runner, "_SILENT_S", 1.5)
    away, real = threading.Event(), outputs.Outputs.append

    def patient(*arguments: Any) -> None:
        while away.is_set():
            time.sleep(0.01)
        real(*arguments)

    monkeypatch.setattr(outputs.Outputs, "append", patient)
    run = Runner(read(place.file), place.said.append)
    thread = threading.Thread(target=run.run)

    def until(holds: Callable[[], bool]) -> None:
        ends = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < ends, run.status
            time.sleep(0.02)

    place.shown("a/0")
    place.tick(T0 + 1000)
    thread.start()
    try:
        until(lambda: "penstock_join_up 1\n" in text(run.status))
        away.set()
        place.shown("b/0", at=T0 + 1100)
        place.tick(T0 + 2000)
        until(lambda: "penstock_join_up 0\n" in text(run.status))
        assert line(run.status).startswith("waiting: appending to log:") and "no answer for" in line(run.status)
        away.clear()
        until(lambda: "penstock_join_up 1\n" in text(run.status))
    finally:
        away.clear()
        run.stopping.set()
        thread.join()
    assert run.failures == 0 and [id for id, _, _ in place.samples()] == ["a/0", "b/0"]

"""The join: events a second of `penstock online join`, and a second of its processor, over topics that lie there.

Impressions as hosts write them (27 columns, ten rows a request) and clicks on a third of them, in event time 1,000 rows
a second, on the embedded log. The command reads all of it from an empty state (`--drain`), one process, commits as by
default; its window closes over most of the impressions on the way, so what it remembers is opened, found and forgotten.
An event is an impression or a click. Seconds of the processor are all of the process, its start included.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness

from penstock.streams import Topic, open_topic

T0_MS = 1_780_000_000_000
#: Rows of an answered request; milliseconds between requests.
ROWS, STEP_MS = 10, 10
CLICKS = 0.32
BATCH = 5_000
JOIN = """name = "bench"
state = "{out}/state"
model = "ctr"
emit = "{emit}"
[impressions]
topic = "log:{logs}/impressions"
[feedback]
topic = "log:{logs}/feedback"
[samples]
topic = "log:{out}/samples?partitions=4"
[types.click]
window = "5m"
"""
EMITS = ("at_once", "at_close")
Event = tuple[int, str, dict[str, Any]]


def requests(count: int, dice: random.Random) -> Iterator[tuple[list[Event], list[Event]]]:
    """Each request's rows, and the clicks on them, up to two minutes later."""
    bundle = f"{dice.getrandbits(256):064x}"
    for number in range(count // ROWS):
        at, request = T0_MS + number * STEP_MS, f"{number:016x}"
        head = {"model": "ctr", "version": "3", "bundle": bundle, "request": request}
        user = {f"U{n}": f"{dice.getrandbits(32):08x}" for n in range(7)}
        rows: list[Event] = []
        clicks: list[Event] = []
        for row in range(ROWS):
            numbers = {f"I{n}": dice.randrange(1_000) for n in range(13)}
            strings = {f"C{n}": f"{dice.getrandbits(32):08x}" for n in range(7)}
            id = f"{request}/{row}"
            value = {"id": id, "time": at / 1000, "time_ms": at, **head, "row": row, "shadow": False}
            score = {"score": round(dice.random(), 8)}
            rows.append((at, id, {**value, "features": {**user, **numbers, **strings}, **score}))
            if dice.random() < CLICKS:
                when = at + dice.randrange(120_000)
                clicks.append((when, id, {"id": id, "type": "click", "time_ms": when, "value": 1}))
        yield rows, clicks


def append(topic: Topic, events: list[Event]) -> int:
    """Bytes of the values."""
    values = [json.dumps(value, separators=(",", ":")).encode() for _, _, value in events]
    topic.append(values, keys=[id.encode() for _, id, _ in events], times_ms=[at for at, _, _ in events])
    return sum(map(len, values))


def written(logs: Path, count: int) -> tuple[int, int]:
    """Clicks, and bytes of an impression. The topics end an hour later: nothing stays open."""
    clicks: list[Event] = []
    size, some = 0, list[Event]()
    with (
        open_topic(f"log:{logs}/impressions?partitions=4") as shown,
        open_topic(f"log:{logs}/feedback?partitions=4") as done,
    ):
        for rows, found in requests(count, random.Random(7)):
            some += rows
            clicks += found
            if len(some) >= BATCH:
                size, some = size + append(shown, some), []
        if some:
            size += append(shown, some)
        clicks.sort(key=lambda event: event[0])
        for start in range(0, len(clicks), BATCH):
            append(done, clicks[start : start + BATCH])
        end = T0_MS + count // ROWS * STEP_MS + 3_600_000
        for topic in (shown, done):
            for partition in range(topic.partitions):
                topic.append([json.dumps({"_tick_ms": end}).encode()], times_ms=[end], partition=partition)
    return len(clicks), size // count


def joined(logs: Path, out: Path, emit: str, count: int, clicks: int) -> dict[str, float]:
    """One join of everything. Raises SystemExit unless every click found its impression."""
    out.mkdir()
    file = out / "join.toml"
    file.write_text(JOIN.format(logs=logs, out=out, emit=emit))
    started = time.perf_counter()
    command = [sys.executable, "-m", "penstock.cli", "online", "join", str(file), "--drain", "--json"]
    with (out / "counts").open("wb") as told, (out / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=told, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"error: the join ended with {process.returncode}: {(out / 'log').read_text()[-2000:]}")
    counts = json.loads((out / "counts").read_text())
    wanted = {"impressions": count, "feedback": clicks, "matched": clicks, "closed": count}
    wanted["samples"] = count + clicks * (emit == "at_once")
    if {name: counts.get(name) for name in wanted} != wanted:
        raise SystemExit(f"error: {counts}, and it should be {wanted}")
    shutil.rmtree(out)
    cpu, events = used.ru_utime + used.ru_stime, count + clicks
    harness.say(f"{emit}: {events:,} events in {seconds:.1f} s, {cpu:.1f} of the processor, {used.ru_maxrss >> 10} MiB")
    return {f"{emit}_per_cpu_s": events / cpu, f"{emit}_per_s": events / seconds, f"{emit}_mib": used.ru_maxrss / 1024}


def main() -> None:
    options = harness.arguments(__doc__)
    count = 100_000 if options.quick else 1_000_000
    # On a disk, where the working tree is: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=harness.HERE, prefix=".join-") as name:
        logs = Path(name)
        clicks, size = written(logs, count)
        harness.say(f"{count:,} impressions of {size} bytes, {clicks:,} clicks")

        def ours() -> dict[str, float]:
            found: dict[str, float] = {}
            for emit in EMITS:
                found |= joined(logs, logs / emit, emit, count, clicks)
            return found

        rounds = harness.alternate({"ours": ours}, options.rounds)
    found = harness.document("join", "events/s", rounds, {}, impressions=count, clicks=clicks, bytes=size)
    harness.finish(found, options)


if __name__ == "__main__":
    main()

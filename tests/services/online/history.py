"""A day of behaviour for joins to be tried on, with all that goes wrong in one, and joins that are killed on the way.

As a program: `history.py FILE KILLS SEED` joins what FILE names in processes that kill themselves, then once in peace;
`history.py FILE amid TIMES` joins it until it kills itself inside an append to several partitions, the TIMES-th.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.online import inputs, runner
from penstock.online.outputs import Outputs
from penstock.online.settings import read
from penstock.online.state import State
from penstock.streams import Record, Topic
from penstock.streams.kafka import KafkaTopic
from penstock.streams.redis import RedisTopic

T0 = 1_780_000_000_000
PROBLEMS = 3


def write(shown: Topic, done: Topic, count: int, seed: int = 1) -> None:
    """`count` impressions and their feedback: duplicates, events out of order and before their impression, feedback of
    nobody, skewed clients, shadows, three records that are none, columns that change."""
    dice = random.Random(seed)
    impressions: list[tuple[int, str, dict[str, Any]]] = []
    feedback: list[tuple[int, str, dict[str, Any]]] = []
    for number in range(count):
        at = T0 + number * 3 + dice.randrange(40)
        id = f"r{number}/{dice.randrange(2)}"
        features = {"user": f"u{number % 50}", "price": number / 8, "tags": ["ä", '"']}
        if number > count // 2:
            features["age"] = number % 90
        value = {"id": id, "time_ms": at, "model": "ctr", "shadow": False, "features": features, "score": 0.125}
        impressions.append((at + dice.randrange(30), id, value))
        if dice.random() < 0.1:  # sent again, or scored by a shadow too
            shadow = dice.random() < 0.5
            impressions.append((at + dice.randrange(2_000), id, {**value, "shadow": shadow}))
        for kind, share in (("click", 0.3), ("buy", 0.1)):
            while dice.random() < share:
                skew = dice.choice([0, 0, 0, 0, 7_200_000, -7_200_000])
                when = at + dice.randrange(-5, 900)
                feedback.append((when + dice.randrange(-30, 100), id, {"id": id, "type": kind, "time_ms": when + skew}))
    feedback += [(T0 + n, f"x{n}/0", {"id": f"x{n}/0", "type": "click", "time_ms": T0 + n}) for n in range(9)]
    _append(shown, impressions)
    _append(done, feedback)
    shown.append([b"\x00poison", b'{"id": 7}'], partition=0, times_ms=[T0, T0])
    done.append([b'{"id": "r1/0", "type": "click", "time_ms": NaN}'], partition=0, times_ms=[T0])
    end = T0 + count * 3 + 100_000
    for topic in (shown, done):
        for partition in range(topic.partitions):
            topic.append([json.dumps({"_tick_ms": end}).encode()], times_ms=[end], partition=partition)


def _append(topic: Topic, events: list[tuple[int, str, dict[str, Any]]]) -> None:
    """In the order in which they are sent, which is not that of their times."""
    events.sort(key=lambda event: event[0])
    for start in range(0, len(events), 500):
        part = events[start : start + 500]
        topic.append(
            [json.dumps(value).encode() for _, _, value in part],
            keys=[id.encode() for _, id, _ in part],
            times_ms=[at for at, _, _ in part],
        )


def records(topic: Topic) -> list[list[Record]]:
    """Everything, a partition each, without ticks."""
    found = []
    for partition in range(topic.partitions):
        at, mine = topic.start(partition), []
        while at < topic.end(partition):
            batch = topic.read(partition, at)
            mine += [record for record in batch.records if b'"_tick_ms"' not in record.value]
            at = batch.next
        found.append(mine)
    return found


def feed(source: Topic, target: Topic, part: int, parts: int) -> None:
    """Append one of `parts` of a topic to another of as many partitions, as it was there."""
    for partition in range(source.partitions):
        batch = source.read(partition, 0, records=1_000_000)
        count = len(batch.records)
        some = batch.records[count * part // parts : count * (part + 1) // parts]
        target.append(
            [record.value for record in some], keys=[record.key for record in some],
            times_ms=[record.time_ms for record in some], partition=partition,
        )  # fmt: skip


def samples(topic: Topic) -> list[list[dict[str, Any]]]:
    return [[json.loads(record.value) for record in part] for part in records(topic)]


def join_file(folder: Path, name: str, shown: str, done: str, out: str, **more: object) -> Path:
    """A join of three topics with a state of its own."""
    given = {"lateness": "100ms", "skew": "1m", "commit": "0s", "negatives": 0.7, **more}
    said = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nstate = "{name}.state"\n{said}'
        f'[impressions]\ntopic = "{shown}"\n[feedback]\ntopic = "{done}"\n[samples]\ntopic = "{out}"\n'
        '[types.click]\nwindow = "600ms"\n[types.buy]\nwindow = "2s"\nweight = 3.0\n'
    )
    return path


def killed_joins(file: Path, kills: int, seed: int) -> int:
    """Join in processes that kill themselves (-9) before or after an append or a commit, then to the end in peace. How
    many were killed before the work was done."""
    dice = random.Random(seed)
    done = 0
    for number in range(kills + 1):
        last = number == kills
        pid = os.fork()
        if pid == 0:
            try:
                _small_steps()
                if not last:
                    _kill_at(
                        dice.choice([(Outputs, "append"), (State, "commit")]), dice.random() < 0.5, dice.randrange(2, 7)
                    )
                runner.Runner(read(file), lambda said: print(said, file=sys.stderr)).run(drain=True)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
        dice.random(), dice.random(), dice.random()  # the child's throws are not ours
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            done += 1
        elif status:
            raise SystemExit("a join failed")
    return done


def _small_steps() -> None:
    """A few records a read, so that there is something to die between."""
    inputs._READ = 25  # type: ignore[attr-defined]


def _kill_at(where: tuple[type, str], before: bool, times: int) -> None:
    owner, name = where
    real: Callable[..., Any] = getattr(owner, name)
    left = times

    def dying(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and before:
            _die()
        found = real(*arguments)
        if left == 0:
            _die()
        return found

    setattr(owner, name, dying)


def killed_amid(file: Path, times: int) -> None:
    """Join until the `times`-th append to several partitions has written some of them and not the others: then -9."""
    _small_steps()
    real, left = Outputs._append, times

    def dying(self: Outputs, values: list[bytes], keys: list[bytes], times_ms: list[int]) -> None:
        nonlocal left
        parts = {self.topic.partition_of(key) for key in keys}
        left -= len(parts) > 1
        if left == 0:
            _die_inside(self.topic, max(parts))
        real(self, values, keys, times_ms)

    Outputs._append = dying  # type: ignore[method-assign]
    runner.Runner(read(file), lambda said: print(said, file=sys.stderr)).run(drain=True)


def _die_inside(topic: Topic, last: int) -> None:
    """The next append does not live to write its last partition; of a transaction, to commit it."""
    if isinstance(topic, RedisTopic):
        written = topic._append_to

        def one_and_no_more(*arguments: Any) -> int:
            end = written(*arguments)
            _die()
            return end

        topic._append_to = one_and_no_more  # type: ignore[method-assign]
    elif isinstance(topic, KafkaTopic):
        topic._commit_transaction = lambda producer: (producer.flush(30), _die())  # type: ignore[method-assign]
    else:  # partitions are written one after the other, and the last is kept by somebody else
        lock = os.open(Path(topic.name.removeprefix("log:")) / str(last) / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.2, _die).start()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__" and sys.argv[2] == "amid":
    killed_amid(Path(sys.argv[1]), int(sys.argv[3]))
elif __name__ == "__main__":
    print(killed_joins(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

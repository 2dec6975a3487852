"""What hosts have got is taken back: by `penstock online rollback`, and where a trainer left no checkpoint behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import native
from penstock.cli.main import main
from penstock.registry import Registry
from penstock.registry.generations import Lease
from penstock.streams import open_topic
from penstock.training.bundle import load
from penstock.training.live import settings
from penstock.training.live.bases import Bases
from penstock.training.live.run import Loop

from .conftest import append, records, rows
from .serving import Host, published, running, scored, until
from .test_run import run_until

SettingsFile = Callable[..., Path]
PROBE = rows(300, 9)
PUBLISH = "[publish]\ntopic = 'log:chain'\nevery_ms = 50\n"
GATED = "[gates]\nhalf_life = 300\nauc = 0.55\n[bases]\nevery_s = 0.001\nkeep = 9\n[watch]\ntell_s = 0.001\n"


def rollback(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["online", "rollback", str(path), "--json", *more]) == 0
    done: dict[str, Any] = json.loads(capsys.readouterr().out)
    return done


@contextmanager
def seen(host: Host) -> Iterator[list[tuple[tuple[int, int], bytes]]]:
    """What a caller gets who asks again and again: positions, and the scores of all rows there."""
    found: list[tuple[tuple[int, int], bytes]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.002):
            scores, at = host.asked(PROBE)
            found.append((at, scores.tobytes()))
        host.client.close()  # of each thread its own connection

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def follows(host: Host, loop: Loop, scratch: Path) -> None:
    """Hold the host against the trainer, which has ended."""
    until(lambda: host.at() == published(loop), f"the host does not come to {published(loop)}")
    start = Path(loop.document.model.start)
    np.testing.assert_allclose(host.asked(PROBE)[0], scored(loop, start, scratch, PROBE), rtol=0, atol=1e-6)


def zombie(tmp_path: Path, after: tuple[int, int]) -> None:
    """Appends the delta that would come next if its generation were not over."""
    generation, sequence = after
    bias = [("bias", [1], np.float32([9.0]))]
    with open_topic(f"log:{tmp_path}/chain") as topic:
        written = native.delta_records(
            (generation, sequence + 1, sequence + 1, 1), [], bias, 0, 0, ("ctr", "", "", "{}"), 999
        )
        topic.append(written, keys=[b"ctr"] * len(written))


def test_hosts_go_over_to_the_version_in_one_step_and_on_with_what_is_learnt_again_or_since(
    settings_file: SettingsFile, tmp_path: Path, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    def learning(batch: int) -> Path:
        return settings_file("lr", f"[train]\nbatch = {batch}\ndeterministic = true\n{PUBLISH}{GATED}")

    append(f"log:{tmp_path}/samples", records(rows(2000, 1)))
    first = run_until(path := learning(500), 2000)
    until(lambda: host.ready and host.at() == published(first), "the host does not follow")
    good = [base for base in Bases(tmp_path / "loop-cuts", 2).all() if base.good][-1]
    assert good.samples < 2000
    with Registry() as registry, Lease(registry.database, "ctr"):
        assert main(["online", "rollback", str(path)]) == 2, "while a trainer runs"
    assert "LIVE010" in capsys.readouterr().err

    done = rollback(path, capsys)
    assert (done["version"], done["gap"], done["skip"]) == (good.version, 0, False)
    assert host.at() == published(first), "nothing changes before the new generation begins"
    with seen(host) as found:
        until(lambda: bool(found), "nobody asked")
        began = run_until(learning(10_000), good.samples)  # of which there are not so many: it only begins
        until(lambda: found[-1][0] == published(began), "the host does not go over")
    assert {at for at, _ in found} == {published(first), published(began)} and len({s for _, s in found}) == 2
    with Registry() as registry:
        version = load(registry.fetch(registry.resolve(good.version)))
    np.testing.assert_allclose(host.asked(PROBE)[0], version.score(PROBE), rtol=0, atol=1e-6)

    zombie(tmp_path, after=published(first))
    again = run_until(learning(500), 2000)
    assert again.state.samples == 2000 and again.state.gaps == 0
    follows(host, again, tmp_path)
    assert host.asked(PROBE)[0].tobytes() == found[0][1], "the same samples teach the same"

    skipped = rollback(path, capsys, "--to", good.version, "--skip")
    assert skipped["gap"] == 2000 - good.samples
    append(f"log:{tmp_path}/samples", records(rows(500, 2), first=2000))
    since = run_until(path, good.samples + 500)
    assert since.state.gaps == skipped["gap"] and since.done["positions"] == {"0": 2500}  # type: ignore[attr-defined]
    assert f'penstock_online_left_out_total{{model="ctr"}} {skipped["gap"]}\n' in since.watch.prometheus()
    follows(host, since, tmp_path)


def test_a_trainer_that_died_before_its_first_checkpoint_is_taken_back_by_a_base(
    settings_file: SettingsFile, tmp_path: Path, host: Host
) -> None:
    path = settings_file("lr", f"[train]\nbatch = 100\n{PUBLISH}")
    append(f"log:{tmp_path}/samples", records(rows(1000, 1)))
    died = Loop(settings.read(path))
    died._save = lambda: None  # type: ignore[method-assign]  # killed: its deltas are out, and no cut is
    threading.Thread(target=lambda: stopped_after(died, 1000)).start()
    died.run()
    until(lambda: host.ready and host.at()[0] == 1, "the host does not follow")
    with running(path) as loop:
        until(lambda: host.at()[0] == 2, "hosts stay with the deltas of the one that died")
        until(lambda: loop.state.samples == 1000, "it does not learn")
    follows(host, loop, tmp_path)


def stopped_after(loop: Loop, samples: int) -> None:
    until(lambda: loop.state.samples >= samples, "it does not learn")
    loop.stop()

"""What operators must look at, and what ends a trainer, is told: in its log, its metrics, and to its webhook."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from penstock.errors import PenstockError
from penstock.registry import Registry
from penstock.registry.chain import Fenced, Publisher
from penstock.registry.faults import Superseded
from penstock.registry.generations import Lease
from penstock.streams import open_topic
from penstock.training.live import samples, settings
from penstock.training.live.run import Loop

from ....webhooks import Webhook
from .conftest import append, records, rows
from .serving import running, until
from .test_run import run_until

SettingsFile = Callable[..., Path]
PUBLISH = "[train]\nbatch = 100\n[publish]\ntopic = 'log:chain'\nevery_ms = 50\n"


def registry_says(tmp_path: Path) -> None:
    """Another trainer has the model now: this one was stopped, or cut off, and the other started with --take-over."""
    with Registry() as registry:
        Lease(registry.database, "ctr", take_over=True)._ended.set()


def chain_says(tmp_path: Path) -> None:
    """As where the zombie slept for a moment only: its lease is as good as new, and the other writes already."""
    with open_topic(f"log:{tmp_path}/chain") as topic:
        Publisher(topic, "ctr", 2, plan="", base="b").announce("models:/ctr/1", digest="d", sequence=0, offset=0)
    append(f"log:{tmp_path}/samples", records(rows(100, 2), first=500))


def raised(webhook: Webhook, caplog: pytest.LogCaptureFixture, kind: str, said: str) -> None:
    """That one alert of a kind was raised, everywhere."""
    (told,) = webhook.of(kind)
    assert told["model"] == "ctr" and said in told["message"] and told["time_ms"] > 0
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"ALERT {kind}: ")]
    assert said in line
    assert f'penstock_online_alerts_total{{model="ctr",of="{kind}"}} 1\n' in told["metrics"]


def now_ms() -> int:
    return int(time.time() * 1000)


@pytest.fixture
def written(settings_file: SettingsFile, tmp_path: Path, webhook: Webhook) -> Callable[[str], Path]:
    """A settings file that says whom to tell, and samples for its loop."""
    append(f"log:{tmp_path}/samples", records(rows(500, 1), begin_ms=now_ms()))
    watch = f"[watch]\nwebhook = '{webhook.address}'\nlisten = '127.0.0.1:0'\ntell_s = 0.05\n"
    return lambda more: settings_file("lr", more + watch)


@pytest.mark.parametrize(
    ("happens", "error", "said"),
    [(registry_says, Superseded, "LIVE011 generation 1 of 'ctr' is over"), (chain_says, Fenced, "CHAIN007 chain of")],
)
def test_a_trainer_that_was_taken_over_tells_that_it_is_fenced(
    happens: Callable[[Path], None],
    error: type[PenstockError],
    said: str,
    written: Callable[[str], Path],
    tmp_path: Path,
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(error), running(written(PUBLISH)) as zombie:
        until(lambda: zombie.state.samples == 500, "it does not learn")
        webhook.metrics = zombie.metrics_address
        happens(tmp_path)
        until(lambda: bool(webhook.of("fenced")), "nobody is told")
    raised(webhook, caplog, "fenced", said)
    assert not webhook.of("failed")


def test_a_trainer_whose_model_does_not_stay_finite_tells_that_it_failed(
    written: Callable[[str], Path],
    tmp_path: Path,
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(samples, "LARGEST_WEIGHT", 3e38)  # else it would be put aside
    with pytest.raises(PenstockError), running(written("[train]\nbatch = 100\n")) as loop:
        until(lambda: loop.state.samples == 500, "it does not learn")
        webhook.metrics = loop.metrics_address
        more = records(rows(300, 2), first=500)
        append(f"log:{tmp_path}/samples", [{**more[0], "_weight": 3e38}, *more[1:]])
        until(lambda: bool(webhook.of("failed")), "nobody is told")
    raised(webhook, caplog, "failed", "TRAIN040")


def test_a_trainer_that_cannot_go_on_from_its_checkpoint_tells_so_at_its_start(
    written: Callable[[str], Path], webhook: Webhook
) -> None:
    run_until(path := written(PUBLISH), 500)
    for cut in path.parent.glob("loop-cuts/gen-000001/*.cut"):
        cut.write_bytes(cut.read_bytes()[:-1] + b"?")
    with pytest.raises(PenstockError) as failed:
        Loop(settings.read(path)).run()
    (told,) = webhook.of("failed")
    assert told["message"] == str(failed.value).partition("\n")[0]


def test_samples_that_are_old_when_they_are_learnt_from_are_told_of(
    written: Callable[[str], Path], tmp_path: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    with running(written("[lag]\nmost_s = 30.0\n")) as loop:
        until(lambda: loop.state.samples == 500, "it does not learn")
        webhook.metrics = loop.metrics_address
        time.sleep(0.2)  # some lines of samples that are fresh
        append(f"log:{tmp_path}/samples", records(rows(500, 2), first=500, begin_ms=now_ms() - 90_000))
        until(lambda: bool(webhook.of("lag")), "nobody is told")
    raised(webhook, caplog, "lag", "s old when they are learnt from")


def test_a_column_that_is_not_what_it_was_is_told_of_by_name(
    written: Callable[[str], Path], tmp_path: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    with running(written("[drift]\nreference = 500\n")) as loop:
        append(f"log:{tmp_path}/samples", records(rows(2000, 2), first=500))
        until(lambda: loop.state.samples == 2500, "it does not learn")
        webhook.metrics = loop.metrics_address
        time.sleep(0.2)  # some lines of samples that are as they were
        dearer = rows(2000, 3).with_columns(pl.col("price") * 10)
        append(f"log:{tmp_path}/samples", records(dearer, first=2500))
        until(lambda: bool(webhook.of("drift")), "nobody is told")
        time.sleep(0.2)  # it is told once, not with every line
    raised(webhook, caplog, "drift", "number:price is not what it was: PSI ")
    (told,) = webhook.of("drift")
    assert told["of"] == "number:price" and told["psi"] > 0.25

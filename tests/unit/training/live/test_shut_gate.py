"""A gate that shuts: nothing goes out, everybody hears why, and what was held back goes out when it opens again."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.registry import Registry
from penstock.training.live.run import Loop

from ....webhooks import Webhook
from .conftest import append, records, rows
from .serving import Host, published, running, scored, until

SettingsFile = Callable[..., Path]
PROBE = rows(300, 9)
#: A delta would be due every 50 ms, a version every 400.
GATED = (
    "[train]\nbatch = 50\n[publish]\ntopic = 'log:chain'\nevery_ms = 50\n[bases]\nevery_s = 0.4\n"
    "[gates]\nhalf_life = 200\nauc = 0.6\ncalibration = [0.5, 2.0]\npositives = 20\n"
)


def upside_down(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**sample, "_label": 1 - sample["_label"]} for sample in samples]


def without_clicks(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As where feedback does not arrive."""
    return [{**sample, "_label": 0} for sample in samples]


def at(loop: Loop) -> tuple[int, int]:
    assert loop.outgoing.publishing is not None
    chain = loop.outgoing.publishing.chain
    return chain.generation, chain.sequence


def versions() -> int:
    with Registry() as registry:
        return len(registry.list_versions())


@pytest.mark.parametrize(
    ("spoiled", "band", "restarted"),
    [(upside_down, "decayed AUC 0.", False), (without_clicks, "calibration ", True)],
    ids=["auc", "calibration, and a restart meanwhile"],
)
def test_what_is_learnt_behind_a_shut_gate_waits_and_reaches_hosts_when_it_opens(
    spoiled: Callable[..., Any],
    band: str,
    restarted: bool,
    settings_file: SettingsFile,
    tmp_path: Path,
    host: Host,
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = settings_file(
        "lr", f"{GATED}[watch]\ntell_s = 0.01\nwebhook = '{webhook.address}'\nlisten = '127.0.0.1:0'\n"
    )
    address = f"log:{tmp_path}/samples"
    append(address, records(rows(1000, 1)))
    with running(path) as loop:
        until(lambda: loop.state.samples == 1000, "it does not learn")
        until(lambda: host.ready and host.at() == at(loop), "the host does not follow")
        until(lambda: versions() > 0, "it makes no versions")
        assert not webhook.of("gate_shut")

        append(address, spoiled(records(rows(1500, 2), first=1000)))
        until(lambda: bool(webhook.of("gate_shut")), "the gate stays open")
        stood, made = at(loop), versions()
        until(lambda: loop.state.samples == 2500, "it does not go on learning")
        time.sleep(1.0)
        assert (at(loop), versions()) == (stood, made) and not webhook.of("gate_open")
        with urllib.request.urlopen(f"http://{loop.metrics_address}/metrics") as reply:
            metrics = reply.read().decode()
        if restarted:
            loop.stop()
        else:
            opens(loop, address, host, webhook, stood)
    (shut,) = webhook.of("gate_shut")
    assert shut["model"] == "ctr" and shut["message"].startswith(band)
    assert f"ALERT gate_shut: {band}" in caplog.text
    assert 'penstock_online_gate_open{model="ctr"} 0' in metrics
    assert 'penstock_online_samples_total{model="ctr"} 2500' in metrics
    assert 'penstock_online_alerts_total{model="ctr",of="gate_shut"} 1' in metrics
    if restarted:
        assert published(loop) == stood, "nor when it ends"
        with running(path) as loop:
            until(lambda: loop.state.samples == 2500, "it does not go on")
            opens(loop, address, host, webhook, stood)
    until(lambda: host.at() == published(loop), "the host does not come to the end")
    found = scored(loop, Path(loop.document.model.start), tmp_path, PROBE)
    np.testing.assert_allclose(host.asked(PROBE)[0], found, rtol=0, atol=1e-6)


def opens(loop: Loop, address: str, host: Host, webhook: Webhook, stood: tuple[int, int]) -> None:
    """Let the metrics come back to their bands. Until then hosts stay where they were."""
    assert host.at() == stood
    append(address, records(rows(3000, 3), first=2500))
    until(lambda: bool(webhook.of("gate_open")), "the gate stays shut")
    until(lambda: host.at() > stood, "what was held back does not go out")
    until(lambda: loop.state.samples == 5500, "it does not learn")

"""A changed feature plan: a second loop learns beside the first, and the alias goes over when an operator says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.registry import Registry
from penstock.registry.sweep import Policy
from penstock.training.bundle import load
from penstock.training.live import settings
from penstock.training.live.faults import LiveError
from penstock.training.live.rollback import status
from penstock.training.live.switching import chain_of, switch

from .conftest import append, records, rows
from .test_run import run_until

SettingsFile = Callable[..., Path]
LOOP = (
    "[train]\nbatch = 250\ndeterministic = true\n[gates]\nhalf_life = 150\n"
    "[bases]\nevery_s = 0.001\nkeep = 8\nalias = 'live'\n[watch]\ntell_s = 0.001\n"
)


def live() -> tuple[str, str, str]:
    """Version, chain and feature plan of what hosts serve."""
    with Registry() as registry:
        found = registry.resolve("models:/ctr@live")
        return found.uri, chain_of(found), load(registry.fetch(found)).fingerprint


def test_the_alias_stays_with_its_chain_until_it_is_switched_and_goes_along_with_the_new_one_then(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    plans = {chain: load(models(kind)).fingerprint for chain, kind in (("ctr", "lr"), ("ctr-2", "lr, other features"))}
    append(f"log:{tmp_path}/samples", records(rows(2000, 1)))
    old = settings_file("lr", LOOP, "old")
    run_until(old, 2000)
    first = live()
    assert first[1:] == ("ctr", plans["ctr"])

    new = settings_file("lr, other features", LOOP, "new", model='anew = true\nchain = "ctr-2"')
    with pytest.raises(LiveError, match="no version of its loop"):
        switch(settings.read(new))
    run_until(new, 1500, begin="start")
    with pytest.raises(LiveError, match="500 records are older") as refused:
        switch(settings.read(new))
    assert refused.value.code == "LIVE012" and live() == first
    run_until(new, 2000)
    assert live() == first, "its versions proved good, and hosts serve the first loop's"

    done = switch(settings.read(new))
    assert (done["before"], done["chain_before"], done["chain"]) == (first[0], "ctr", "ctr-2")
    switched = live()
    assert switched == (done["version"], "ctr-2", plans["ctr-2"])
    append(f"log:{tmp_path}/samples", records(rows(1500, 2), first=2000))
    run_until(old, 3500)
    assert live() == switched, "the first loop moves it no more"
    run_until(new, 3500)
    assert live()[0] != switched[0] and live()[1:] == switched[1:], "the second one does"

    back = switch(settings.read(old))
    assert live() == (back["version"], *first[1:])
    with Registry() as registry:
        assert len(registry.list_versions("ctr")) > 3
        with pytest.raises(Exception, match="no model"):
            registry.list_versions("ctr-2")


def test_there_must_be_an_alias_to_switch(settings_file: SettingsFile) -> None:
    with pytest.raises(LiveError, match="no alias"):
        switch(settings.read(settings_file("lr")))


def test_a_loop_that_began_with_an_alias_goes_on_with_what_that_named_then(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    append(f"log:{tmp_path}/samples", records(rows(1000, 1)))
    with Registry() as registry:
        registry.alias(registry.push(models("lr"), "ctr").uri, "live")
    old = settings_file("lr", LOOP, "old", start="models:/ctr@live")
    run_until(old, 500)
    new = settings_file("lr, other features", LOOP, "new", model='anew = true\nchain = "ctr-2"')
    run_until(new, 1000, begin="start")
    switch(settings.read(new))
    assert live()[1] == "ctr-2"
    went_on = run_until(old, 1000)
    assert went_on.state.samples == 1000 and went_on.cuts.own.name == "gen-000002"

    # Another start is another wish: the checkpoints are not of its plan.
    with Registry() as registry:
        other = registry.resolve("models:/ctr@live").uri
    with pytest.raises(PenstockError, match="TRAIN034"):
        run_until(settings_file("lr", LOOP, "old", start=other), 1000)
    settings_file("lr", LOOP, "old", start="models:/ctr@live")
    append(f"log:{tmp_path}/samples", records(rows(250, 2), first=1000))
    assert run_until(old, 1250).state.samples == 1250


def test_gc_spares_what_a_loop_began_with_and_can_go_back_to(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    append(f"log:{tmp_path}/samples", records(rows(3000, 1)))
    with Registry() as registry:
        begun = registry.push(models("lr"), "ctr").uri
        registry.alias(begun, "live")
    often = "[train]\nbatch = 250\ndeterministic = true\n[gates]\nhalf_life = 1e9\n[bases]\nevery_s = 0.001\nkeep = 3\n"
    file = settings_file("lr", often, start="models:/ctr@live")
    run_until(file, 3000)
    with Registry() as registry:
        other = registry.push(models("lr, other features"), "ctr").uri
        registry.alias(other, "live")
        made = [version.uri for version in registry.list_versions("ctr")]
        swept = registry.gc(Policy(keep=1, grace_s=0), dry_run=False)
    kept = [each["version"] for each in status(settings.read(file))["versions"]]
    assert len(kept) == 3 and set(swept.swept) == {*made} - {begun, other, *kept} and swept.swept
    assert all("the loop of 'ctr'" in swept.kept[each] for each in kept)
    append(f"log:{tmp_path}/samples", records(rows(250, 2), first=3000))
    assert run_until(file, 3250).state.samples == 3250

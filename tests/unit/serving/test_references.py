"""What a host holds in the local cache of versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.registry import Cache, Registry
from penstock.serving import config as configs
from penstock.serving.references import bundle_of, held, let_go

from .live_model import Trainer


def test_a_host_holds_what_it_serves_and_not_all_that_it_ever_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("PENSTOCK_MODEL_CACHE", str(tmp_path / "cache"))
    trainer = Trainer(tmp_path, f"log:{tmp_path}/chain")
    names = []
    with Registry() as registry:
        for number in range(3):
            trainer.put([1], float(number))
            names.append(registry.push(trainer.written(f"version-{number}"), "m").uri)
    trainer.close()
    (tmp_path / "serving.toml").write_text(f'[models.m.versions]\n1 = "{names[2]}"\n')
    config = configs.read(tmp_path / "serving.toml")
    served = [bundle_of(config, name) for name in names]
    cache = Cache(tmp_path / "cache", 1)

    def evicted() -> list[str]:
        for bundle in served:  # what was used just now stays in any case
            os.utime(cache.folder / "used" / bundle.digest, (0, 0))
        return cache.evict()

    with held(names[1]) as opened:
        assert opened == served[1].folder and evicted() == []
        let_go(but=served[2:])
        assert evicted() == [served[0].digest]
    assert evicted() == [served[1].digest]
    assert bundle_of(config, names[0]).folder.is_dir() and served[2].folder.is_dir()
    let_go(but=[])

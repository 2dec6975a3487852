"""A registry of one's own, and bundles of a few bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.registry import Cache, Registry, bundles

Make = Callable[..., Path]


def write_bundle(folder: Path, files: Mapping[str, str], **manifest: Any) -> Path:
    """A bundle that the registry can hold; nothing scores with it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    whole: dict[str, Any] = {
        "format_version": bundles.FORMAT_VERSION,
        "algorithm": "gbdt",
        "label": "label",
        "signature": {"inputs": [{"name": "age", "type": "double"}], "outputs": [{"name": "score", "type": "double"}]},
        "plan": "",
        "metrics": {"auc": 0.75},
        "lineage": {"run": "r1", "flow": "ctr"},
        "warmup": None,
        **manifest,
        "files": bundles.list_files(folder),
    }
    bundles.write_manifest(folder, whole)
    return folder


@pytest.fixture(autouse=True)
def no_flows_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc looks into the run stores that this machine knows: not those of the person who runs the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a registry and a cache of its own, for what asks the environment for them."""
    for name in ("PENSTOCK_REGISTRY", "PENSTOCK_MODEL_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(tmp_path: Path) -> Make:
    """`bundle("text")` writes one whose model file holds the text."""
    made: list[Path] = []

    def make(text: str = "trees", **manifest: Any) -> Path:
        made.append(tmp_path / "bundles" / str(len(made)))
        return write_bundle(made[-1], {"trees.txt": text, "plan/plan.json": "{}"}, **manifest)

    return make


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry", cache=Cache(tmp_path / "cache", 1 << 30)) as opened:
        yield opened

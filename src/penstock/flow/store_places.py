"""Where run stores lie: beside their flows or in `$PENSTOCK_HOME`, and which of them this machine has used."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from penstock.data.home import HOME

FOLDER = ".penstock"


def store_folder(flow_dir: Path | str) -> Path:
    """Where the runs of a flow in `flow_dir` are kept."""
    home = os.environ.get(HOME, "")
    return Path(home).expanduser().absolute() if home else Path(flow_dir).absolute() / FOLDER


def remember(folder: Path) -> None:
    """Note where a store is, so that `flow runs` and `flow logs` find it from anywhere. Never fails."""
    known = known_stores()
    if folder not in known:
        with suppress(OSError):
            _known_file().parent.mkdir(parents=True, exist_ok=True)
            aside = _known_file().with_suffix(f".{os.getpid()}")
            aside.write_text("".join(f"{each}\n" for each in [folder, *known][:200]))
            aside.replace(_known_file())


def known_stores() -> list[Path]:
    """Stores that runs on this machine have used and that are still there."""
    try:
        lines = _known_file().read_text().splitlines()
    except OSError:
        return []
    return [Path(line) for line in lines if (Path(line) / "store.sqlite").exists()]


def _known_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "penstock" / "stores"

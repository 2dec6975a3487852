"""What release commands and guards have changed since the file was written: overrides, kept beside the host.

The file is intent. An override replaces the versions, traffic and shadows of one model, and is dropped only when that
model's block in the file changes. `releases.json` in the state folder holds them; it is replaced whole, under a lock.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from penstock.data.atomic import write_text
from penstock.errors import PenstockError
from penstock.registry.versions import who as person
from penstock.serving.config import Config, Model

FILE, LOCK = "releases.json", "releases.lock"
#: What a guard's change is called.
TAKEN_BACK = "guard took {} back"
#: Changes that are remembered of each model.
HISTORY = 100


@dataclass(frozen=True)
class Release:
    """What serves of one model: references by label, percent by label, the label that canaries are judged by."""

    versions: Mapping[str, str]
    traffic: Mapping[str, float]
    live: str
    sticky: str = ""
    salt: str = ""
    shadow: Sequence[str] = ()

    @property
    def canaries(self) -> list[str]:
        return [label for label, share in self.traffic.items() if label != self.live and share > 0]

    def without(self, label: str) -> Release:
        """The same, where live has the share of a canary too, and it is no shadow."""
        shares = {k: share for k, share in self.traffic.items() if k != label}
        shares[self.live] = shares.get(self.live, 0.0) + self.traffic.get(label, 0.0)
        return replace(self, traffic=shares, shadow=tuple(s for s in self.shadow if s != label))


@dataclass(frozen=True)
class Change:
    """One line of a model's history. `before`: what served until then."""

    time: float
    what: str
    who: str
    why: str
    before: Release | None = None


@dataclass(frozen=True)
class Override:
    """`block`: the hash of the model's block in the file when it was made; `revision`: which change it is."""

    block: str
    revision: str
    release: Release | None
    history: tuple[Change, ...] = ()


def intended(model: Model) -> Release:
    """What the file says. Without traffic the highest version gets all; live is whoever has most."""
    order = sorted(model.versions, key=_order)
    traffic = {label: float(share) for label, share in model.traffic.items()} or {order[-1]: 100.0}
    live = max(order, key=lambda label: (traffic.get(label, 0.0), -order.index(label)))
    return Release(dict(model.versions), traffic, live, model.sticky, "", tuple(model.shadow))


def _order(label: str) -> tuple[int, int, str]:
    return (1, int(label), "") if label.isdigit() else (0, 0, label)


class Overrides:
    """The overrides of one state folder. Raises `PenstockError` (SERV012) where the file cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    def load(self) -> dict[str, Override]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: _override(each) for name, each in stored["models"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "move it away: the host then serves what its configuration says"
            raise PenstockError(f"{self.path} cannot be read: {error}", hint, "SERV012") from None

    @contextmanager
    def changing(self) -> Iterator[dict[str, Override]]:
        """The overrides to change, written when the block ends; other processes wait meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = self.load()
            yield held
            stored = {"models": {name: asdict(each) for name, each in held.items()}}
            write_text(self.path, json.dumps(stored, indent=1) + "\n")

    def set(
        self, config: Config, model: str, release: Release | None, what: str, why: str = "", who: str = ""
    ) -> Override:
        """Let `release` serve instead of what the file says (None: the file again). Returns the override."""
        with self.changing() as held:
            before = held.get(model)
            block = config.blocks[model]
            now = current(config, model, held)
            change = Change(time.time(), what, who or person(), why, now)
            history = (*(before.history if before else ()), change)[-HISTORY:]
            if release is not None and not release.salt:
                release = replace(release, salt=secrets.token_hex(4))
            made = Override(block, secrets.token_hex(8), release, history)
            held[model] = made
            return made


def current(config: Config, model: str, held: Mapping[str, Override]) -> Release:
    """What should serve: the override, unless the model's block of the file has changed since."""
    override = held.get(model)
    if override is not None and override.release is not None and override.block == config.blocks[model]:
        return override.release
    return intended(config.document.models[model])


def _release(stored: Any) -> Release | None:
    if stored is None:
        return None
    shares = {str(label): float(share) for label, share in stored["traffic"].items()}
    return Release(
        {str(label): str(ref) for label, ref in stored["versions"].items()}, shares, str(stored["live"]),
        str(stored["sticky"]), str(stored["salt"]), tuple(stored["shadow"]),
    )  # fmt: skip


def _override(stored: Any) -> Override:
    changes = (
        Change(float(c["time"]), str(c["what"]), str(c["who"]), str(c["why"]), _release(c["before"]))
        for c in stored["history"]
    )
    return Override(str(stored["block"]), str(stored["revision"]), _release(stored["release"]), tuple(changes))

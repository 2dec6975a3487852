"""Which hosts run on this machine, for commands that name a model and no configuration."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.data.atomic import write_text
from penstock.data.home import HOME
from penstock.errors import PenstockError, RequestError, did_you_mean
from penstock.serving.config import Config

LOCK = "host.lock"


def folder() -> Path:
    """`$PENSTOCK_HOME/hosts`, else `$XDG_STATE_HOME/penstock/hosts`."""
    home = os.environ.get(HOME, "")
    if home:
        return Path(home).expanduser().absolute() / "hosts"
    state = os.environ.get("XDG_STATE_HOME", "") or str(Path.home() / ".local" / "state")
    return Path(state) / "penstock" / "hosts"


@contextmanager
def announced(config: Config) -> Iterator[None]:
    """While the block runs, this process is known as the host of `config`, and no other can be.

    Raises `PenstockError` (SERV013) where another process is that host already.
    """
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (config.state_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = f"`penstock release` steers it; {config.state_dir} is its state"
            raise PenstockError(f"another host serves {config.path} already", hint, "SERV013") from None
        with _listed(config):
            yield


@contextmanager
def _listed(config: Config) -> Iterator[None]:
    place = folder()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = place / f"{hashlib.sha256(str(config.path).encode()).hexdigest()[:16]}.json"
    write_text(own, json.dumps({"pid": os.getpid(), "config": str(config.path), "models": list(config.blocks)}))
    try:
        yield
    finally:
        own.unlink(missing_ok=True)


def running_hosts() -> list[tuple[Path, list[str]]]:
    """The configuration of each host that runs on this machine, and the models that it serves."""
    found = []
    for path in sorted(folder().glob("*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            Path(f"/proc/{int(said['pid'])}").stat()
            found.append((Path(said["config"]), [str(model) for model in said["models"]]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def config_of(model: str) -> Path:
    """The configuration of the one running host that serves `model`. Raises `RequestError` (SERV011)."""
    hosts = running_hosts()
    found = [config for config, models in hosts if model in models]
    if len(found) == 1:
        return found[0]
    if not found:
        others = sorted({name for _, models in hosts for name in models})
        hint = did_you_mean(model, others, f"served here: {', '.join(others)}") if others else "none runs here"
        raise RequestError(
            f"no running host serves '{model}'", f"{hint} (or --config names a configuration)", "SERV011"
        )
    listed = ", ".join(str(path) for path in found)
    raise RequestError(f"several running hosts serve '{model}': {listed}", "--config says which", "SERV011")

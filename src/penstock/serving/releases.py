"""Release commands: what an operator types, turned into overrides that a running host takes up within a moment."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError, RequestError, did_you_mean
from penstock.serving import config as configs
from penstock.serving.config import NAME, Config
from penstock.serving.overrides import TAKEN_BACK, Override, Overrides, Release, current
from penstock.serving.references import bundle_of, misfits
from penstock.serving.state_files import ASKED, STATUS

#: How long a command waits for the host to say what came of it.
PATIENCE_S = 60.0
#: How long `status` waits for a host to write down how it goes.
FRESH_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """What a command did. `applied` None: no host runs, it will be taken up when one starts; `refused`: why not."""

    model: str
    release: Release
    applied: bool | None
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        release = self.release
        return {
            "model": self.model, "live": release.live, "traffic": dict(release.traffic), "sticky": release.sticky,
            "shadow": list(release.shadow), "applied": self.applied, "refused": self.refused,
        }  # fmt: skip


class Releases:
    """The releases of one configuration's models."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.overrides = Overrides(config.state_dir)

    def release(self, name: str, version: str, canary: float | None, sticky: str, shadow: bool) -> Outcome:
        """Give `version` (a label of the file, or a number of the registry) all traffic, a share of live's, or a copy.

        Raises `RequestError` for what makes no sense, `PenstockError` (SERV008) for one that cannot answer for live.
        """
        now = self._current(name)
        if canary is not None and not 0 < canary < 100:
            raise RequestError(f"a canary of {canary:g} % is none", "say --canary 10; without it all traffic goes over")
        if version == now.live and (canary is not None or shadow):
            raise RequestError(f"version {version} of '{name}' is live already", "release another one as its canary")
        reference = now.versions.get(version) or f"models:/{name}/{version}"
        self._fits(name, now, version, reference)
        versions = {**now.versions, version: reference}
        if shadow:
            made = replace(now, versions=versions, shadow=tuple(dict.fromkeys((*now.shadow, version))))
            return self._set(name, made, f"shadow {version}")
        if canary is None:
            made = Release(versions, {version: 100.0}, version, sticky or now.sticky, "", _without(now.shadow, version))
            return self._set(name, made, f"release {version}")
        others = {k: share for k, share in now.traffic.items() if k not in (version, now.live)}
        left = 100.0 - canary - sum(others.values())
        if left < 0:
            said = (
                f"{canary:g} % for version {version} and {sum(others.values()):g} % for other canaries leave live none"
            )
            raise RequestError(said, f"`penstock release rollback {name}` takes canaries back")
        salt = now.salt if version in now.canaries else ""
        traffic = {**others, now.live: left, version: canary}
        made = Release(versions, traffic, now.live, sticky or now.sticky, salt, _without(now.shadow, version))
        return self._set(name, made, f"canary {version} at {canary:g} %")

    def promote(self, name: str) -> Outcome:
        """Give the one canary all traffic."""
        now = self._current(name)
        if len(now.canaries) != 1:
            said = "no canary" if not now.canaries else f"{len(now.canaries)} canaries ({', '.join(now.canaries)})"
            raise RequestError(f"'{name}' has {said}", f"`penstock release {name}/VERSION` names one")
        version = now.canaries[0]
        made = Release(now.versions, {version: 100.0}, version, now.sticky, "", now.shadow)
        return self._set(name, made, f"promote {version}")

    def rollback(self, name: str, why: str = "") -> Outcome:
        """Take canaries and shadows back; where there are none, return to the version that was live before."""
        now = self._current(name)
        if now.canaries or now.shadow:
            made = Release(now.versions, {now.live: 100.0}, now.live, now.sticky, "", ())
            return self._set(name, made, f"rollback of {', '.join((*now.canaries, *now.shadow))}", why)
        for change in reversed(self._history(name)):
            if change.before is not None and change.before.live != now.live:
                live = change.before.live
                versions = {**now.versions, live: change.before.versions[live]}
                made = Release(versions, {live: 100.0}, live, now.sticky, "", ())
                return self._set(name, made, f"rollback from {now.live} to {live}", why)
        raise RequestError(f"'{name}' has no canary, and nothing was live before {now.live}", "release a version first")

    def status(self, name: str) -> dict[str, Any]:
        """The model's split and who made it, what each version is doing and how it goes, and its last changes."""
        now = self._current(name)
        host = asked(self.config)
        history = self._history(name)
        made = self.overrides.load().get(name)
        ruled = made is not None and made.release is not None and made.block == self.config.blocks[name]
        about = {key: host[key] for key in ("http", "grpc", "ready")} if host else None
        return {
            "model": name, "host": about, "sticky": now.sticky,
            "released": history[-1].time if ruled and history else None,
            "versions": [_version(name, label, now, host, history) for label in now.versions],
            "changes": [
                {"time": c.time, "what": c.what, "who": c.who, "why": c.why} for c in reversed(history[-10:])
            ],
        }  # fmt: skip

    # --- how ---

    def _current(self, name: str) -> Release:
        if not NAME.fullmatch(name) or name not in self.config.blocks:
            hint = did_you_mean(name, list(self.config.blocks), f"it serves {', '.join(self.config.blocks)}")
            raise RequestError(f"{self.config.path} serves no model '{name}'", hint, "SERV011")
        return current(self.config, name, self.overrides.load())

    def _history(self, name: str) -> tuple[Any, ...]:
        held = self.overrides.load().get(name)
        return held.history if held else ()

    def _fits(self, name: str, now: Release, version: str, reference: str) -> None:
        other = bundle_of(self.config, reference)
        live = bundle_of(self.config, now.versions[now.live])
        if said := misfits(live, other):
            raise PenstockError(
                f"version {version} of '{name}' cannot answer what version {now.live} answers: {'; '.join(said[:3])}",
                "serve it as a model of its own until its callers have moved",
                "SERV008",
            )

    def _set(self, name: str, made: Release, what: str, why: str = "") -> Outcome:
        override = self.overrides.set(self.config, name, made, what, why)
        return self._await(name, override)

    def _await(self, name: str, override: Override) -> Outcome:
        assert override.release is not None
        ends = time.monotonic() + PATIENCE_S
        while (host := running(self.config)) is not None and time.monotonic() < ends:
            said = host["outcomes"].get(override.revision)
            if said is not None:
                return Outcome(name, override.release, not said, said)
            time.sleep(0.05)
        if host is None:
            return Outcome(name, override.release, None)
        raise PenstockError(
            f"the host has not taken the change up in {PATIENCE_S:g} s",
            "its log (stderr) says what it is doing",
            "SERV012",
        )


def running(config: Config) -> dict[str, Any] | None:
    """What the host of this configuration says of itself; None where none runs."""
    path = config.state_dir / STATUS
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Path(f"/proc/{int(found['pid'])}").stat()
    except (OSError, ValueError, KeyError):
        return None
    return found


def asked(config: Config) -> dict[str, Any] | None:
    """As `running`, and as it is now: a host that is busy loading is not waited for."""
    before = running(config)
    if before is None:
        return None
    try:
        (config.state_dir / ASKED).write_text(str(time.time()), encoding="utf-8")
    except OSError:  # another user's host: what it wrote last
        return before
    ends = time.monotonic() + FRESH_S
    while (now := running(config)) is not None and now["time"] == before["time"] and time.monotonic() < ends:
        time.sleep(0.02)
    return now


def open_releases(path: Path) -> Releases:
    return Releases(configs.read(path))


def _without(shadow: Any, version: str) -> tuple[str, ...]:
    return tuple(label for label in shadow if label != version)


def _version(name: str, label: str, now: Release, host: Mapping[str, Any] | None, history: Any) -> dict[str, Any]:
    said = host["models"].get(name, {}).get(label, {}) if host else {}
    fleet = host["fleet"]["models"].get(name, {}).get("versions", ()) if host else ()
    counted: Mapping[str, Any] = next((each for each in fleet if each["version"] == label), {})
    percent = now.traffic.get(label, 0.0)
    back = next((c.why for c in reversed(history) if c.what == TAKEN_BACK.format(label) and not percent), "")
    role = "live" if label == now.live else "canary" if percent else "shadow" if label in now.shadow else ""
    return {
        "version": label, "reference": now.versions[label],
        "fixed": host["fixed"].get(f"{name}/{label}", "") if host else "",
        "percent": percent, "role": role or ("taken back" if back else ""),
        "state": said.get("state", "unknown" if host else "no host"), "reason": said.get("reason", "") or back,
        "bundle": said.get("bundle", ""),
        **{key: counted.get(key, 0) for key in ("requests", "failed", "late", "busy", "waiting")},
        "watched": counted.get("watched"),
    }  # fmt: skip

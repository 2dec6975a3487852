"""The host process: a native host, and the control loop that brings it to what the file and its overrides say.

`python -m penstock.serving.host CONFIG` is started by `supervisor.py`. Requests never pass through here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock import native
from penstock.data.atomic import write_text
from penstock.data.stopping import Stopping
from penstock.errors import PenstockError, ProblemsFound
from penstock.registry.runtime import onnxruntime_library
from penstock.serving import config as configs
from penstock.serving.config import Config, exposed
from penstock.serving.desired import Resolved, desired, doors, follows, problems_of, resolve, tokens, unfit
from penstock.serving.failover import Damaged, Served, instead
from penstock.serving.follow import Follower
from penstock.serving.logs import log
from penstock.serving.overrides import TAKEN_BACK, Override, Overrides, current
from penstock.serving.references import bundle_of, discard, lease, let_go
from penstock.serving.state_files import ASKED, CRASHES, MARKERS, STATUS

#: How often the control loop looks around.
TICK_S = 0.1
#: How often the registry is told what runs here, and for how long that holds.
LEASE_EVERY_S, LEASE_S = 60.0, 600.0
#: A version that crashed the process so often is not run again.
CRASHES_ALLOWED = 3


class Control:
    """Keeps one native host as the file and the overrides say. `addresses`: to bind again after a restart."""

    def __init__(self, config: Config, addresses: tuple[str, str] | None = None) -> None:
        self.config = config
        self.state = config.state_dir
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.overrides = Overrides(self.state)
        library = onnxruntime_library()
        self.host = native.Host(
            doors(config, addresses), markers=str(self.state / MARKERS), onnxruntime=str(library or "")
        )
        self.stop = Stopping()
        self.report: dict[str, Any] = {}
        self._resolved = Resolved()
        self._held: dict[str, Override] = {}
        self._outcomes: dict[str, str] = {}
        self._stamps: dict[Path, Any] = {}
        self._aliases_at = 0.0
        self._leased_at = -LEASE_EVERY_S
        self._served = Served(self.state)
        self._damaged = Damaged()
        self._followers: dict[str, Follower] = {}

    # --- what it does ---

    def run(self, ready: Callable[[str, str], None]) -> None:
        """Apply, tell `ready` once everything serves, and keep it so until `stop` is set."""
        self._stamp(self.config.path), self._stamp(self.overrides.path), self._stamp(self.state / ASKED)
        self.apply()
        told = False
        while True:
            if not told and self.host.ready():
                ready(*self.host.addresses)
                told = True
            if self.stop.wait(TICK_S):
                return
            self._look()

    def apply(self) -> None:
        """Bring the host to what should serve, and write down what came of it."""
        self._held = self.overrides.load()
        self._resolved = resolve(self.config, self._held)
        self._aliases_at = time.monotonic()
        refused = {**self._quarantined(), **self._damaged.quarantined(self._resolved)}
        document = desired(self.config, self._held, self._resolved, refused)
        self.report = json.loads(self.host.apply(document))
        for model, versions in self.report["models"].items():
            for label, said in versions.items():
                level = "info" if said["state"] in ("ready", "unloaded") else "error"
                log(level, "version", model=model, version=label, **said)
        self._follow()
        let_go(self._resolved.bundles.values())
        self._note_live()
        self._settle()
        self._write_status()

    def _follow(self) -> None:
        """A follower for each model that has a chain, with the version that serves it now."""
        wanted = {}
        for name, model in self.config.document.models.items():
            label = follows(model, current(self.config, name, self._held))
            bundle = self._resolved.bundles.get((name, label)) if label else None
            if model.live is not None and label and bundle is not None:
                wanted[name] = (label, model.live, bundle)
        for name, follower in list(self._followers.items()):
            if wanted.get(name) != (follower.label, follower.spec, follower.bundle):
                follower.stop()
                del self._followers[name]
        for name, (label, live, bundle) in wanted.items():
            if name not in self._followers:
                self._followers[name] = Follower(self.host, self.config, name, label, live, bundle)

    def drain(self) -> bool:
        for follower in self._followers.values():
            follower.stop()
        given = self.config.document.host
        drained: bool = self.host.drain(given.drain_s, given.finish_s)
        return drained

    # --- what it looks at ---

    def _look(self) -> None:
        for text in self.host.events():
            self._heard(json.loads(text))
        if self._stamp(self.config.path):
            self._reload()
        if self._stamp(self.overrides.path):
            self._guarded("overrides_refused", self.apply)
        if self._stamp(self.state / ASKED):
            self._guarded("status_not_written", self._write_status)
        if time.monotonic() - self._aliases_at > self.config.document.host.aliases_every_s:
            self._aliases_at = time.monotonic()
            again = resolve(self.config, self._held)
            if again.digests() != self._resolved.digests() or set(again.faults) != set(self._resolved.faults):
                log("info", "references_changed")
                self._guarded("apply_failed", self.apply)

        if time.monotonic() - self._leased_at > LEASE_EVERY_S:
            self._leased_at = time.monotonic()
            holder = f"{socket.gethostname()}:{self.config.path.resolve()}"
            self._guarded("lease_failed", lambda: lease(holder, self._resolved.bundles.values(), LEASE_S))

    def _reload(self) -> None:
        """The file changed: check it, then apply it; a bad one is refused and what serves stays."""
        try:
            new = configs.read(self.config.path)
            problems = [p for p in problems_of(new, resolve(new, {})) if p.severity == "error"]
            if problems:
                raise ProblemsFound(problems)
        except ProblemsFound as found:
            for problem in found.problems:
                log("error", "configuration_refused", problem=str(problem))
            return
        old, self.config = self.config, new
        if new.document.listen != old.document.listen or new.document.tls != old.document.tls:
            log("warning", "restart_needed", what="listen and tls are read when the host starts")
        # Also where `insecure` alone has changed: tokens may have been kept for want of it.
        self._take_tokens()
        log("info", "configuration_applied")
        self._guarded("apply_failed", self.apply)

    def _take_tokens(self) -> None:
        """The file may say loopback by now: what counts is what is bound."""
        document = self.config.document
        open_to_all = not document.tokens and not document.listen.insecure
        if open_to_all and any(exposed(address) for address in self.host.addresses):
            said = "this host listens beyond loopback, and without tokens everybody could score"
            log("error", "tokens_kept", error=said, hint="restart it, or set insecure = true")
            return
        try:
            self.host.set_tokens(json.dumps(tokens(document)))
        except (ValueError, RuntimeError) as error:
            log("error", "tokens_kept", error=str(error))

    def _heard(self, event: Mapping[str, Any]) -> None:
        level = "error" if event["event"] in ("rollback", "panic", "lane_lost", "damaged") else "warning"
        log(level, event["event"], **{k: v for k, v in event.items() if k not in ("event", "time")})
        if event["event"] == "damaged":
            self._guarded("failover_failed", lambda: self._fail_over(event))
        if event["event"] != "rollback":
            return
        model, label = event["model"], event["version"]
        back = current(self.config, model, self._held).without(label)
        self.overrides.set(self.config, model, back, TAKEN_BACK.format(label), event["why"], "guard")

    def _fail_over(self, event: Mapping[str, Any]) -> None:
        """A version's rows are damaged: another one answers, and a copy that can be had anew is fetched."""
        model, label, why = event["model"], event["version"], event["why"]
        bundle = self._resolved.bundles.get((model, label))
        if bundle is None or bundle.digest != event["bundle"] or not self._damaged.add(bundle, why):
            return
        again = discard(bundle)
        release = current(self.config, model, self._held)
        known = {of: found for (name, of), found in self._resolved.bundles.items() if name == model}
        earlier = (name for name in self._served.before(model, bundle) if self._can_be_had(name))
        made = instead(release, label, next(earlier, None), known, again=again)
        if made is not None:
            self.overrides.set(self.config, model, made, f"version {label} is damaged", why, "host")
        elif not again:
            log("error", "damaged_and_alone", model=model, version=label, bundle=str(bundle.folder), why=why)
        self.apply()

    def _can_be_had(self, reference: str) -> bool:
        try:
            bundle_of(self.config, reference)
        except PenstockError:
            return False
        return True

    # --- how it goes ---

    def _note_live(self) -> None:
        for model, states in self.report["models"].items():
            live = current(self.config, model, self._held).live
            bundle = self._resolved.bundles.get((model, live))
            if bundle is not None and states.get(live, {}).get("state") == "ready":
                self._served.note(model, bundle)

    def _settle(self) -> None:
        """Take back overrides whose versions would not load or do not fit, and remember why for who asked."""
        for model, override in self._held.items():
            if override.release is None or override.revision in self._outcomes or model not in self.config.blocks:
                continue
            states = self.report["models"].get(model, {})
            failed = {
                label: said["reason"] for label, said in states.items()
                if label in override.release.versions and said["state"] == "failed"
            }  # fmt: skip
            failed.update(unfit(model, override.release, self._resolved))
            self._outcomes[override.revision] = "; ".join(f"version '{k}': {v}" for k, v in failed.items())
            last = override.history[-1] if override.history else None
            before = last.before if last else None
            # What the host itself put back is not put back again: two versions that are both lost would take turns.
            if failed and last is not None and last.who != "host" and before is not None and before != override.release:
                log("error", "release_refused", model=model, why=self._outcomes[override.revision])
                self.overrides.set(
                    self.config, model, before, "release refused", self._outcomes[override.revision], "host"
                )

    def _quarantined(self) -> dict[str, str]:
        try:
            counted = json.loads((self.state / CRASHES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        said = "it crashed the host {} times and is quarantined; push a new version, or delete {}"
        return {
            digest: said.format(count, self.state / CRASHES)
            for digest, count in counted.items()
            if count >= CRASHES_ALLOWED
        }

    def _guarded(self, event: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (PenstockError, ValueError, RuntimeError, OSError) as error:
            log("error", event, error=str(error))

    def _stamp(self, path: Path) -> bool:
        """Whether the file changed since this was asked last."""
        try:
            about = path.stat()
            now: Any = (about.st_mtime_ns, about.st_size, about.st_ino)
        except OSError:
            now = None
        changed = path in self._stamps and self._stamps[path] != now
        self._stamps[path] = now
        return changed

    def _write_status(self) -> None:
        http, grpc = self.host.addresses
        status = {
            "pid": os.getpid(), "time": time.time(), "config": str(self.config.path), "http": http, "grpc": grpc,
            "ready": self.host.ready(), "models": self.report["models"], "outcomes": self._outcomes,
            "fixed": {f"{model}/{label}": b.fixed for (model, label), b in self._resolved.bundles.items()},
            "fleet": json.loads(self.host.status()),
        }  # fmt: skip
        write_text(self.state / STATUS, json.dumps(status, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """`CONFIG [HTTP GRPC]`: serve until SIGTERM. Exit 0 drained, 2 for a configuration that cannot be."""
    path, *addresses = arguments
    try:
        config = configs.read(Path(path))
        problems = problems_of(config, resolve(config, {}))
        # A version that cannot be had keeps the host from being ready, and no other model from serving.
        if not addresses and (wrong := [p for p in problems if p.code == "SERV008"]):
            raise ProblemsFound(wrong)
        for problem in problems:
            log("error", "version_unavailable", problem=str(problem))
        control = Control(config, (addresses[0], addresses[1]) if addresses else None)
    except ProblemsFound as found:
        sys.stderr.write("".join(f"{problem}\n" for problem in found.problems))
        return 2
    except (ValueError, RuntimeError, PenstockError) as error:
        log("error", "cannot_start", error=str(error))
        return 2

    def ready(http: str, grpc: str) -> None:
        log("info", "ready", http=http, grpc=grpc)
        sys.stdout.write(f"serving http={http} grpc={grpc}\n")
        sys.stdout.flush()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: control.stop.set())
    try:
        control.run(ready)
    finally:
        drained = control.drain()
        log("info" if drained else "warning", "stopped", drained=drained)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Follows a model's chain for one loaded version: a thread beside the host's control loop, never on a request's way.

It reads the topic, judges what comes (`registry/chain_reading.py`), and hands whole deltas to the native model. Where
it cannot go on it takes the newest base that the trainer announced; until that has caught up, what was shown is served.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from penstock import native
from penstock.errors import PenstockError
from penstock.registry import bundles
from penstock.registry.chain_reading import Standing, holds, newest_base
from penstock.registry.chain_records import Assembler, Base, Begin, Broken, ChainError, ChainHead, Whole
from penstock.registry.faults import BundleError
from penstock.serving.config import Config, Following
from penstock.serving.logs import log
from penstock.serving.references import MODELS, Bundle, held
from penstock.streams import BeyondEnd, RecordsLost, Topic, TopicTrimmed, open_topic

#: How long a read waits for records, and a follower that cannot go on for something new.
WAIT_S, PAUSE_S = 0.05, 0.5
#: Before a base that came damaged is fetched again: it may be large.
AGAIN_S = 30.0
#: The code of a delta that cannot be laid over: it has no room, or is of other shapes.
FULL = "CHAIN011"


class Follower:
    """Follows `spec.topic` with version `label` of `model` until `stop`."""

    def __init__(
        self, host: native.Host, config: Config, model: str, label: str, spec: Following, bundle: Bundle
    ) -> None:
        self.model, self.label, self.spec, self.bundle = model, label, spec, bundle
        # A version that a loop made says which chain goes on from it: an alias that moves to another chain's brings it.
        made = bundle.manifest.get("lineage", {}).get("online", {})
        self.chain = spec.chain or str(made.get("of") or model)
        self.address = config.address(spec.topic.replace("{chain}", self.chain))
        self._host = host
        self._bases = config.state_dir / "bases" / f"{model}-{label}"
        self._ends = threading.Event()
        self._handle: native.Following | None = None
        self._topic: Topic | None = None
        self._standing: Standing
        self._base: ChainHead
        self._assembler: Assembler
        self._offset = 0
        self._staged = False
        self._said = ""
        #: The base that came damaged last: its digest, when it may be fetched again, what is wrong with it.
        self._damaged: tuple[str, float, ChainError] | None = None
        self._thread = threading.Thread(target=self._run, name=f"chain-{model}-{label}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(timeout=10)
        if self._topic is not None:
            self._topic.close()

    # --- the thread ---

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                self._turn()
            except (ChainError, TopicTrimmed, BeyondEnd, RecordsLost) as error:
                self._tell("error", "chain_stopped", error)
                self._guarded_resync(full=error.code == FULL)
            except (PenstockError, OSError, ValueError, RuntimeError) as error:
                self._tell("error", "chain_not_read", error)
                self._ends.wait(PAUSE_S)

    def _guarded_resync(self, *, full: bool) -> None:
        try:
            self._resync(full=full)
        except (PenstockError, OSError, ValueError, RuntimeError) as error:
            self._tell("error", "chain_not_resynced", error)
        self._ends.wait(PAUSE_S)

    def _turn(self) -> None:
        """One read, and what comes of it."""
        handle = self._host.following(self.model, self.label)
        if handle is None:
            self._ends.wait(WAIT_S)
            return
        if self._topic is None:
            self._topic = open_topic(self.address, create=False)
        if self._handle is None or not handle.is_same(self._handle):
            self._begin(handle)
        asked_ms = int(time.time() * 1000)
        batch = self._topic.read(self._partition, self._offset, wait_s=WAIT_S)
        for record in batch.records:
            found = self._assembler.take(record)
            if isinstance(found, Begin):
                self._standing.begins(found)
            elif isinstance(found, Whole | Broken):
                # After an error, reading begins anew where the delta does.
                again, self._assembler = self._assembler, Assembler(self.chain)
                self._offset = found.first if isinstance(found, Whole) else record.offset
                if self._standing.judge(found) and isinstance(found, Whole):
                    self._apply(found)
                self._assembler = again
            self._offset = record.offset + 1
        self._offset = batch.next
        if not batch.records:
            self._caught_up(asked_ms)

    @property
    def _partition(self) -> int:
        assert self._topic is not None
        return self._topic.partition_of(self.chain.encode())

    def _begin(self, handle: native.Following) -> None:
        """With a version as it was just opened: from where its bundle stands, or from a newer base."""
        assert self._topic is not None
        base = newest_base(self._topic, self.chain)
        head, root, offset = self._place(base)
        handle.stands_at(head.generation, head.sequence)
        self._stand(head, root, offset)
        self._staged = False
        if base is not None and base.head > head:
            self._take(base, handle)
        self._handle = handle

    def _place(self, base: Base | None) -> tuple[ChainHead, str, int]:
        """Where the version stands by itself: its head, what that head's generation began from, and where to read on.

        As the newest base, if it is that; as its manifest says, if the topic has what that names; else it is what a
        generation may begin from.
        """
        assert self._topic is not None
        if base is not None and base.digest == self.bundle.digest:
            return base.head, base.root, base.offset
        said = self.bundle.manifest.get("chain", {})
        if said.get("name") == self.chain:
            head = ChainHead(self.chain, int(said.get("generation", 0)), int(said.get("sequence", 0)))
            root, last = str(said.get("base", "")), int(said.get("offset", -1))
            if holds(self._topic, head, root, last):
                return head, root, last + 1
        return ChainHead(self.chain, 0, 0), self.bundle.digest, self._topic.start(self._partition)

    def _stand(self, head: ChainHead, root: str, offset: int) -> None:
        """Deltas are laid over a base of this head."""
        assert self._topic is not None
        self._base = head
        self._standing = Standing(head, plan=str(self.bundle.manifest.get("plan") or ""), base=root)
        self._assembler = Assembler(self.chain)
        self._offset = max(offset, self._topic.start(self._partition))

    def _apply(self, delta: Whole) -> None:
        assert self._handle is not None
        try:
            self._handle.apply([part.record for part in delta.records], delta.generation, delta.to)
        except ValueError as error:
            raise ChainError(
                f"chain of '{self.chain}': delta {delta.generation}:{delta.to} cannot be applied: {error}",
                "a newer base is taken as soon as there is one; is the overlay too small (overlay_mb)?", FULL,
            ) from None  # fmt: skip
        self._standing.applied(delta)
        if not self._staged:
            self._handle.is_current(int(delta.more.get("published_ms", 0)))

    def _caught_up(self, at_ms: int) -> None:
        assert self._handle is not None
        if self._staged:
            self._handle.show()
            self._staged = False
            head = self._standing.head
            at = {"generation": head.generation, "sequence": head.sequence}
            log("info", "chain_rebased", model=self.model, version=self.label, **at)
        self._handle.is_current(at_ms)
        self._said = ""

    # --- going on from a newer base ---

    def _resync(self, *, full: bool) -> None:
        """Take the newest base, if it leads past what stopped this: where that is the next delta, it must be newer than
        what was applied; where all that was laid over has no room (`full`), than the base under it, for less is laid
        over that one. What is shown stays meanwhile."""
        if self._topic is None or self._handle is None:
            return
        base = newest_base(self._topic, self.chain)
        if base is not None and base.head > (self._base if full else self._standing.head):
            self._take(base, self._handle)

    def _take(self, base: Base, handle: native.Following) -> None:
        plan = str(self.bundle.manifest.get("plan") or "")
        if base.plan != plan:
            raise ChainError(
                f"chain of '{self.chain}': its base {base.address} is of the plan {base.plan}; here it is {plan}",
                "serve a version with that plan as a model of its own, then switch", "CHAIN008",
            )  # fmt: skip
        with self._fetched(base) as folder:
            handle.stage(folder, base.head.generation, base.head.sequence)
        self._staged = True
        self._stand(base.head, base.root, base.offset)
        log("info", "chain_base", model=self.model, version=self.label, base=base.address,
            generation=base.head.generation, sequence=base.head.sequence)  # fmt: skip

    @contextmanager
    def _fetched(self, base: Base) -> Iterator[Path]:
        """The base's bundle on this machine, whole and the one that was announced. Once it is open it may go: what is
        mapped stays mapped."""
        with ExitStack() as stack:
            if base.address.startswith(MODELS):
                folder = stack.enter_context(held(base.address))
                digest = folder.name
            else:
                folder = self._local(base)
                digest = bundles.digest_of_folder(folder)
            self._compare(base, digest)
            yield folder

    def _compare(self, base: Base, digest: str) -> None:
        if digest != base.digest:
            said = f"chain of '{self.chain}': the base at {base.address} is {digest}, announced was {base.digest}"
            raise ChainError(said, "was it written anew? announce what is there", "CHAIN012")

    def _local(self, base: Base) -> Path:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        system, path = fsspec.core.url_to_fs(base.address)
        if isinstance(system, LocalFileSystem):
            return Path(path)
        folder = self._bases / base.digest
        if not folder.is_dir():
            if self._damaged is not None and self._damaged[0] == base.digest and time.monotonic() < self._damaged[1]:
                raise self._damaged[2].with_traceback(None)
            coming = self._bases / f"{base.digest}.coming"
            shutil.rmtree(self._bases, ignore_errors=True)  # what is mapped stays mapped
            coming.parent.mkdir(parents=True, exist_ok=True)
            system.get(path, str(coming), recursive=True)
            try:
                self._check(base, coming)
            except ChainError as error:
                self._damaged = base.digest, time.monotonic() + AGAIN_S, error
                raise
            coming.rename(folder)
        return folder

    def _check(self, base: Base, coming: Path) -> None:
        """What was fetched is what was announced, file by file."""
        try:
            self._compare(base, bundles.digest_of_folder(coming))
            bundles.check_files(coming, bundles.read_manifest(coming)["files"])
        except BundleError as error:
            said = f"chain of '{self.chain}': the base at {base.address} did not come whole: {error.message}"
            raise ChainError(
                said, "look at what lies there; it is fetched again, or the next one", "CHAIN012"
            ) from None

    def _tell(self, level: str, event: str, error: Exception) -> None:
        """Once, until it goes on."""
        if str(error) != self._said:
            self._said = str(error)
            log(level, event, model=self.model, version=self.label, error=str(error))

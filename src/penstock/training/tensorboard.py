"""Numbers of a training run as TensorBoard shows them: `tensorboard --logdir FOLDER`.

tensorboardX writes the records (its `EventsWriter`, in the caller's thread). Its `SummaryWriter` is not used: it writes
in a thread that dies of a full disk, and from the queue's length on `add_scalar` waits forever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from penstock.errors import PenstockError, RequestError

FLUSH_EVERY_S = 5.0


class ScalarLog:
    """One event file in `folder`, which is made if need be; a run that is resumed adds another.

    resume_step: the step that a resumed run goes on from. What a killed run wrote from that step on is then left out by
    TensorBoard, and the curves go on where the checkpoint was.
    Raises `RequestError` where tensorboardX is not installed, `PenstockError` where the file cannot be written.
    """

    def __init__(self, folder: Path | str, resume_step: int | None = None) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError as why:
            raise RequestError(
                "TensorBoard files need tensorboardX, which is not installed", "pip install 'penstock[deep]'"
            ) from why
        self._event = Event
        self.folder = Path(folder)
        self._flushed_s = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Its name has the second and the host; a run killed and resumed within the second must not be written over.
            self._writer = EventsWriter(str(self.folder / "events"), f".{os.getpid()}.{time.time_ns() % 10**9:09d}")
            if resume_step is not None:
                self._write(Event(step=resume_step, session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()
        except OSError as why:
            raise self._fault(why) from why

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write the values of a step; None is left out. On disk within five seconds, or when another is added."""
        summary = [{"tag": name, "simple_value": value} for name, value in values.items() if value is not None]
        try:
            self._write(self._event(step=step, summary={"value": summary}))
            if time.monotonic() - self._flushed_s >= FLUSH_EVERY_S:
                self._writer.flush()
                self._flushed_s = time.monotonic()
        except OSError as why:
            raise self._fault(why) from why

    def close(self) -> None:
        try:
            self._writer.close()
        except OSError as why:
            raise self._fault(why) from why

    def _write(self, event: object) -> None:
        event.wall_time = time.time()  # type: ignore[attr-defined]
        self._writer.write_event(event)

    def _fault(self, why: OSError) -> PenstockError:
        return PenstockError(
            f"the TensorBoard file in {self.folder} cannot be written: {why.strerror or why}",
            "make room there, or train without TensorBoard files",
        )

"""Where rejected rows go: one line a row with file, line, column, reason and the row's own text."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from penstock.data import remote
from penstock.data.stores import is_remote, local_path, storing

FIELDS = ("file", "line", "column", "reason", "text")


class RejectFile:
    """Collects the rejects of one reading; CSV by suffix, else JSON lines. The file appears, whole, when reading ends.

    Two readings of the same input write the same rows, so whichever ends last may win.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.rows = 0
        self._stream: IO[str] | None = None
        self._aside = Path()

    def add(self, file: str, rows: list[tuple[int, str, str, str]]) -> None:
        self.rows += len(rows)
        if not self.location or not rows:
            return
        stream = self._open()
        with storing(self.location):
            if self._is_csv():
                csv.writer(stream, lineterminator="\n").writerows((file, *row) for row in rows)
            else:
                for row in rows:
                    stream.write(json.dumps(dict(zip(FIELDS, (file, *row), strict=True)), ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """Put the file in place, even when nothing was rejected: who reads it need not ask whether it is there."""
        if not self.location:
            return
        stream = self._open()
        with storing(self.location):
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
            if is_remote(self.location):
                remote.put_file(self._aside, self.location)
                self._aside.unlink()
            else:
                self._aside.replace(local_path(self.location))

    def abandon(self) -> None:
        """The reading failed: leave the old file as it was."""
        if self._stream is not None:
            self._stream.close()
            with suppress(OSError):
                self._aside.unlink()

    def _is_csv(self) -> bool:
        return self.location.lower().endswith(".csv")

    def _open(self) -> IO[str]:
        if self._stream is None:
            with storing(self.location):
                folder: Path | None = None
                if not is_remote(self.location):
                    folder = local_path(self.location).parent
                    folder.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=".penstock-rejects-", dir=folder)
                os.fchmod(handle, 0o644)
                self._aside = Path(name)
                self._stream = open(handle, "w", encoding="utf-8", newline="")  # noqa: SIM115, PTH123
                if self._is_csv():
                    csv.writer(self._stream, lineterminator="\n").writerow(FIELDS)
        return self._stream

"""What is remembered of runs: SQLite (WAL) beside a folder a run, shared safely by any number of runners.

The store lies in `$PENSTOCK_HOME`, else in `.penstock/` beside the flow. `runs/RUN/` holds a run's nodes (spec, events,
log, result of each attempt), the outputs that have no path of their own, and report.html. A runner holds its run's
lock (flock) while it lives, which is how anybody else tells a live run from one whose runner was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.data.home import HOME
from penstock.errors import PenstockError, RequestError, did_you_mean
from penstock.flow.records import CacheEntry, NodeRecord, NodeStatus, RunRecord, RunStatus, StoredOutput

SCHEMA_VERSION = 1
#: Another runner's transaction takes milliseconds; a laptop that slept takes longer.
BUSY_S = 30.0

_TABLES = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, flow TEXT NOT NULL, flow_file TEXT NOT NULL, date TEXT NOT NULL, params TEXT NOT NULL,
    only TEXT NOT NULL, status TEXT NOT NULL, started REAL NOT NULL, ended REAL, pid INTEGER, host TEXT
) STRICT;
CREATE INDEX runs_by_flow ON runs (flow_file, started);
CREATE TABLE nodes (
    run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, node TEXT NOT NULL, position INTEGER NOT NULL,
    status TEXT NOT NULL, key TEXT NOT NULL DEFAULT '', cached_from TEXT NOT NULL DEFAULT '',
    started REAL, ended REAL, error TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT '', lineage TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run, node)
) STRICT;
CREATE TABLE attempts (
    run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, node TEXT NOT NULL, attempt INTEGER NOT NULL,
    pid INTEGER NOT NULL, started REAL NOT NULL, ended REAL, outcome TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run, node, attempt)
) STRICT;
CREATE TABLE outputs (
    run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, node TEXT NOT NULL, output TEXT NOT NULL,
    path TEXT NOT NULL, rows INTEGER, size_bytes INTEGER NOT NULL, content TEXT NOT NULL, stat TEXT NOT NULL,
    PRIMARY KEY (run, node, output)
) STRICT;
CREATE TABLE cache (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, node TEXT NOT NULL, made REAL NOT NULL,
    result TEXT NOT NULL, outputs TEXT NOT NULL
) STRICT;
"""


def new_run_id() -> str:
    """Sorts by time; unique without asking anybody."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class RunStore:
    """Open it with `RunStore.open(folder)`. Every method is one transaction; any number of processes may share it."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    @classmethod
    def open(cls, folder: Path, create: bool = True) -> RunStore:
        """Raises `PenstockError` where the folder cannot be used or was written by a newer Penstock."""
        file = folder / "store.sqlite"
        if not create and not file.exists():
            raise RequestError(f"there are no runs in {folder}", "run a flow first: penstock flow run FILE", "RUN010")
        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            ignore = folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            connection = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            # NORMAL: a killed process loses nothing; a power cut may lose the last rows, whose nodes then run again.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            store = cls(folder, connection)
            store._migrate()
        except (OSError, sqlite3.Error) as error:
            raise _unusable(folder, str(error.strerror if isinstance(error, OSError) else error)) from error
        return store

    def close(self) -> None:
        self._db.close()

    def _migrate(self) -> None:
        with self.transaction():
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in _TABLES.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif found > SCHEMA_VERSION:
                raise PenstockError(
                    f"the run store {self.folder} was written by a newer Penstock (schema {found})",
                    f"update Penstock, or set {HOME} to another folder",  # noqa: S608
                    "RUN011",
                )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, even when the process is killed in the middle. Raises `PenstockError` on a full disk."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable(self.folder, str(error)) from error

    # --- runs ---

    def run_folder(self, run: str) -> Path:
        return self.folder / "runs" / run

    def add_run(self, record: RunRecord, nodes: Sequence[str]) -> None:
        with self.transaction():
            self._db.execute(
                "INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (record.run, record.flow, record.flow_file, record.date, _json(record.params), _json(record.only),
                 record.status, record.started, None, os.getpid(), os.uname().nodename),
            )  # fmt: skip
            self._add_nodes(record.run, nodes)

    def reopen_run(self, run: str, nodes: Sequence[str]) -> None:
        """A run goes on under a new runner; what was running or failed waits again."""
        with self.transaction():
            self._db.execute("UPDATE runs SET status='running', ended=NULL, pid=? WHERE run=?", (os.getpid(), run))
            self._db.execute("UPDATE nodes SET status='waiting', error='' WHERE run=? AND status!='done'", (run,))
            self._add_nodes(run, nodes)

    def _add_nodes(self, run: str, nodes: Sequence[str]) -> None:
        self._db.executemany(
            "INSERT INTO nodes (run, node, position, status) VALUES (?,?,?,'waiting') "
            "ON CONFLICT DO UPDATE SET position=excluded.position",
            [(run, node, position) for position, node in enumerate(nodes)],
        )

    def end_run(self, run: str, status: RunStatus) -> None:
        with self.transaction():
            self._db.execute("UPDATE runs SET status=?, ended=? WHERE run=?", (status, time.time(), run))
            left = "interrupted" if status == "interrupted" else "skipped"
            self._db.execute("UPDATE nodes SET status=? WHERE run=? AND status IN ('waiting','running')", (left, run))

    def runs(self, flow_file: str | None = None) -> list[RunRecord]:
        """Newest first."""
        rows = self._db.execute(
            "SELECT * FROM runs WHERE flow_file=coalesce(?, flow_file) ORDER BY started DESC, run DESC", (flow_file,)
        )
        return [_run(row) for row in rows]

    def run(self, run: str) -> RunRecord:
        """By its name or an unambiguous beginning of it. Raises `RequestError`."""
        rows = self._db.execute(
            "SELECT * FROM runs WHERE run=? OR substr(run, 1, length(?))=? ORDER BY run=? DESC", (run, run, run, run)
        ).fetchall()
        if not rows or (len(rows) > 1 and rows[0]["run"] != run):
            known = [r.run for r in self.runs()]
            few = f"'{run}' begins several runs" if rows else f"there is no run '{run}' in {self.folder}"
            raise RequestError(few, did_you_mean(run, known, "penstock flow runs lists them"), "RUN010")
        return _run(rows[0])

    def delete_run(self, run: str) -> None:
        inside = f"{self.run_folder(run)}/"
        with self.transaction():
            self._db.execute("DELETE FROM runs WHERE run=?", (run,))
            for row in self._db.execute("SELECT key, outputs FROM cache WHERE run=?", (run,)).fetchall():
                if any(o["path"].startswith(inside) for o in json.loads(row["outputs"]).values()):
                    self._db.execute("DELETE FROM cache WHERE key=?", (row["key"],))

    # --- locks ---

    def lock(self, run: str) -> int | None:
        """Hold the run as its runner; None when another live runner does. The kernel lets go when we die."""
        folder = self.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        return handle

    def runner(self, run: str) -> int:
        """The process that runs it now; 0 when none does."""
        with suppress(OSError):
            handle = os.open(self.run_folder(run) / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                said = os.read(handle, 20)
                return int(said) if said.isdigit() else -1
            finally:
                os.close(handle)
        return 0

    # --- nodes ---

    def nodes(self, run: str) -> list[NodeRecord]:
        return [_node(row) for row in self._db.execute("SELECT * FROM nodes WHERE run=? ORDER BY position", (run,))]

    def start_node(self, run: str, node: str, key: str, attempt: int, pid: int, lineage: Mapping[str, Any]) -> None:
        now = time.time()
        with self.transaction():
            self._db.execute(
                "UPDATE nodes SET status='running', key=?, started=?, ended=NULL, lineage=? WHERE run=? AND node=?",
                (key, now, _json(lineage), run, node),
            )
            self._db.execute(
                "INSERT OR REPLACE INTO attempts (run, node, attempt, pid, started) VALUES (?,?,?,?,?)",
                (run, node, attempt, pid, now),
            )

    def set_pid(self, run: str, node: str, attempt: int, pid: int) -> None:
        with self.transaction():
            self._db.execute(
                "UPDATE attempts SET pid=? WHERE run=? AND node=? AND attempt=?", (pid, run, node, attempt)
            )

    def end_attempt(self, run: str, node: str, attempt: int, outcome: str) -> None:
        with self.transaction():
            self._db.execute(
                "UPDATE attempts SET ended=?, outcome=? WHERE run=? AND node=? AND attempt=?",
                (time.time(), outcome, run, node, attempt),
            )

    def attempts(self, run: str) -> list[sqlite3.Row]:
        return self._db.execute("SELECT * FROM attempts WHERE run=? ORDER BY started", (run,)).fetchall()

    def finish_node(
        self, run: str, node: str, key: str, result: Mapping[str, Any], outputs: Mapping[str, StoredOutput],
        *, cached_from: str, cacheable: bool, lineage: Mapping[str, Any], started: float, ended: float,
    ) -> None:  # fmt: skip
        """The node is done: its outputs, and what the cache may give to later runs, become known in one step."""
        with self.transaction():
            self._db.execute(
                "UPDATE nodes SET status='done', key=?, cached_from=?, started=?, ended=?, error='', hint='', code='', "
                "result=?, lineage=? WHERE run=? AND node=?",
                (key, cached_from, started, ended, _json(result), _json(lineage), run, node),
            )
            self._db.execute("DELETE FROM outputs WHERE run=? AND node=?", (run, node))
            self._db.executemany(
                "INSERT INTO outputs VALUES (?,?,?,?,?,?,?,?)",
                [(run, node, name, o.path, o.rows, o.size_bytes, o.content, o.stat) for name, o in outputs.items()],
            )
            if cacheable:
                self._db.execute(
                    "INSERT OR REPLACE INTO cache VALUES (?,?,?,?,?,?)",
                    (key, run, node, ended, _json(result), _json({n: vars(o) for n, o in outputs.items()})),
                )

    def fail_node(self, run: str, node: str, status: NodeStatus, error: str, hint: str, code: str) -> None:
        with self.transaction():
            self._db.execute(
                "UPDATE nodes SET status=?, started=coalesce(started, ?), ended=?, error=?, hint=?, code=? "
                "WHERE run=? AND node=?",
                (status, time.time(), time.time(), error, hint, code, run, node),
            )

    def outputs(self, run: str) -> dict[tuple[str, str], StoredOutput]:
        """(node, output) -> what it left."""
        rows = self._db.execute("SELECT * FROM outputs WHERE run=? ORDER BY node, output", (run,))
        return {(r["node"], r["output"]): _output(r) for r in rows}

    def wrote(self, path: str) -> bool:
        """Whether a run on record left an output at this path."""
        return self._db.execute("SELECT 1 FROM outputs WHERE path=? LIMIT 1", (path,)).fetchone() is not None

    # --- the cache ---

    def cached(self, key: str) -> CacheEntry | None:
        row = self._db.execute("SELECT * FROM cache WHERE key=?", (key,)).fetchone()
        if row is None:
            return None
        outputs = {name: StoredOutput(**o) for name, o in json.loads(row["outputs"]).items()}
        return CacheEntry(key, row["run"], row["node"], json.loads(row["result"]), outputs)

    def latest_output(self, flow_file: str, node: str, output: str) -> list[StoredOutput]:
        """What runs of this flow left for NODE.OUTPUT, newest first."""
        rows = self._db.execute(
            "SELECT o.* FROM outputs o JOIN runs r USING (run) JOIN nodes n USING (run, node) "
            "WHERE r.flow_file=? AND o.node=? AND o.output=? AND n.status='done' ORDER BY r.started DESC",
            (flow_file, node, output),
        )
        return [_output(r) for r in rows]


def _unusable(folder: Path, why: str) -> PenstockError:
    hint = f"is its disk full or read-only? {HOME} can name another folder for it"
    return PenstockError(f"the run store {folder} cannot be used: {why}", hint, "RUN011")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _run(row: sqlite3.Row) -> RunRecord:
    return RunRecord(row["run"], row["flow"], row["flow_file"], row["date"], json.loads(row["params"]),
                     tuple(json.loads(row["only"])), row["status"], row["started"], row["ended"],
                     row["pid"])  # fmt: skip


def _node(row: sqlite3.Row) -> NodeRecord:
    return NodeRecord(row["node"], row["status"], row["key"], row["cached_from"], row["started"], row["ended"],
                      row["error"], row["hint"], row["code"], json.loads(row["result"] or "{}"),
                      json.loads(row["lineage"] or "{}"))  # fmt: skip


def _output(row: sqlite3.Row) -> StoredOutput:
    return StoredOutput(row["path"], row["rows"], row["size_bytes"], row["content"], row["stat"])

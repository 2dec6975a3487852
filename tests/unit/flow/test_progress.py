"""A terminal gets a live table, anything else plain lines; both on stderr only."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.flow.progress import PlainProgress, activity, said_seconds, watcher

FLOW = """<flow xmlns="urn:penstock:flow:1" name="f">
  <node name="slowly" engine="command"><arg>sh</arg><arg>-c</arg>
    <arg>sleep 0.5; echo 1 > "$PENSTOCK_OUT_o"</arg><output name="o" type="text"/></node>
</flow>"""


def test_what_is_not_a_terminal_gets_lines() -> None:
    assert isinstance(watcher(io.StringIO()), PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.004, "0.00 s"), (9.994, "9.99 s"), (12.34, "12.3 s"), (185, "3:05"), (3723, "1:02:03")]
)
def test_durations_read_like_a_persons(seconds: float, text: str) -> None:
    assert said_seconds(seconds) == text


def test_an_event_is_one_short_line() -> None:
    assert activity({"step": "m", "message": "tree", "done": 3, "total": 200}) == "m tree 3 of 200"
    assert activity({"step": "kept", "rows": 1_200_000}) == "kept 1,200,000 rows"
    assert len(activity({"step": "s", "message": "x" * 500})) <= 70


def test_a_terminal_sees_the_table_and_stdout_stays_clean(tmp_path: Path) -> None:
    (tmp_path / "f.xml").write_text(FLOW)
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "TERM": "xterm",
        "COLUMNS": "100",
        "XDG_STATE_HOME": str(tmp_path),
        "PENSTOCK_HOME": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli", "flow", "run", "f.xml", "--json"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
        elif process.poll() is not None:
            break
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    screen = seen.decode("utf-8", "replace")
    assert process.returncode == 0, screen
    assert "slowly" in screen and "rows/s" in screen and "running" in screen and "done" in screen
    assert out.startswith(b'{"run"') and out.count(b"\n") == 1

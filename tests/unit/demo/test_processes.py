"""What the demo starts it ends: on failure, on Ctrl-C, when it is killed; and says which log tells why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.demo.processes import Program, Programs
from penstock.errors import PenstockError
from penstock.streams import open_topic

JOIN = """name = "j"
state = "state"
metrics = "127.0.0.1:0"
[impressions]
topic = "log:i"
[feedback]
topic = "log:f"
[samples]
topic = "log:s"
[types.click]
window = "1s"
"""


@pytest.fixture
def join(tmp_path: Path) -> Path:
    for name in "ifs":
        open_topic(f"log:{tmp_path / name}").close()
    path = tmp_path / "join.toml"
    path.write_text(JOIN)
    return path


def started(programs: Programs, join: Path) -> Program:
    program = programs.start("join", "online", "join", str(join), "--json")
    assert programs.said(program, r"http://(\S+)/metrics")[1].startswith("127.0.0.1:")
    return program


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_program_that_is_stopped_gives_what_it_printed(tmp_path: Path, join: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        program = started(programs, join)
        programs.check()
        assert programs.stop(program).strip() == "{}"
    assert program.process.returncode == 0


def test_one_that_fails_is_named_with_its_log_and_the_others_are_ended(tmp_path: Path, join: Path) -> None:
    with pytest.raises(PenstockError) as failed, Programs(tmp_path / "logs") as programs:
        other = started(programs, join)
        bad = programs.start("serving", "serve", str(tmp_path / "nothing.toml"))
        programs.said(bad, r"serving http=(\S+)")
    assert "`penstock serve" in failed.value.message and "ended with 2" in failed.value.message
    assert str(tmp_path / "logs" / "serving.log") in failed.value.hint
    assert "nothing.toml" in (tmp_path / "logs" / "serving.log").read_text()
    assert other.process.returncode == 0


def test_what_fails_beside_them_is_told_with_their_logs(tmp_path: Path, join: Path) -> None:
    with pytest.raises(PenstockError) as failed, Programs(tmp_path / "logs") as programs:
        program = started(programs, join)
        raise PenstockError("the host did not answer", "is it running?")
    assert failed.value.hint == f"is it running?; logs: {tmp_path / 'logs'}/*.log"
    assert program.process.returncode == 0
    with pytest.raises(PenstockError, match=r"online join.*ended with -9"), Programs(tmp_path / "logs") as programs:
        program = started(programs, join)
        program.process.kill()
        program.process.wait()
        raise PenstockError("the topic is silent")


def test_where_the_demo_is_killed_its_programs_end_too(tmp_path: Path, join: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from penstock.demo.processes import Programs\n"
        f"with Programs(Path({str(tmp_path / 'logs')!r})) as programs:\n"
        f"    program = programs.start('join', 'online', 'join', {str(join)!r})\n"
        "    programs.said(program, 'metrics'); print(program.process.pid, flush=True); time.sleep(100)\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    pid = int(demo.stdout.readline())
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    demo.stdout.close()
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline, "it was left behind"
        time.sleep(0.05)

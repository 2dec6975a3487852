"""How the command engine starts a program: none of the worker's Python runs in it, and it ends when the worker does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.engines import NodeResult, NodeSpec


def worker(folder: Path, *arguments: str, before: str = "", **environment: str) -> subprocess.Popen[bytes]:
    """A worker on one command node; `before` runs in it first."""
    spec = NodeSpec(run="r", node="n", engine="command", folder=str(folder), flow_dir=str(folder), args=arguments)
    (folder / "spec.json").write_text(spec.model_dump_json())
    script = f"{before}\nimport sys\nfrom penstock.engines.worker import main\nsys.exit(main([sys.argv[1]]))"
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", script, folder / "spec.json"], stdout=subprocess.DEVNULL, stderr=log,
            process_group=0, env={**os.environ, **environment},
        )  # fmt: skip


def result(folder: Path) -> NodeResult:
    return NodeResult.model_validate_json((folder / "result.json").read_bytes())


def test_fork_handlers_of_the_workers_libraries_do_not_run_in_the_program(tmp_path: Path) -> None:
    # fsspec's handler takes a lock that another thread may hold at that moment; this one holds it for ever.
    before = "import os, threading; held = threading.Lock(); held.acquire()"
    before += "; os.register_at_fork(after_in_child=held.acquire)"
    run = worker(tmp_path, "sh", "-c", "echo done > out", before=before)
    try:
        assert run.wait(60) == 0
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert (tmp_path / "out").read_text() == "done\n"


def test_a_program_ends_with_its_worker_even_when_that_gets_no_word_out(tmp_path: Path) -> None:
    run = worker(tmp_path, "sh", "-c", "echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 300")
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.01)
    program = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{program}/cmdline").exists()
    run.kill()
    run.wait()
    while Path(f"/proc/{program}").exists() and "zombie" not in Path(f"/proc/{program}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_gets_the_workers_environment_its_streams_and_no_more(tmp_path: Path) -> None:
    script = "cat /proc/$$/environ > environ; grep SigIgn /proc/$$/status > ignored; exec > fds; ls /proc/$$/fd"
    given = {"LANG": "C", "LC_ALL": "", "PYTHONCOERCECLOCALE": "0", "ODD": "a=b\nc"}
    run = worker(tmp_path, "sh", "-c", script, **given)
    assert run.wait(60) == 0, (tmp_path / "log").read_text()
    found = dict(entry.split(b"=", 1) for entry in (tmp_path / "environ").read_bytes().split(b"\0") if entry)
    wanted = {**os.environ, **given, "PENSTOCK_RUN": "r", "PENSTOCK_NODE": "n", "PENSTOCK_ATTEMPT": "1"}
    assert {name: found.pop(name.encode(), b"").decode() for name in wanted} == wanted
    assert set(found) <= {b"PWD", b"OLDPWD", b"_", b"SHLVL"}, "what sh itself sets"
    assert set((tmp_path / "fds").read_text().split()) == {"0", "1", "2"}
    ignored = int((tmp_path / "ignored").read_text().split()[1], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_arguments_arrive_as_they_are_and_an_exit_status_comes_back(tmp_path: Path, locale: str) -> None:
    script = 'printf "%s|" "$@" > out; echo said; exit 3'
    run = worker(tmp_path, "sh", "-c", script, "sh", "caf\u00e9", "", "-c", "a b", LC_ALL=locale)
    assert run.wait(60) == 1
    assert (tmp_path / "out").read_text("utf-8") == "caf\u00e9||-c|a b|"
    assert "said" in (tmp_path / "log").read_text()
    assert "ended with exit status 3" in (result(tmp_path).error or "")


@pytest.mark.parametrize(
    ("mode", "content", "said", "hint"),
    [
        (0o644, "#!/bin/sh\n", "cannot start '{}': Permission denied", "chmod +x"),
        (0o755, "#!/no/such/interpreter\n", "cannot start '{}': there is no such program", "names an interpreter"),
        (0o755, "echo no first line\n", "cannot start '{}': Exec format error", ""),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, mode: int, content: str, said: str, hint: str) -> None:
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(mode)
    assert worker(tmp_path, "./program").wait(60) == 1
    found = result(tmp_path)
    assert found.code == "RUN007" and said.format(program) in (found.error or "") and hint in (found.hint or "")

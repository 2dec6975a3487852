"""A page of docs/ as a person follows it: its files are written, its commands typed; what it shows is what must come.

What a page may hold: ```console blocks (`$ ` begins a command, `> ` goes on with it, the rest is what it shows; `...`
is anything) and files, whose first line is `# NAME` (`<!-- NAME -->` in XML). `penstock serve FILE`, `penstock online
run FILE` and `join FILE` stay in the foreground of a terminal of their own each until the page ends, or serves again.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"(?:# |<!-- )([\w./-]+\.\w+)(?: -->)?\n")
STAYS = re.compile(r"penstock (serve|online run|online join) (?!.*--check)")
#: Commands that only look: typed again where they do not show yet what the page says, as a person would.
LOOKS = ("curl ", "penstock release status ", "python users.py", "python ask.py", "python guest.py 0")
PATIENCE_S, COMMAND_S = 30.0, 300.0
#: Ports of the pages; somebody else's here.
PORTS = ("8000", "8001", "9464")


@dataclass(frozen=True)
class Step:
    """A file to write (`name`) or a command to type (`command`), and what it shows. `line`: where the page has it."""

    line: int
    name: str = ""
    text: str = ""
    command: str = ""


def steps_of(page: str) -> Iterator[Step]:
    for block in BLOCK.finditer(page):
        line = page.count("\n", 0, block.start()) + 1
        kind, text = block[1], block[2]
        named = NAME.match(text)
        if kind == "console":
            yield from _commands(text, line + 1)
        elif named:
            yield Step(line, name=named[1], text=text)
        else:
            raise AssertionError(f"line {line}: a block of '{kind}' is neither typed nor a file: begin it with # NAME")


def _commands(text: str, line: int) -> Iterator[Step]:
    command, shown, at = "", [], line
    for number, each in enumerate(text.splitlines(), line):
        if each.startswith("$ "):
            if command:
                yield Step(at, command=command, text="\n".join(shown))
            command, shown, at = each[2:], [], number
        elif each.startswith("> ") and not shown:
            command += "\n" + each[2:]
        else:
            assert command, f"line {number}: something is shown before anything was typed"
            shown.append(each)
    assert command, f"line {line}: a console without a command"
    yield Step(at, command=command, text="\n".join(shown))


def shows(expected: str, came: str) -> bool:
    """Whether it is what the page shows; a line of `...` is any lines, `...` within one anything of it."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part.rstrip()) for part in re.split(r"\.{3}(?!\.)", line)) + r"[^\S\n]*\n"
    spaced = re.sub(r"(?:\\ )+", r"[^\\S\\n]+", pattern)
    return re.fullmatch(spaced, came.rstrip("\n") + "\n" if came.strip() else "") is not None


class Person:
    """Follows pages in one folder; `close` leaves nothing running."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.home = folder
        #: What stays in the foreground of terminals, by command.
        self.terminals: dict[str, subprocess.Popen[str]] = {}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"HOME": folder, "PENSTOCK_HOME": folder / "home", "PATH": path}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "XDG_"))}
        self.environment = {**kept, **{name: str(value) for name, value in own.items()}, "PYTHONWARNINGS": "ignore"}

    def follow(self, page: Path) -> int:
        """Do what it says; how many steps it was. Raises AssertionError with the page's line where it is not so."""
        text = page.read_text(encoding="utf-8")
        for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
            text = text.replace(f":{port}", f":{free}")
        count = 0
        for count, step in enumerate(steps_of(text), 1):  # noqa: B007
            where = f"{page.name}:{step.line}"
            if step.name:
                (self.folder / step.name).write_text(step.text, encoding="utf-8")
            elif stays := STAYS.match(step.command):
                self._stay(stays[1], step, where)
            else:
                self._type(step, where)
        self.close()
        return count

    def _type(self, step: Step, where: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while True:
            after = self.home / ".pwd"
            command = f"{step.command}\nstatus=$?; pwd > {shlex.quote(str(after))}; exit $status"
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, env=self.environment, text=True, timeout=COMMAND_S,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode == 0 and shows(step.text, done.stdout):
                break
            if not step.command.startswith(LOOKS) or time.monotonic() > ends:
                said = f"exit {done.returncode}, and showed\n{done.stdout}\nThe page shows\n{step.text}"
                raise AssertionError(f"{where}: {step.command}\n{said}{self._log()}")
            time.sleep(0.2)
        self.folder = Path(after.read_text().strip())

    def _stay(self, kind: str, step: Step, where: str) -> None:
        """Type it in a terminal of its own, and wait for what it shows."""
        self._end(kind)
        terminal = self.terminals[kind] = subprocess.Popen(
            ["bash", "-c", f"exec {step.command}"], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if step.text:
            assert terminal.stdout is not None
            came, _, _ = select.select([terminal.stdout], [], [], 120)
            line = terminal.stdout.readline() if came else ""
            assert shows(step.text, line), f"{where}: {step.command}\nshowed {line!r}{self._log()}"

    def _log(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "".join(f"\n{log.name}: {log.read_text()[-2000:]}" for log in logs)

    def close(self) -> None:
        """Ctrl-C in every terminal; what ran there must end well."""
        for kind in reversed(list(self.terminals)):
            self._end(kind)

    def _end(self, kind: str) -> None:
        terminal = self.terminals.pop(kind, None)
        if terminal is None:
            return
        terminal.send_signal(signal.SIGINT)
        try:
            code = terminal.wait(30)
        except subprocess.TimeoutExpired:
            terminal.kill()
            terminal.wait()
            raise
        finally:
            if terminal.stdout is not None:
                terminal.stdout.close()
        assert code == 0, f"`penstock {kind}` ended with {code}{self._log()}"


def free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for each in taken:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports

"""What every benchmark shares: peers in environments of their own, alternating rounds, ratios with their spread.

A benchmark measures each contender once a round, all in the same round, so that a slow minute of the machine hits
everybody. A typical one:

    options = harness.arguments(__doc__)
    peer = harness.Peer("kedro", harness.peer_python("kedro"), HERE / "peers" / "kedro_flow.py", {"nodes": 20})
    rounds = harness.alternate({"ours": ours, "kedro": lambda: peer.ask(case="in_process")}, options.rounds)
    harness.finish(harness.document("flow", "nodes/s", rounds, versions={"kedro": peer.version}), options)

A contender is a function that gives `{case: value}` for one round. A peer's script answers on stdout: one JSON line
for each JSON line on its stdin (first its version); `serve` below is that loop, for scripts that can import this file.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = HERE / ".peers"
#: contender -> case -> one value a round
Rounds = dict[str, dict[str, list[float]]]


def arguments(description: str | None, more: Callable[[argparse.ArgumentParser], None] | None = None) -> Any:
    """The options every benchmark takes: `--quick`, `--json`, `--rounds`. `more` adds its own."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller data, under three minutes once set up")
    parser.add_argument("--json", action="store_true", help="nothing on stdout but the last line")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every contender, at least 5 (default 5)")
    if more:
        more(parser)
    options = parser.parse_args()
    options.rounds = max(5, options.rounds)
    return options


def say(message: str) -> None:
    """For the person waiting: progress goes to stderr."""
    print(message, file=sys.stderr, flush=True)


# --- peers ---------------------------------------------------------------------------------------------------


def peer_python(name: str, python: str = sys.executable) -> Path:
    """The interpreter of a peer's own environment, built from requirements/NAME.txt when that file has changed.

    What stands in requirements/NAME.nodeps.txt is installed after it, without asking what it depends on.
    """
    wanted = HERE / "requirements" / f"{name}.txt"
    alone = wanted.with_suffix(".nodeps.txt")
    folder = PEERS / name
    stamp = folder / ".requirements"
    text = wanted.read_bytes() + (alone.read_bytes() if alone.exists() else b"")
    fingerprint = hashlib.sha256(text).hexdigest()
    if stamp.exists() and stamp.read_text() == fingerprint:
        return folder / "bin" / "python"
    say(f"setting up {name} in {folder.relative_to(HERE.parent)} ...")
    # The constraints of our own environment are not the peer's.
    environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [[*pip, "-r", wanted]] + ([[*pip, "--no-deps", "-r", alone]] if alone.exists() else [])
    for command in commands:
        for attempt in range(3):
            if subprocess.run(command, env=environment).returncode == 0:
                break
            if attempt == 2:
                raise SystemExit(f"error: cannot install {command[-1]}; hint: is the package index reachable?")
            time.sleep(5 * (attempt + 1))
    stamp.write_text(fingerprint)
    return folder / "bin" / "python"


class Peer:
    """A peer that stays up between rounds, so that imports and warm-up are not timed (or are, if it times them)."""

    def __init__(
        self,
        name: str,
        python: Path | str,
        script: Path,
        setup: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [str(python), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.version = str(self.ask(**(setup or {}))["version"])

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question, one answer. Raises SystemExit with what the peer said when it died."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
            sys.stderr.write(line)
        raise SystemExit(f"error: the peer {self.name} ended with status {self._process.wait()}; its words are above")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def serve(setup: Callable[[Mapping[str, Any]], str], answer: Callable[..., Mapping[str, Any]]) -> None:
    """A peer script's main: `setup(first question)` gives the version, then `answer(**question)` for each line.

    The real stdout is kept for answers; what the peer's libraries print goes to stderr.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    first = True
    for line in sys.stdin:
        question = json.loads(line)
        reply = {"version": setup(question)} if first else answer(**question)
        first = False
        out.write(json.dumps(reply) + "\n")
        out.flush()


# --- rounds and their result ---------------------------------------------------------------------------------


def alternate(contenders: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int) -> Rounds:
    """Measure every contender once a round; the order turns, so that nobody always comes after the same one."""
    names = list(contenders)
    found: Rounds = {name: {} for name in names}
    for turn in range(rounds):
        say(f"round {turn + 1} of {rounds}")
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            for case, value in contenders[name]().items():
                found[name].setdefault(case, []).append(float(value))
    return found


def document(
    bench: str,
    unit: str,
    rounds: Rounds,
    versions: Mapping[str, str],
    lower_is_better: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """The last line of CONTRACT §4. Ratios compare within a round; > 1 means ours is better.

    `lower_is_better` names the cases that are times rather than rates. `more` adds fields.
    """
    ratios: dict[str, dict[str, Any]] = {}
    for peer in versions:
        ratios[peer] = {}
        for case, theirs in rounds.get(peer, {}).items():
            ours = rounds["ours"].get(case)
            if not ours:
                continue
            each = [t / o if case in lower_is_better else o / t for o, t in zip(ours, theirs, strict=True)]
            ratios[peer][case] = figure(statistics.median(each))
            ratios[peer][f"{case}_spread"] = [figure(min(each)), figure(max(each))]
    return {
        "bench": bench,
        "unit": unit,
        "ours": medians(rounds["ours"]),
        "peers": {peer: {"version": version, **medians(rounds.get(peer, {}))} for peer, version in versions.items()},
        "ratios": ratios,
        **more,
        "machine": machine(),
    }


def medians(cases: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {case: figure(statistics.median(values)) for case, values in cases.items()}


def figure(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def finish(found: Mapping[str, Any], options: Any) -> None:
    """Print a table for people (unless --json), then the document as the last line of stdout."""
    if not options.json:
        print(f"\n{found['bench']} ({found['unit']})")
        for case, value in found["ours"].items():
            print(f"  {case:<28} ours {value:>12,.6g}")
            for peer, theirs in found["peers"].items():
                if case in theirs:
                    ratio = found["ratios"][peer][case]
                    low, high = found["ratios"][peer][f"{case}_spread"]
                    print(
                        f"  {'':<28} {peer} {theirs['version']} {theirs[case]:,.6g}   {ratio:g}x  [{low:g}, {high:g}]"
                    )
    print(json.dumps(found), flush=True)


def machine() -> str:
    """The processor, its cores, memory, kernel and Python: enough to doubt a figure by."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f}"
    )

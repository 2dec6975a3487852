"""How much an installation weighs, and how long `penstock --help` takes.

    make bench NAME=size

Builds the wheel, installs it into two fresh environments (core, and with the extra `local`), and measures what pip put
there: the environment with Penstock less the same environment without it, in MB (10^6 bytes) on disk. Goals: core
<= 550 MB, local <= 950 MB, `--help` <= 200 ms (median of 20 starts, page cache warm). Needs the package registry.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def size_bytes(folder: Path) -> int:
    """The disk blocks of every file, links not followed."""
    return sum(p.lstat().st_blocks * 512 for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def install(wheel: Path, extra: str, environment: Path) -> float:
    """Make an environment with the wheel in it; return what that added, in MB."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    before = size_bytes(environment)
    pip = environment / "bin" / "pip"
    subprocess.run([pip, "install", "--quiet", "--no-compile", f"{wheel}{extra}"], check=True, env=pinned())
    return round((size_bytes(environment) - before) / 1e6, 1)


def pinned() -> dict[str, str]:
    return {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def help_ms(environment: Path) -> list[float]:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        subprocess.run([environment / "bin" / "penstock", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: there is nothing to shorten")
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-size-") as temporary:
        folder = Path(temporary)
        build = [ROOT / ".venv" / "bin" / "maturin", "build", "--release", "--quiet", "--out", folder]
        subprocess.run(build, check=True, cwd=ROOT)
        wheel = next(folder.glob("*.whl"))
        core = install(wheel, "", folder / "core")
        times = help_ms(folder / "core")
        local = install(wheel, "[local]", folder / "local")
        wheel_mb = round(wheel.stat().st_size / 1e6, 1)
    if not options.json:
        print(f"wheel {wheel_mb} MB; core {core} MB (goal 550); local {local} MB (goal 950)")
        print(f"--help: median {statistics.median(times):.0f} ms, max {max(times):.0f} ms (goal 200)")
    cases = {"core_mb": core, "local_mb": local, "wheel_mb": wheel_mb, "help_ms": round(statistics.median(times), 1)}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"bench": "size", "unit": "MB", "ours": cases, "peers": {}, "ratios": {}, "machine": machine}))


if __name__ == "__main__":
    main()

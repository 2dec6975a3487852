"""A real HDFS for tests: a namenode and a datanode in one JVM, on free loopback ports."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = HERE.parents[2] / ".make" / "services" / "hdfs"
START_SECONDS = 90
MAVEN_SECONDS = 300


class NotInstalled(Exception):
    """Why there can be no HDFS on this machine."""


@dataclass(frozen=True)
class Hdfs:
    """A running one. `url` has no slash at its end."""

    url: str
    log: Path


def installed() -> Path:
    """The folder of jars and classes, filled once for this pom and program. Raises `NotInstalled`."""
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            raise NotInstalled(f"HDFS needs {program}, which is not installed")
    recipe = b"".join((HERE / name).read_bytes() for name in ("pom.xml", "MiniHdfs.java"))
    folder = INSTALLED / hashlib.sha256(recipe).hexdigest()[:12]
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / ".lock").open("w") as lock:  # several test processes may come at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            aside = INSTALLED / f".{folder.name}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            _fill(aside)
            aside.rename(folder)
    return folder


def _fill(folder: Path) -> None:
    mvn = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies",
           f"-DoutputDirectory={folder / 'jars'}"]  # fmt: skip
    javac = ["javac", "-cp", f"{folder / 'jars'}/*", "-d", str(folder / "classes"), str(HERE / "MiniHdfs.java")]
    for command in (mvn, javac):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotInstalled(f"{command[0]} did not end within {MAVEN_SECONDS} s") from error
        if done.returncode:
            raise NotInstalled(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-500:]}")


@contextmanager
def running(folder: Path) -> Iterator[Hdfs]:
    """Start one whose files are in `folder`; it ends with the block, or with this process."""
    place = installed()
    log, port = folder / "hdfs.log", folder / "port"
    command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
               "--add-opens", "java.base/java.lang=ALL-UNNAMED",
               f"-Dlog4j.configuration={(HERE / 'log4j.properties').as_uri()}",
               "-cp", f"{place / 'classes'}:{place / 'jars'}/*", "MiniHdfs", str(folder)]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HADOOP_")}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stream, stderr=stream, env=environment, cwd=folder
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not port.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                said = "ended" if process.poll() is not None else f"was not ready within {START_SECONDS} s"
                raise AssertionError(f"HDFS {said}; its log:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        yield Hdfs(f"hdfs://127.0.0.1:{port.read_text()}", log)
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

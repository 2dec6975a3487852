"""A real PostgreSQL for tests: one server on a free loopback port, in a folder of its own, stopped by its pid."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60
PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql")


class NotInstalled(Exception):
    """Why there can be no PostgreSQL on this machine."""


@dataclass(frozen=True)
class Postgres:
    """A running one."""

    port: int
    bin: Path

    def new_database(self) -> str:
        import psycopg

        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


def installed() -> Path:
    """The folder of initdb and postgres. Raises `NotInstalled`."""
    found = sorted(p.parent for place in PLACES for p in Path(place).glob("**/bin/initdb"))
    if found:
        return found[-1]
    program = shutil.which("initdb")
    if program is None:
        raise NotInstalled("PostgreSQL's server is not installed (apt install postgresql)")
    return Path(program).resolve().parent


@contextmanager
def running() -> Iterator[Postgres]:
    """Start one; it ends with the block. As root it runs as the user `postgres`, which it insists on."""
    place, root = installed(), os.geteuid() == 0
    if root:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            raise NotInstalled("PostgreSQL does not run as root, and there is no user 'postgres'") from None
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}
    folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))  # not pytest's: those only root may enter
    try:
        if root:
            shutil.chown(folder, "postgres", "postgres")
        data, log = folder / "data", folder / "log"
        options = ["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [place / "initdb", "-D", data, *options], capture_output=True, text=True, cwd=folder, **user
        )  # type: ignore[call-overload]
        if made.returncode:
            raise NotInstalled(f"initdb failed: {(made.stdout + made.stderr)[-500:]}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
        given = [text for key, value in settings.items() for text in ("-c", f"{key}={value}")]
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [place / "postgres", "-D", data, *given], stdout=stream, stderr=stream, cwd=folder, **user
            )  # type: ignore[call-overload]
        try:
            _wait(server, place, port, log)
            yield Postgres(port, place)
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: subprocess.Popen[bytes], place: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run([place / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"PostgreSQL did not start; its log:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)

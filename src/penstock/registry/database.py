"""The database behind a registry: SQLite in a folder, or PostgreSQL by URL; the schema kept up by alembic.

Reading never creates a registry: one that is lost must not come back empty. SQLite runs in WAL and writes begin with
BEGIN IMMEDIATE; on PostgreSQL writers share a lock that gc takes alone. A failure to reach it is `RegistryLost`
(REG005).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from penstock.data.stores import local_path
from penstock.errors import PenstockError, RequestError
from penstock.registry import tables
from penstock.registry.faults import RegistryLost

FILE = "registry.sqlite"
#: Another writer's transaction takes milliseconds; a laptop that slept takes longer.
BUSY_S = 30.0
#: Any number will do, as long as every host takes the same one.
_MIGRATION_LOCK, _WRITERS_LOCK = 5_170_422, 5_170_423


class Database:
    """One registry's rows. `read()` and `write()` give a connection in a transaction, all or nothing."""

    def __init__(self, url: str) -> None:
        """`url`: a folder, `sqlite:///FILE` or `postgresql://USER@HOST/NAME`. Raises `RequestError` for others."""
        self.url, self.file = _parsed(url)
        self.engine = _engine(self.url)
        self._current = False

    @property
    def is_sqlite(self) -> bool:
        return self.file is not None

    @property
    def name(self) -> str:
        """What errors and caches call it: without a password."""
        return str(self.file) if self.file else self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Raises `RegistryLost` where there is no registry or nobody answers."""
        if self.file is not None and not self.file.exists():
            said = f"there is no model registry at {self.file.parent}"
            raise RegistryLost(said, "penstock models push makes one, --registry names another", "REG005")
        with self._speaking():
            if not self._current:
                self._check(create=False)
            with self.engine.connect() as connection, connection.begin():
                yield connection

    @contextmanager
    def write(self, alone: bool = False) -> Iterator[Connection]:
        """Makes the registry, and brings its schema up, where needed. `alone`: while nobody else writes (gc)."""
        with self._speaking():
            if not self._current:
                self._check(create=True)
            with self.engine.connect().execution_options(penstock_write=True) as connection, connection.begin():
                if self.file is None:  # SQLite has one writer at a time anyhow
                    lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
                    connection.execute(sa.text(f"SELECT {lock}(:lock)"), {"lock": _WRITERS_LOCK})
                yield connection

    def close(self) -> None:
        self.engine.dispose()

    # --- the schema ---

    def _check(self, create: bool) -> None:
        found = self._revision() if self.file is None or self.file.exists() else None
        if found is not None and found > tables.HEAD:
            raise PenstockError(
                f"the model registry {self.name} was written by a newer Penstock (schema {found}, ours {tables.HEAD})",
                "update Penstock",
                "REG006",
            )
        if found is None and not create:
            said = f"there is no model registry in {self.name}"
            raise RegistryLost(said, "penstock models push makes one, --registry names another", "REG005")
        if found != tables.HEAD:
            self._migrate()
        self._current = True

    def _revision(self) -> str | None:
        with self.engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config

        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        config = Config()
        config.set_main_option("script_location", "penstock.registry:migrations")
        config.set_main_option("path_separator", "os")
        with self.engine.connect().execution_options(penstock_write=True) as connection, connection.begin():
            if self.file is None:  # two hosts may open a new database at once
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            said = str(error.orig).strip().partition("\n")[0]
            hint = "is the server up, and is the address right?" if self.file is None else "is the disk full or gone?"
            raise RegistryLost(f"the model registry {self.name} does not answer: {said}", hint, "REG005") from error
        except OSError as error:
            said = f"the model registry {self.name} cannot be opened: {error.strerror}"
            raise RegistryLost(said, "check who owns the folder", "REG005") from error


def _parsed(url: str) -> tuple[URL, Path | None]:
    """SQLAlchemy's URL, and the SQLite file where it is one."""
    if "://" not in url or url.startswith("file://"):
        file = local_path(url).expanduser().absolute() / FILE
        return URL.create("sqlite", database=str(file)), file
    try:
        found = make_url(url)
    except ArgumentError as error:
        raise _bad_url(url.partition("://")[0] + "://...") from error
    if found.drivername == "sqlite" and found.database:
        file = Path(found.database).expanduser().absolute()
        return found.set(database=str(file)), file
    if found.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return found.set(drivername="postgresql+psycopg"), None
    raise _bad_url(found.render_as_string(hide_password=True))


def _bad_url(shown: str) -> RequestError:
    hint = "a folder, sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    return RequestError(f"'{shown}' is no address of a model registry", hint, "REG004")


def _engine(url: URL) -> Engine:
    if url.drivername != "sqlite":
        try:
            return sa.create_engine(url, pool_pre_ping=True, pool_size=4, connect_args={"connect_timeout": 5})
        except ImportError as error:
            said = "a registry on PostgreSQL needs psycopg, which is not installed"
            raise RequestError(said, "pip install 'penstock[postgres]'", "REG004") from error
    # Kept open between transactions: the last connection to close pays for a checkpoint.
    engine = sa.create_engine(url, pool_size=2, connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, so that DDL is in transactions too
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("penstock_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine

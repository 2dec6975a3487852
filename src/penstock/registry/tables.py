"""The registry's tables, as the newest migration leaves them. Times are seconds since the epoch, documents JSON."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

#: The revision that these tables are of; a test holds it equal to the head of the migrations.
HEAD = "0003"

metadata = MetaData()

#: key "blobs": the URL that every host finds the blobs at; "" is the folder `blobs` beside the SQLite file.
settings = Table("settings", metadata, Column("key", String, primary_key=True), Column("value", Text, nullable=False))

models = Table(
    "models",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("last_number", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

#: A version never changes but for what stands after `pushed_by`. `swept_at`: its files are gone, its number is not.
versions = Table(
    "versions",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("manifest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("lineage", Text, nullable=False),
    Column("proof", Text, nullable=False, server_default="{}"),
    Column("pushed_at", Float, nullable=False),
    Column("pushed_by", String, nullable=False),
    Column("tags", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("pinned", Text, nullable=False, server_default=""),
    Column("tombstone_at", Float),
    Column("swept_at", Float),
)

version_files = Table(
    "version_files",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("path", String, primary_key=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

#: Every blob that was ever begun has a row before it has a file. `dead_since`: nothing has referred to it since then.
blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("dead_since", Float),
)

#: What pushes that are under way need: gc keeps it until `until`.
uploads = Table(
    "uploads",
    metadata,
    Column("push", String(32), primary_key=True),
    Column("sha256", String(64), primary_key=True, index=True),
    Column("until", Float, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

alias_changes = Table(
    "alias_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False, index=True),
    Column("alias", String(64), nullable=False),
    Column("old_number", Integer),
    Column("new_number", Integer),
    Column("changed_at", Float, nullable=False),
    Column("changed_by", String, nullable=False),
    Column("why", Text, nullable=False),
)

#: Versions that running hosts hold: gc keeps them until `until`, which the host moves on while it lives.
leases = Table(
    "leases",
    metadata,
    Column("holder", String, primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("until", Float, nullable=False),
)

#: Models that learn online. `generation` only rises: whoever holds a lower one may write nothing. `until`: the lease.
generations = Table(
    "generations",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("owner", String, nullable=False),
    Column("until", Float, nullable=False),
)

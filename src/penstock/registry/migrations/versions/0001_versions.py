"""Models, versions, their files, blobs, aliases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "settings", sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
    op.create_table(
        "models",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("last_number", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("model", sa.String(64), sa.ForeignKey("models.name"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False, index=True),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("lineage", sa.Text, nullable=False),
        sa.Column("pushed_at", sa.Float, nullable=False),
        sa.Column("pushed_by", sa.String, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("pinned", sa.Text, nullable=False, server_default=""),
        sa.Column("tombstone_at", sa.Float),
        sa.Column("swept_at", sa.Float),
    )
    op.create_table(
        "version_files",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("path", sa.String, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
    )
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("dead_since", sa.Float),
    )
    op.create_table(
        "uploads",
        sa.Column("push", sa.String(32), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True, index=True),
        sa.Column("until", sa.Float, nullable=False),
    )
    op.create_table(
        "aliases",
        sa.Column("model", sa.String(64), sa.ForeignKey("models.name"), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
    )
    op.create_table(
        "alias_changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(64), nullable=False, index=True),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("old_number", sa.Integer),
        sa.Column("new_number", sa.Integer),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("changed_by", sa.String, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )

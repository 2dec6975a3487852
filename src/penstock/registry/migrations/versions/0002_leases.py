"""Leases of running hosts; what proved a version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("versions", sa.Column("proof", sa.Text, nullable=False, server_default="{}"))
    op.create_table(
        "leases",
        sa.Column("holder", sa.String, primary_key=True),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("until", sa.Float, nullable=False),
    )

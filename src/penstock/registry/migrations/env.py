"""What alembic asks for: the steps run on the connection, and in the transaction, that `database.py` opened."""

from __future__ import annotations

from alembic import context

from penstock.registry.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()

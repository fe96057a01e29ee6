"""Alembic's entry: runs this history on the connection that kuber.services.db.database hands over."""

from alembic import context

given = context.config.attributes
context.configure(
    connection=given["connection"], target_metadata=None, version_table=given.get("version_table", "alembic_version")
)
with context.begin_transaction():
    context.run_migrations()

"""Alembic's entry: runs this history on the connection that kuber.services.database hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()

"""Migrations of the two databases, run by Alembic when a service starts."""

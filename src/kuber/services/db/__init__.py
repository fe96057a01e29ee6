"""Databases of the services: SQLite and PostgreSQL."""

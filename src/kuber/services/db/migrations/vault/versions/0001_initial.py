"""Blobs and their pins."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", text(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "pins",
        sa.Column("holder", text(200), primary_key=True),
        sa.Column("digest", text(64), primary_key=True),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("pins_by_digest", "pins", ["digest"])

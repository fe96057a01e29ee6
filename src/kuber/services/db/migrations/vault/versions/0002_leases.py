"""Leases on blobs, verdicts on artifacts, and resumable uploads."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # The lease of a blob stored before this revision is over.
    op.add_column(
        "blobs",
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False, server_default="1970-01-01 00:00:00"),
    )
    op.create_index("blobs_by_lease", "blobs", ["leased_until"])
    op.create_table(
        "verdicts",
        sa.Column("digest", text(64), primary_key=True),
        sa.Column("kind", text(64), primary_key=True),
        sa.Column("fault", sa.Text),
    )
    op.create_table(
        "uploads",
        sa.Column("id", text(32), primary_key=True),
        sa.Column("digest", text(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
    )

"""Owners of blobs and uploads, for quotas."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Blobs and uploads from before this revision have no owner and count for no quota.
    for table in ("blobs", "uploads"):
        op.add_column(table, sa.Column("owner", text(200)))
    op.create_index("blobs_by_owner", "blobs", ["owner"])

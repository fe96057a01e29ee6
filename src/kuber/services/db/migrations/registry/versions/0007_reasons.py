"""Reason for the choice of the teachers of a delivery."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("reason", text(500)))

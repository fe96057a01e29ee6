"""Entities of used requests to join, of which each has a bounded number."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("used_enrolments", sa.Column("entity", text(64)))
    op.create_index("used_enrolments_by_entity", "used_enrolments", ["entity"])

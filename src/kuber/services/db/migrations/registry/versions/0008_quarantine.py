"""Quarantines by the operator, in addition to those by the verifier."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import SEQ, text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "quarantines",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("reason", text(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )

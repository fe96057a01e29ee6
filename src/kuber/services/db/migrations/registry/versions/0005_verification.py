"""Verifications and attestations of claimed evaluations."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import SEQ, text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.add_column("knowledge", sa.Column("standing", text(16)))
    op.create_index("knowledge_by_standing", "knowledge", ["standing", "seq"])
    op.add_column("class_evaluations", sa.Column("verified", sa.BigInteger))
    op.create_table(
        "verifications",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", time, nullable=False),
    )
    op.create_table(
        "attestations",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("entity", text(64), sa.ForeignKey("entities.id"), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", time, nullable=False),
    )

"""Records that became copies after they were stored."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import SEQ, text

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "later_copies",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("original", text(64), nullable=False),
    )

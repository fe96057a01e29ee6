"""Access control: invitations, tokens, audit log, withdrawn records and blocked entities."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import SEQ, text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.add_column("entities", sa.Column("blocked_at", time))
    op.add_column("knowledge", sa.Column("withdrawn_at", time))
    op.create_table(
        "invitations",
        sa.Column("hash", text(64), primary_key=True),
        sa.Column("name", text(200), nullable=False),
        sa.Column("made_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("used_at", time),
    )
    op.create_table(
        "tokens",
        sa.Column("hash", text(64), primary_key=True),
        sa.Column("entity", text(64), sa.ForeignKey("entities.id")),
        sa.Column("scope", text(20), nullable=False),
        sa.Column("made_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("revoked_at", time),
    )
    op.create_index("tokens_by_entity", "tokens", ["entity"])
    op.create_table(
        "audit",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("time", time, nullable=False),
        sa.Column("actor", text(200), nullable=False),
        sa.Column("act", text(40), nullable=False),
        sa.Column("subject", text(200), nullable=False),
        sa.Column("detail", sa.JSON),
        sqlite_autoincrement=True,
    )

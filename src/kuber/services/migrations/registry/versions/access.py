"""Who may do what: invitations, tokens, the audit log, and what was withdrawn or shut out."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.add_column("entities", sa.Column("blocked_at", time))
    op.add_column("knowledge", sa.Column("withdrawn_at", time))
    op.create_table(
        "invitations",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("made_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("used_at", time),
    )
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("entity", sa.String(64), sa.ForeignKey("entities.id")),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("made_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("revoked_at", time),
    )
    op.create_index("tokens_by_entity", "tokens", ["entity"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("time", time, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("act", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.JSON),
        sqlite_autoincrement=True,
    )

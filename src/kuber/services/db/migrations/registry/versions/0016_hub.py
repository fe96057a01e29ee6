"""Hub: the key of the hub, what is signed for it, and requests to join that have been used."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "hubs",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("seed", text(64), nullable=False),
        sa.Column("made_at", time, nullable=False),
    )
    op.create_table(
        "used_enrolments",
        sa.Column("hash", text(64), primary_key=True),
        sa.Column("expires_at", time, nullable=False),
    )
    op.create_index("used_enrolments_by_expiry", "used_enrolments", ["expires_at"])
    for name in ("joins_hub", "signs_hub"):
        op.add_column("entities", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("entity_keys", sa.Column("hub", text(64)))
    op.add_column("knowledge", sa.Column("hub", text(64)))

"""Keys of entities; signature and sequence of each record."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("entities", sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("knowledge", sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("knowledge", sa.Column("signature", text(128)))
    op.create_table(
        "entity_keys",
        sa.Column("entity", text(64), sa.ForeignKey("entities.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("public_key", text(64), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("signature", text(128)),
    )

"""Copies: the id of the first record of another publisher with the same file."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("knowledge", sa.Column("copy_of", text(64)))
    copies = sa.text("copy_of IS NOT NULL")
    op.create_index("knowledge_copies", "knowledge", ["seq"], sqlite_where=copies, postgresql_where=copies)

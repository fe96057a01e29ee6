"""Initial checkpoint that weights descend from, and an index of the newest knowledge of each entity."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("knowledge", sa.Column("origin", text(64)))
    op.create_index("knowledge_latest", "knowledge", ["entity", "task_name", "test_set", "seq"])

"""Index of the records that are not withdrawn, by entity and task, most accurate first."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    kept = sa.text("withdrawn_at IS NULL")
    columns: list[str | sa.TextClause] = ["entity", "task_name", "test_set", sa.text("accuracy DESC"), "seq"]
    op.create_index("knowledge_kept", "knowledge", columns, sqlite_where=kept, postgresql_where=kept)

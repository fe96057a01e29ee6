"""Index of the records that are not withdrawn, by architecture: a pin goes with the last visible one."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    kept = sa.text("withdrawn_at IS NULL")
    op.create_index(
        "knowledge_of_architecture", "knowledge", ["architecture"], sqlite_where=kept, postgresql_where=kept
    )

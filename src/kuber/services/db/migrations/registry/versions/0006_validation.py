"""Claims on validation data of one's own: a task may have no common test set."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The body tells it, and what a record was evaluated on stands in its own row.
    op.drop_column("tasks", "test_set")

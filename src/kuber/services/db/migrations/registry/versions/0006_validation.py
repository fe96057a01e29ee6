"""Tasks without a common test set: claims may be made on an entity's own validation data."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # It is in the body of the task, and the test set of an evaluation is in the row of the record.
    op.drop_column("tasks", "test_set")

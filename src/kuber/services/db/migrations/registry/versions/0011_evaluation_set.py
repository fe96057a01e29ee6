"""Evaluation set of a record: what its publisher says of its own validation data."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("knowledge", sa.Column("evaluation_set", sa.JSON(none_as_null=True)))

"""Id of the blob storage that the index belongs to."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table("shelves", sa.Column("mark", text(64), primary_key=True))

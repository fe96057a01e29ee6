"""Prior that the logits of a record carry, and its signature."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("knowledge", sa.Column("prior", text(16)))
    op.add_column("knowledge", sa.Column("prior_signature", text(128)))

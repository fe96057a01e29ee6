"""Keys that the hub signs in place of a lost one, and invitations that allow them."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import text

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("entity_keys", sa.Column("by_hub", sa.Boolean))
    op.add_column("invitations", sa.Column("entity", text(64)))

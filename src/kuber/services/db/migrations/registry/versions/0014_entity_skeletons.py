"""Skeletons of the names of entities, by which names that look alike are found."""

import sqlalchemy as sa
from alembic import op

from kuber.domain.entity_names import skeletons
from kuber.services.db.column_types import text

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    made = op.create_table(
        "entity_skeletons",
        sa.Column("skeleton", text(64), primary_key=True),
        sa.Column("entity", text(64), sa.ForeignKey("entities.id"), primary_key=True),
    )
    named = op.get_bind().execute(sa.text("SELECT id, name FROM entities")).all()
    rows = [{"skeleton": skeleton, "entity": id} for id, name in named for skeleton in sorted(skeletons(name))]
    if rows:
        op.bulk_insert(made, rows)

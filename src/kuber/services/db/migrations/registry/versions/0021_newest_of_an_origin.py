"""No origin of the newest records that are initial checkpoints: only trained ones are found by it."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute(
        "UPDATE newest_knowledge SET origin = NULL WHERE knowledge IN (SELECT seq FROM knowledge WHERE round = 0)"
    )

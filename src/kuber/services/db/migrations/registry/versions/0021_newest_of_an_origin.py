"""Newest records of all, whatever their accuracy; those that are initial checkpoints are not found by an origin."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute(
        "UPDATE newest_knowledge SET knowledge = (SELECT MAX(seq) FROM knowledge "
        "WHERE knowledge.entity = newest_knowledge.entity AND knowledge.task_name = newest_knowledge.task_name "
        "AND knowledge.test_set = newest_knowledge.test_set AND withdrawn_at IS NULL "
        "AND COALESCE(standing, '') <> 'quarantined') WHERE NOT trained"
    )
    op.execute(
        "UPDATE newest_knowledge SET origin = (SELECT CASE WHEN round > 0 THEN knowledge.origin END FROM knowledge "
        "WHERE seq = newest_knowledge.knowledge) WHERE NOT trained"
    )

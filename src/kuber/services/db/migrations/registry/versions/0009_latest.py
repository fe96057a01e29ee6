"""Newest knowledge of each entity and task, recall on each class, and indexes for discovery."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import SEQ, text

revision = "0009"
down_revision = "0008"

FILL = """
INSERT INTO newest_knowledge (entity, task_name, test_set, trained, knowledge, origin)
SELECT newest.entity, newest.task_name, newest.test_set, {trained}, newest.seq, knowledge.origin
FROM knowledge
JOIN (
    SELECT entity, task_name, test_set, max(seq) AS seq
    FROM knowledge
    WHERE withdrawn_at IS NULL AND (standing IS NULL OR standing <> 'quarantined') {only}
    GROUP BY entity, task_name, test_set
) AS newest ON newest.seq = knowledge.seq
"""

RECALL = """
UPDATE class_evaluations SET recall = CAST(coalesce(verified, correct) * 1000000 / total AS INTEGER) WHERE total > 0
"""


def upgrade() -> None:
    op.create_table(
        "newest_knowledge",
        sa.Column("entity", text(64), sa.ForeignKey("entities.id"), primary_key=True),
        sa.Column("task_name", text(200), primary_key=True),
        sa.Column("test_set", text(64), primary_key=True),
        sa.Column("trained", sa.Boolean, primary_key=True),
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), nullable=False),
        sa.Column("origin", text(64)),
    )
    columns = ["task_name", "trained", "knowledge", "test_set", "origin"]
    op.create_index("newest_knowledge_of_task", "newest_knowledge", columns)
    op.execute(FILL.format(trained="false", only=""))
    op.execute(FILL.format(trained="true", only="AND round > 0"))

    # The verified count replaces the claimed one, as in knowledge.accuracy.
    op.add_column("class_evaluations", sa.Column("recall", sa.Integer, nullable=False, server_default="0"))
    op.execute(RECALL)
    op.drop_index("class_evaluations_by_label", "class_evaluations")  # used by no query
    op.drop_column("class_evaluations", "verified")

    op.create_index("knowledge_of_task", "knowledge", ["task_name", "seq"])
    for name, columns, condition in (
        ("knowledge_pending", ["task_name", "test_set", "seq"], "standing IS NULL"),
        ("knowledge_initial", ["task_name", "test_set", "seq"], "round = 0"),
        ("knowledge_initial_of_task", ["task_name", "seq"], "round = 0"),
    ):
        where = sa.text(condition)
        op.create_index(name, "knowledge", columns, sqlite_where=where, postgresql_where=where)

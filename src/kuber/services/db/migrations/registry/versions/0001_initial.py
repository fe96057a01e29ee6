"""Entities, knowledge and its parts, deliveries."""

import sqlalchemy as sa
from alembic import op

from kuber.services.db.column_types import SEQ, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "entities",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("id", text(64), nullable=False, unique=True),
        sa.Column("name", text(200), nullable=False, unique=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tasks",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("digest", text(64), nullable=False, unique=True),
        sa.Column("name", text(200), nullable=False),
        sa.Column("test_set", text(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "architectures",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("name", text(200), nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("pin", text(64), nullable=False, unique=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "knowledge",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("id", text(64), nullable=False, unique=True),
        sa.Column("entity", text(64), sa.ForeignKey("entities.id"), nullable=False),
        sa.Column("task", SEQ, sa.ForeignKey("tasks.seq"), nullable=False),
        sa.Column("task_name", text(200), nullable=False),
        sa.Column("test_set", text(64), nullable=False),
        sa.Column("architecture", SEQ, sa.ForeignKey("architectures.seq"), nullable=False),
        sa.Column("accuracy", sa.Float(53), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("sample_count", sa.BigInteger),
        sa.Column("class_counts", sa.JSON),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", text(200), nullable=False),
        sa.Column("draft", text(64), nullable=False),
        sa.UniqueConstraint("entity", "key"),
        sqlite_autoincrement=True,
    )
    best: list[str | sa.TextClause] = ["task_name", "test_set", sa.text("accuracy DESC"), "seq", "entity"]
    op.create_index("knowledge_best", "knowledge", best)
    op.create_index("knowledge_newest", "knowledge", ["task_name", "test_set", "seq"])
    op.create_index("knowledge_by_accuracy", "knowledge", [sa.text("accuracy DESC"), "seq"])
    op.create_table(
        "knowledge_artifacts",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("kind", text(64), primary_key=True),
        sa.Column("digest", text(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_index("knowledge_artifacts_by_digest", "knowledge_artifacts", ["digest"])
    op.create_table(
        "knowledge_parents",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("parent", text(64), sa.ForeignKey("knowledge.id"), nullable=False),
    )
    op.create_index("knowledge_parents_by_parent", "knowledge_parents", ["parent"])
    op.create_table(
        "class_evaluations",
        sa.Column("knowledge", SEQ, sa.ForeignKey("knowledge.seq"), primary_key=True),
        sa.Column("label", sa.Integer, primary_key=True),
        sa.Column("correct", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
    )
    op.create_index("class_evaluations_by_label", "class_evaluations", ["label", "correct"])
    op.create_table(
        "deliveries",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("student", text(64), sa.ForeignKey("entities.id"), nullable=False),
        sa.Column("method", text(200), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("accuracy_before", sa.Float(53), nullable=False),
        sa.Column("accuracy_after", sa.Float(53), nullable=False),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", text(200), nullable=False),
        sa.UniqueConstraint("student", "key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "delivery_teachers",
        sa.Column("delivery", SEQ, sa.ForeignKey("deliveries.seq"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("knowledge", text(64), sa.ForeignKey("knowledge.id"), nullable=False),
    )
    op.create_index("delivery_teachers_by_knowledge", "delivery_teachers", ["knowledge"])

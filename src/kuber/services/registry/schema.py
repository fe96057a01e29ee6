"""The tables of the registry. A change here needs a migration; a test compares the two."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from kuber.services.db.column_types import SEQ, UtcDateTime, text

tables = MetaData()

entities = Table(
    "entities",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("id", text(64), nullable=False, unique=True),
    Column("name", text(200), nullable=False, unique=True),
    Column("registered_at", UtcDateTime, nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),  # of its last signed record
    Column("blocked_at", UtcDateTime),  # shut out since then
    sqlite_autoincrement=True,  # a number is never given twice, so a cursor never points at another row
)

entity_keys = Table(
    "entity_keys",
    tables,
    Column("entity", ForeignKey("entities.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("public_key", text(64), nullable=False),
    Column("since", BigInteger, nullable=False),  # sequence of the first record that it signs
    Column("signature", text(128)),  # by the key before
)

tasks = Table(
    "tasks",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("digest", text(64), nullable=False, unique=True),  # of the canonical body
    Column("name", text(200), nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
)

architectures = Table(
    "architectures",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("name", text(200), nullable=False),
    Column("arguments", Text, nullable=False),  # canonical JSON
    Column("pin", text(64), nullable=False, unique=True),  # digest of name and arguments: one manifest for each
    Column("body", Text, nullable=False),  # canonical JSON, with the manifest
)

knowledge = Table(
    "knowledge",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("id", text(64), nullable=False, unique=True),
    Column("entity", ForeignKey("entities.id"), nullable=False),
    Column("task", ForeignKey("tasks.seq"), nullable=False),
    # The task's. Here too, so that one index answers an entity's question.
    Column("task_name", text(200), nullable=False),
    Column("test_set", text(64), nullable=False),  # that the claim was made on
    Column("architecture", ForeignKey("architectures.seq"), nullable=False),
    Column("accuracy", Float(53), nullable=False),  # verified, or else claimed
    Column("round", Integer, nullable=False),
    Column("origin", text(64)),
    Column("sample_count", BigInteger),
    Column("class_counts", JSON(none_as_null=True)),
    Column("published_at", UtcDateTime, nullable=False),
    Column("key", text(200), nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),
    Column("signature", text(128)),
    Column("withdrawn_at", UtcDateTime),
    Column("standing", text(16)),  # of its verification; quarantined while the operator's quarantine stands
    Column("draft", text(64), nullable=False),  # digest of the canonical draft
    UniqueConstraint("entity", "key"),
    sqlite_autoincrement=True,
)
INITIAL = knowledge.c.round == literal_column("0")  # written out: an index on it is used only where it is seen
Index(
    "knowledge_best",
    knowledge.c.task_name,
    knowledge.c.test_set,
    knowledge.c.accuracy.desc(),
    knowledge.c.seq,
    knowledge.c.entity,  # the asker's own are skipped without reading their rows
)
Index(
    "knowledge_latest",  # of each entity: where newest_knowledge is found anew
    knowledge.c.entity,
    knowledge.c.task_name,
    knowledge.c.test_set,
    knowledge.c.seq,
)
Index("knowledge_by_standing", knowledge.c.standing, knowledge.c.seq)
Index("knowledge_newest", knowledge.c.task_name, knowledge.c.test_set, knowledge.c.seq)
Index("knowledge_of_task", knowledge.c.task_name, knowledge.c.seq)
Index("knowledge_by_accuracy", knowledge.c.accuracy.desc(), knowledge.c.seq)
_kept = knowledge.c.entity, knowledge.c.task_name, knowledge.c.test_set, knowledge.c.accuracy.desc(), knowledge.c.seq
_of_task_and_set = knowledge.c.task_name, knowledge.c.test_set, knowledge.c.seq
for _name, _columns, _told in (
    ("knowledge_kept", _kept, knowledge.c.withdrawn_at.is_(None)),
    ("knowledge_pending", _of_task_and_set, knowledge.c.standing.is_(None)),
    ("knowledge_initial", _of_task_and_set, INITIAL),
    ("knowledge_initial_of_task", (knowledge.c.task_name, knowledge.c.seq), INITIAL),
):
    Index(_name, *_columns, sqlite_where=_told, postgresql_where=_told)

newest_knowledge = Table(
    "newest_knowledge",  # in sight, of each entity on each task
    tables,
    Column("entity", ForeignKey("entities.id"), primary_key=True),
    Column("task_name", text(200), primary_key=True),
    Column("test_set", text(64), primary_key=True),
    Column("trained", Boolean, primary_key=True),  # of what was trained; else of all, initial checkpoints too
    Column("knowledge", ForeignKey("knowledge.seq"), nullable=False),
    Column("origin", text(64)),  # the record's. Here too, so that one index answers
    Index("newest_knowledge_of_task", "task_name", "trained", "knowledge", "test_set", "origin"),
)

knowledge_artifacts = Table(
    "knowledge_artifacts",
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("kind", text(64), primary_key=True),
    Column("digest", text(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("knowledge_artifacts_by_digest", "digest"),
)

knowledge_parents = Table(
    "knowledge_parents",
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent", ForeignKey("knowledge.id"), nullable=False),
    Index("knowledge_parents_by_parent", "parent"),
)

class_evaluations = Table(
    "class_evaluations",
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("label", Integer, primary_key=True),  # index into the task's labels
    Column("correct", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    # In whole millionths, verified or else claimed; 0 without samples. Not found in the question, whose numbers would
    # not fit there.
    Column("recall", Integer, nullable=False, server_default="0"),
)

verifications = Table(
    "verifications",
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("body", Text, nullable=False),  # canonical JSON
    Column("at", UtcDateTime, nullable=False),
)

quarantines = Table(
    "quarantines",  # by the operator; what the verifier found stays in verifications
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("reason", text(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

attestations = Table(
    "attestations",
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("entity", ForeignKey("entities.id"), primary_key=True),
    Column("body", Text, nullable=False),  # canonical JSON
    Column("at", UtcDateTime, nullable=False),
)

deliveries = Table(
    "deliveries",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("student", ForeignKey("entities.id"), nullable=False),
    Column("method", text(200), nullable=False),
    Column("round", Integer, nullable=False),
    Column("accuracy_before", Float(53), nullable=False),
    Column("accuracy_after", Float(53), nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("reason", text(500)),  # why these teachers
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("key", text(200), nullable=False),
    UniqueConstraint("student", "key"),
    sqlite_autoincrement=True,
)

delivery_teachers = Table(
    "delivery_teachers",
    tables,
    Column("delivery", ForeignKey("deliveries.seq"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("knowledge", ForeignKey("knowledge.id"), nullable=False),
    Index("delivery_teachers_by_knowledge", "knowledge"),
)

# Secrets are stored as SHA-256: 256 random bits need no slower hash.
invitations = Table(
    "invitations",
    tables,
    Column("hash", text(64), primary_key=True),
    Column("name", text(200), nullable=False),  # of the entity that may join with it
    Column("made_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
)

tokens = Table(
    "tokens",
    tables,
    Column("hash", text(64), primary_key=True),
    Column("entity", ForeignKey("entities.id")),  # none: the operator's
    Column("scope", text(20), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Index("tokens_by_entity", "entity"),
)

audit = Table(
    "audit",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("time", UtcDateTime, nullable=False),
    Column("actor", text(200), nullable=False),  # id of an entity, or admin
    Column("act", text(40), nullable=False),
    Column("subject", text(200), nullable=False),
    Column("detail", JSON(none_as_null=True)),
    sqlite_autoincrement=True,
)

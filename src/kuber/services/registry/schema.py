"""Tables of the registry. A change needs a migration; a test compares the two."""

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
    false,
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
    Column("sequence", BigInteger, nullable=False, server_default="0"),  # that of its last signed record
    Column("blocked_at", UtcDateTime),  # when the operator blocked it
    # Whether a request to join, and a record or a key, has been signed for this hub: then all later ones must be.
    Column("joins_hub", Boolean, nullable=False, server_default=false()),
    Column("signs_hub", Boolean, nullable=False, server_default=false()),
    sqlite_autoincrement=True,  # numbers are never reused, so a cursor never points at another row
)

entity_skeletons = Table(
    "entity_skeletons",  # names that have one in common look alike
    tables,
    Column("skeleton", text(64), primary_key=True),  # digest
    Column("entity", ForeignKey("entities.id"), primary_key=True),
)

entity_keys = Table(
    "entity_keys",
    tables,
    Column("entity", ForeignKey("entities.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("public_key", text(64), nullable=False),
    Column("since", BigInteger, nullable=False),  # sequence of the first record that it signs
    Column("signature", text(128)),  # with the previous key, or with the hub's
    Column("by_hub", Boolean),  # whether it is signed with the hub's key
    Column("hub", text(64)),  # that the signature is for; null in those of older versions
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
    # Digest of name and arguments: one manifest for each. A row that gave its pin up has another digest.
    Column("pin", text(64), nullable=False, unique=True),
    Column("body", Text, nullable=False),  # canonical JSON, with the manifest
)

knowledge = Table(
    "knowledge",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("id", text(64), nullable=False, unique=True),
    Column("entity", ForeignKey("entities.id"), nullable=False),
    Column("task", ForeignKey("tasks.seq"), nullable=False),
    # Copied from the task, so that one index answers an entity's discover request.
    Column("task_name", text(200), nullable=False),
    Column("test_set", text(64), nullable=False),  # of the claim
    Column("architecture", ForeignKey("architectures.seq"), nullable=False),
    Column("accuracy", Float(53), nullable=False),  # verified or else claimed
    Column("round", Integer, nullable=False),
    Column("origin", text(64)),
    Column("sample_count", BigInteger),
    Column("class_counts", JSON(none_as_null=True)),
    Column("published_at", UtcDateTime, nullable=False),
    Column("key", text(200), nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),
    Column("signature", text(128)),
    Column("withdrawn_at", UtcDateTime),
    Column("standing", text(16)),  # that of its verification, or quarantined by the operator
    Column("draft", text(64), nullable=False),  # digest of the canonical draft
    Column("evaluation_set", JSON(none_as_null=True)),
    Column("copy_of", text(64)),  # id of the first record of another publisher with the same file
    Column("hub", text(64)),  # that the signature is for; null in those of older versions
    Column("prior", text(16)),  # that the logits carry; null if unknown
    Column("prior_signature", text(128)),
    UniqueConstraint("entity", "key"),
    sqlite_autoincrement=True,
)
# A literal, not a parameter: a database uses the partial indices only if the statement shows the value.
INITIAL = knowledge.c.round == literal_column("0")
Index(
    "knowledge_best",
    knowledge.c.task_name,
    knowledge.c.test_set,
    knowledge.c.accuracy.desc(),
    knowledge.c.seq,
    knowledge.c.entity,  # an entity's own records are skipped without reading their rows
)
Index(
    "knowledge_latest",  # of each entity, to update newest_knowledge
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
for _name, _columns, _condition in (
    ("knowledge_kept", _kept, knowledge.c.withdrawn_at.is_(None)),
    ("knowledge_of_architecture", (knowledge.c.architecture,), knowledge.c.withdrawn_at.is_(None)),
    ("knowledge_pending", _of_task_and_set, knowledge.c.standing.is_(None)),
    ("knowledge_initial", _of_task_and_set, INITIAL),
    ("knowledge_copies", (knowledge.c.seq,), knowledge.c.copy_of.is_not(None)),
    ("knowledge_initial_of_task", (knowledge.c.task_name, knowledge.c.seq), INITIAL),
):
    Index(_name, *_columns, sqlite_where=_condition, postgresql_where=_condition)

newest_knowledge = Table(
    "newest_knowledge",  # visible, of each entity on each task
    tables,
    Column("entity", ForeignKey("entities.id"), primary_key=True),
    Column("task_name", text(200), primary_key=True),
    Column("test_set", text(64), primary_key=True),
    Column("trained", Boolean, primary_key=True),  # among sound trained records; else among all
    Column("knowledge", ForeignKey("knowledge.seq"), nullable=False),
    Column("origin", text(64)),  # of a trained record, copied, so that one index answers
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
    # In whole millionths, verified or else claimed; 0 without samples. Computing it in a query would overflow.
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
    "quarantines",  # by the operator; the verifier's finding stays in verifications
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("reason", text(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

later_copies = Table(
    "later_copies",  # records whose copy_of was set after they were stored; what has no row here may be cached
    tables,
    Column("knowledge", ForeignKey("knowledge.seq"), primary_key=True),
    Column("original", text(64), nullable=False),  # id of the record of the file's owner
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
    Column("reason", text(500)),  # why these teachers were chosen
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
    Column("name", text(200), nullable=False),  # name of the entity that may join with it
    Column("made_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("entity", text(64)),  # id of the entity whose lost key it replaces; null for one that joins
)

tokens = Table(
    "tokens",
    tables,
    Column("hash", text(64), primary_key=True),
    Column("entity", ForeignKey("entities.id")),  # null for tokens of operator and verifier
    Column("scope", text(20), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Index("tokens_by_entity", "entity"),
)

hubs = Table(
    "hubs",  # one row: this hub
    tables,
    Column("seq", Integer, primary_key=True),
    Column("seed", text(64), nullable=False),  # private key, as hex digits
    Column("made_at", UtcDateTime, nullable=False),
)

used_enrolments = Table(
    "used_enrolments",  # requests to join that could be sent again
    tables,
    Column("hash", text(64), primary_key=True),  # SHA-256 of the signed bytes
    Column("expires_at", UtcDateTime, nullable=False),
    Column("entity", text(64)),  # id; null in rows of earlier versions
    Index("used_enrolments_by_expiry", "expires_at"),
    Index("used_enrolments_by_entity", "entity"),
)

audit = Table(
    "audit",
    tables,
    Column("seq", SEQ, primary_key=True),
    Column("time", UtcDateTime, nullable=False),
    Column("actor", text(200), nullable=False),  # id of an entity, or admin, verifier or retention
    Column("act", text(40), nullable=False),
    Column("subject", text(200), nullable=False),
    Column("detail", JSON(none_as_null=True)),
    sqlite_autoincrement=True,
)

# Summary of what was removed because of its age: one row, once something was.
expiry = Table(
    "expiry",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("through", BigInteger, nullable=False),  # number of the last removed event
    Column("until", UtcDateTime, nullable=False),  # its time
    Column("events", BigInteger, nullable=False),  # removed so far
    Column("deliveries", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
)

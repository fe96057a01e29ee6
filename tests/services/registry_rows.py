"""Registry with many records, inserted by SQL, which is much faster than publishing them."""

from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, text

from kuber.domain.digest import Digest
from kuber.domain.task import Task
from kuber.services.db.column_types import UtcDateTime
from kuber.services.db.database import upgrade
from kuber.wire.base import canonical
from kuber.wire.registry import ArchitectureBody, TaskBody

from .records import ARCHITECTURE, TEST_SET

COMMON = Task(name="common", labels=("even", "odd"), input_shape=(1, 2, 2), test_set=TEST_SET)
OWN = Task(name="own", labels=("even", "odd"), input_shape=(1, 2, 2))
ORIGINS = [Digest.of(b"origin %d" % number) for number in range(2)]

# Entities publish in turn, first their initial checkpoints; every second one claims on its own data. The hub has
# verified all but the last hundredth, quarantined some, and a few are withdrawn.
FILL = """
INSERT INTO tasks (seq, digest, name, body) VALUES (1, 'common', 'common', :common), (2, 'own', 'own', :own);
INSERT INTO architectures (seq, name, arguments, pin, body) VALUES (1, 'line', '{}', 'line', :line);
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :entities)
INSERT INTO entities (seq, id, name, registered_at, sequence) SELECT i + 1, 'e' || i, 'entity ' || i, :now, 0 FROM n;
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :entities * :each)
INSERT INTO knowledge (seq, id, entity, task, task_name, test_set, architecture, accuracy, round, origin,
    published_at, key, sequence, draft, standing, withdrawn_at)
SELECT i + 1, 'k' || i, 'e' || (i % :entities), 1 + i % 2, CASE i % 2 WHEN 0 THEN 'common' ELSE 'own' END,
    CASE i % 2 WHEN 0 THEN :test_set ELSE :zeros || (1000000 + i % :entities) END, 1,
    (i * 7919 % 10007) / 10007.0, i / :entities,
    CASE i % 5 WHEN 0 THEN :origin ELSE :other END, :now, 'key ' || i, 0, 'd',
    CASE WHEN i * 100 > :entities * :each * 99 THEN NULL WHEN i % 97 = 0 THEN 'quarantined'
        WHEN i % 3 = 0 THEN 'verified' ELSE 'unverifiable' END,
    CASE WHEN i % 89 = 0 THEN :now ELSE NULL END
FROM n;
INSERT INTO class_evaluations (knowledge, label, correct, total)
SELECT seq, label, (seq * 31 + label * 17) % 101, 100
FROM knowledge, (SELECT 0 AS label UNION ALL SELECT 1) AS labels;
INSERT INTO knowledge_artifacts (knowledge, kind, digest, size) SELECT seq, 'weights', :test_set, 100 FROM knowledge;
"""


def fill(connection: Connection, *, entities: int, each: int) -> None:
    """Migrate an empty database to the revision before `newest_knowledge`, and fill it."""
    version_table = "registry_version" if connection.dialect.name == "postgresql" else "alembic_version"
    upgrade(connection, "registry", version_table=version_table, revision="0008")
    values = {
        "common": canonical(TaskBody.of(COMMON)).decode(),
        "own": canonical(TaskBody.of(OWN)).decode(),
        "line": canonical(ArchitectureBody.of(ARCHITECTURE)).decode(),
        "test_set": TEST_SET.hex,
        "origin": ORIGINS[0].hex,
        "other": ORIGINS[1].hex,
        "zeros": "0" * 57,
        "now": datetime(2026, 1, 1, tzinfo=UTC),
    }
    for statement in (
        FILL.replace(":entities", str(entities)).replace(":each", str(each)).strip().rstrip(";").split(";\n")
    ):
        clause = text(statement)
        if ":now" in statement:
            clause = clause.bindparams(bindparam("now", type_=UtcDateTime))
        connection.execute(clause, {name: value for name, value in values.items() if f":{name}" in statement})

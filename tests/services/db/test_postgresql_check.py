"""Check of PostgreSQL databases: what is damaged or lost is named, and so is what was not checked."""

import pytest
from sqlalchemy import create_engine

from kuber.errors import ServiceUnavailableError, SettingsError
from kuber.services.database_check import check_server_databases
from kuber.services.db.postgresql_check import check_postgresql
from kuber.services.registry.schema import tables

ENTITY = "INSERT INTO entities (id, name, registered_at, sequence) VALUES ('e', 'ann', now(), 0)"
STAND_INS = """
CREATE FUNCTION bt_index_check(index regclass, heapallindexed boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF index = 'knowledge_by_accuracy'::regclass THEN
        RAISE 'item order invariant violated';
    END IF;
END $$;
CREATE FUNCTION verify_heapam(relation regclass, OUT blkno bigint, OUT msg text) RETURNS SETOF record LANGUAGE sql AS
$$ SELECT 3::bigint, 'line pointer out of bounds' WHERE relation = 'audit'::regclass $$
"""
DENYING = """
CREATE OR REPLACE FUNCTION bt_index_check(index regclass, heapallindexed boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'permission denied for function bt_index_check' USING ERRCODE = '42501';
END $$
"""


@pytest.fixture
def execute(registry_database):
    """Run statements in the registry's database, also such as it would refuse."""

    def run(*statements):
        engine = create_engine(registry_database, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("SET session_replication_role = replica")
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()

    return run


def test_a_sound_database_has_no_fault_and_says_what_is_not_checked(registry_database, vault_database, execute):
    execute(ENTITY)
    registry, vault = check_server_databases({"registry": registry_database, "vault": vault_database})
    assert (registry.faults, vault.faults) == ([], [])
    assert registry.checked[0].startswith("all ")
    assert any("references" in part for part in registry.checked)
    assert not any(part.startswith("0 sequences") for part in registry.checked)
    assert any("CREATE EXTENSION amcheck" in part for part in registry.unchecked)
    assert check_server_databases({"registry": None, "vault": None}) == []


def test_lost_rows_and_old_sequences_are_faults(registry_database, execute):
    execute(
        "INSERT INTO audit (seq, time, actor, act, subject) VALUES (7, now(), 'a', 'report', 'b')",
        "INSERT INTO entity_keys (entity, position, public_key, since) VALUES ('nobody', 0, 'k', 0)",
    )
    faults = check_postgresql(registry_database, tables).faults
    assert "The sequence of the table audit is at 0, but it has a row 7: part of the database was lost." in faults
    assert "1 rows of the table entity_keys name rows that entities has not." in faults
    assert len(faults) == 2


def test_a_database_without_tables_is_a_fault(postgres):
    with postgres.database() as url:
        assert f"There is no table {tables.sorted_tables[0].name}." in check_postgresql(url, tables).faults


def test_amcheck_is_used_where_it_is(registry_database, execute):
    execute(STAND_INS)
    try:
        report = check_postgresql(registry_database, tables)
        assert set(report.faults) == {
            "The indexes of the table knowledge are damaged (item order invariant violated).",
            "The table audit is damaged (line pointer out of bounds).",
        }
        assert any("indexes and the pages of" in part for part in report.checked)
        assert not any("amcheck" in part for part in report.unchecked)
        execute(DENYING)
        report = check_postgresql(registry_database, tables)
        assert report.faults == []
        assert "indexes and pages, as permission denied for function bt_index_check" in report.unchecked
    finally:
        execute("DROP FUNCTION bt_index_check", "DROP FUNCTION verify_heapam")


def test_what_cannot_be_reached_is_one_sentence(postgres):
    with pytest.raises(ServiceUnavailableError, match="cannot be read"):
        check_postgresql(postgres.url("nothing"), tables)
    with pytest.raises(SettingsError, match="not the address of a PostgreSQL database"):
        check_postgresql("sqlite:///x", tables)

"""Check of a PostgreSQL database: its rows, references, sequences and, with the extension amcheck, its indexes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, ForeignKeyConstraint, Integer, MetaData, Table, exists, func, select
from sqlalchemy.exc import DBAPIError

from kuber.errors import ServiceUnavailableError, first_line
from kuber.services.db.postgresql import check_engine, parse_url, without_password

AMCHECK = "CREATE EXTENSION amcheck"
# Rows are read from the table itself, never from an index, which may be damaged too.
_FROM_TABLES = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off"
_DENIED = "42501"  # SQLSTATE
_INDEXES = (
    "SELECT quote_ident(i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
    "JOIN pg_am a ON a.oid = i.relam WHERE x.indrelid = to_regclass(%s) AND a.amname = 'btree' ORDER BY 1"
)


@dataclass(kw_only=True, slots=True)
class PostgreSQLReport:
    """Report on one database: its checked and unchecked parts, and a sentence for each fault."""

    database: str  # its URL without the password
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check_postgresql(url: str, tables: MetaData) -> PostgreSQLReport:
    """Check the tables in a database that may be in use. It is only read.

    Raises SettingsError for another kind of URL, ServiceUnavailableError when there is no connection.
    """
    parsed = parse_url(url)
    report = PostgreSQLReport(database=without_password(parsed))
    engine = check_engine(parsed)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(_FROM_TABLES)
            missing = [table for table in tables.sorted_tables if not _name(connection, table)]
            for table in missing:
                report.faults.append(f"There is no table {table.name}.")
            found = [table for table in tables.sorted_tables if table not in missing]
            _check_rows(connection, found, report)
            _check_references(connection, found, report)
            _check_sequences(connection, found, report)
            _check_checksums(connection, report)
            _check_structure(connection, found, report)
    except DBAPIError as error:
        raise ServiceUnavailableError(f"The database {report.database} cannot be read: {_reason(error)}.") from None
    finally:
        engine.dispose()
    return report


def _check_rows(connection: Connection, tables: list[Table], report: PostgreSQLReport) -> None:
    """Read every row of every table whole, and look for two with one primary key."""
    rows = 0
    for table in tables:
        name = connection.dialect.identifier_preparer.format_table(table)
        repeated = select(func.count()).select_from(table).group_by(*table.primary_key).having(func.count() > 1)
        try:
            # As text, so that values that are stored elsewhere are read too.
            read = f"SELECT count(*), sum(length(row_.*::text)) FROM {name} row_"  # noqa: S608 - our own names
            rows += connection.exec_driver_sql(read).one()[0]
            if connection.execute(repeated.limit(1)).first() is not None:
                report.faults.append(f"The table {table.name} has several rows of one key.")
        except DBAPIError as error:
            _raise_if_lost(error)
            report.faults.append(f"The table {table.name} cannot be read ({_reason(error)}).")
    report.checked.append(f"all {rows} rows of {len(tables)} tables")


def _check_references(connection: Connection, tables: list[Table], report: PostgreSQLReport) -> None:
    """Look for rows that name rows of other tables which are not there."""
    count = 0
    for table in tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda each: str(each.column_keys)):
            count += 1
            try:
                if lost := connection.scalar(_dangling(table, constraint)):
                    named = constraint.referred_table.name
                    report.faults.append(f"{lost} rows of the table {table.name} name rows that {named} has not.")
            except DBAPIError as error:
                _raise_if_lost(error)  # otherwise the table has been named already
    report.checked.append(f"{count} references between tables")


def _dangling(table: Table, constraint: ForeignKeyConstraint) -> Any:
    (element,) = constraint.elements
    target = element.column.table.alias()
    named = exists().where(target.c[element.column.name] == element.parent)
    return select(func.count()).select_from(table).where(element.parent.is_not(None), ~named)


def _check_sequences(connection: Connection, tables: list[Table], report: PostgreSQLReport) -> None:
    """Look for tables whose next row number was used already, as after a restored dump without its sequences."""
    count = 0
    for table in tables:
        for column in table.primary_key:
            if not isinstance(column.type, Integer):
                continue
            query = "SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, %s)::regclass)"
            try:
                last = connection.exec_driver_sql(query, (table.name, column.name)).scalar()
                highest = connection.scalar(select(func.max(column)))
                owned = connection.exec_driver_sql(
                    "SELECT pg_get_serial_sequence(%s, %s)", (table.name, column.name)
                ).scalar()
            except DBAPIError as error:
                _raise_if_lost(error)
                continue
            if owned is None:
                continue
            count += 1
            if highest is not None and (last is None or last < highest):
                report.faults.append(
                    f"The sequence of the table {table.name} is at {last or 0}, but it has a row {highest}: part of "
                    "the database was lost."
                )
    report.checked.append(f"{count} sequences")


def _check_checksums(connection: Connection, report: PostgreSQLReport) -> None:
    if connection.exec_driver_sql("SHOW data_checksums").scalar() != "on":
        report.unchecked.append("checksums of pages, which this server does not keep (initdb --data-checksums)")
        return
    failures = "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()"
    if count := connection.exec_driver_sql(failures).scalar():
        report.faults.append(f"The server has read {count} pages of the database whose checksum is wrong.")
    report.checked.append("checksums of the pages read")


def _check_structure(connection: Connection, tables: list[Table], report: PostgreSQLReport) -> None:
    """Have the extension amcheck compare indexes with their tables, and examine the tables' pages."""
    index_check = "SELECT to_regprocedure('bt_index_check(regclass,boolean)')"
    if connection.exec_driver_sql(index_check).scalar() is None:
        report.unchecked.append(f"indexes and pages, for which the database needs the extension amcheck ({AMCHECK})")
        return
    has_heap = connection.exec_driver_sql("SELECT to_regproc('verify_heapam')").scalar() is not None
    count = 0
    for table in tables:
        try:
            for index in _indexes(connection, table):
                count += 1
                connection.exec_driver_sql("SELECT bt_index_check(%s::regclass, true)", (index,))
        except DBAPIError as error:
            _raise_if_lost(error)
            if _sqlstate(error) == _DENIED:
                report.unchecked.append(f"indexes and pages, as {_reason(error)}")
                return
            report.faults.append(f"The indexes of the table {table.name} are damaged ({_reason(error)}).")
        if has_heap:
            heap = "SELECT msg FROM verify_heapam(relation => to_regclass(%s)) LIMIT 1"
            try:
                damage = connection.exec_driver_sql(heap, (table.name,)).scalar()
            except DBAPIError as error:
                _raise_if_lost(error)
                damage = _reason(error)
            if damage is not None:
                report.faults.append(f"The table {table.name} is damaged ({damage}).")
    report.checked.append(f"{count} indexes" + (f" and the pages of {len(tables)} tables" if has_heap else ""))


def _indexes(connection: Connection, table: Table) -> Iterator[str]:
    yield from connection.exec_driver_sql(_INDEXES, (table.name,)).scalars().all()


def _name(connection: Connection, table: Table) -> Any:
    return connection.exec_driver_sql("SELECT to_regclass(%s)", (table.name,)).scalar()


def _sqlstate(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _raise_if_lost(error: DBAPIError) -> None:
    if error.connection_invalidated:
        raise error


def _reason(error: DBAPIError) -> str:
    return first_line(error.orig or error)

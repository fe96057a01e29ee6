"""Check of the databases of a hub: are they whole, and have files all that the last backup had?"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kuber.errors import first_line
from kuber.services.backup import REGISTRY, VAULT
from kuber.services.backup_manifest import last_backup, read_manifest
from kuber.services.db.integrity import connect, damage, lost_rows
from kuber.services.db.postgresql_check import PostgreSQLReport, check_postgresql
from kuber.services.registry.schema import tables as registry_tables
from kuber.services.vault.schema import tables as vault_tables

_COMPARED = {"entities": "entities", "knowledge": "records", "deliveries": "deliveries", "audit": "audit entries"}
_ADVICE = "stop the services, and restore a backup"


SCHEMAS = {"registry": registry_tables, "vault": vault_tables}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseReport:
    """The databases that were checked, the backup they were compared with, and a sentence for each fault."""

    checked: tuple[Path, ...]
    compared_with: Path | None
    faults: tuple[str, ...]


def check_databases(registry: Path, vault: Path, *, backup: Path | None = None) -> DatabaseReport:
    """Check the SQLite files in the folders of both services, which may be running; compare with a backup.

    Without `backup` it is the registry's last one, if it still exists. Raises ServiceError when the note of the last
    backup or a manifest cannot be read.
    """
    found = tuple(path for path in (registry / REGISTRY, vault / VAULT) if path.exists())
    faults = []
    for path in found:
        fault = damage(path)
        if fault is not None:
            faults.append(f"The database {path} is damaged ({fault}); {_ADVICE}.")
    if backup is None:
        known = last_backup(registry)
        backup = known if known is not None and known.is_dir() else None
    if backup is not None and registry / REGISTRY in found and not faults:
        faults += _losses(registry / REGISTRY, backup)
    return DatabaseReport(checked=found, compared_with=backup, faults=tuple(faults))


def check_server_databases(urls: Mapping[str, str | None]) -> list[PostgreSQLReport]:
    """Check the PostgreSQL databases of these services, which may be running; None for a service without one."""
    return [check_postgresql(url, SCHEMAS[service]) for service, url in urls.items() if url is not None]


def _losses(database: Path, backup: Path) -> list[str]:
    """Return a sentence if the database has lost rows that the backup has."""
    manifest = read_manifest(backup)
    try:
        lost = lost_rows(database, {name: manifest.assigned.get(name, 0) for name in _COMPARED})
    except sqlite3.Error as error:
        return [f"The database {database} cannot be read ({first_line(error)}); {_ADVICE}."]
    what = ", ".join(f"{count} {_COMPARED[name]}" for name, count in lost.items())
    if not what and manifest.newest is not None and _has_other(database, *manifest.newest):
        what = "records"
    if not what:
        return []
    return [
        f"The database {database} has lost {what} that the backup of {manifest.made_at:%Y-%m-%d %H:%M} UTC in "
        f"{backup} has: part of it was deleted, or an older one restored; {_ADVICE}."
    ]


def _has_other(database: Path, number: int, id: str) -> bool:
    """Return whether the record of this row number is another one; it may have been removed."""
    with closing(connect(database)) as connection:
        row = connection.execute("SELECT id FROM knowledge WHERE seq = ?", (number,)).fetchone()
    return row is not None and row[0] != id

"""Integrity of SQLite files: what a quick check finds, and the row numbers that a database has ever assigned."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from kuber.errors import first_line

BUSY_SECONDS = 30


def damage(path: Path) -> str | None:
    """Return what is wrong with a database file, which may be in use; None if its quick check finds nothing."""
    try:
        with closing(connect(path)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return first_line(error)
    return None if found == ("ok",) else first_line(str(found[0]) if found else "it cannot be read")


def assigned_numbers(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the last row number of each table that never uses one again: deleting rows does not lower it."""
    return {str(name): int(last) for name, last in connection.execute("SELECT name, seq FROM sqlite_sequence")}


def lost_rows(path: Path, before: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows of each table a database has lost since it had these numbers. Raises sqlite3.Error."""
    with closing(connect(path)) as connection:
        now = assigned_numbers(connection)
    return {name: last - now.get(name, 0) for name, last in before.items() if last > now.get(name, 0)}


def connect(path: Path) -> sqlite3.Connection:
    """Open a database file to read it; it is not created."""
    # Read-only connections leave the files of the write-ahead log behind.
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)

"""Manifest of a backup: when it was made and what is in it; and where the last backup of a hub lies."""

import json
import sqlite3
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from kuber.domain.event import utc_now
from kuber.errors import ServiceError
from kuber.files import write_atomically

MANIFEST, LAST_BACKUP = "backup.json", "last-backup.json"
_FORMAT = 1
_NAMED = 20  # entities that are named


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """Counts of those who may use a hub, by its registry's database, and the first names."""

    entities: int = 0
    names: tuple[str, ...] = ()  # the first of them
    tokens: int = 0  # of entities, that are valid
    invitations: int = 0  # that can be used


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Manifest of a backup. Those of earlier versions have no numbers, members or time."""

    records: int = 0
    blobs: int = 0
    size: int = 0  # bytes of the blobs
    lacking: tuple[str, ...] = ()
    made_at: datetime = field(default_factory=utc_now)
    assigned: dict[str, int] = field(default_factory=dict)  # table of the registry -> its last row number
    newest: tuple[int, str] | None = None  # row number and id of the newest record
    members: Members = field(default_factory=Members)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes a backup complete. Raises OSError."""
    content = {"format": _FORMAT, **asdict(manifest), "made_at": manifest.made_at.isoformat()}
    write_atomically(folder / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a backup. Raises ServiceError when the folder is no complete backup of this version."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError
    except FileNotFoundError:
        raise ServiceError(f"{folder} is not a complete backup; `kuber hub backup` makes one.") from None
    except OSError as error:
        raise ServiceError(f"The manifest {path} cannot be read: {error.strerror}; use another backup.") from None
    except ValueError:
        raise ServiceError(f"{path} is not a manifest of a backup; use another backup.") from None
    if content.get("format") != _FORMAT:
        raise ServiceError(f"The backup in {folder} was made by another version of KUber; restore it with that one.")
    try:
        known = {name: content[name] for name in (part.name for part in fields(Manifest)) if name in content}
        known["lacking"] = tuple(known.get("lacking", ()))
        if "made_at" in known:
            known["made_at"] = datetime.fromisoformat(known["made_at"])
        else:
            known["made_at"] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        known["assigned"] = {str(name): int(last) for name, last in known.get("assigned", {}).items()}
        if known.get("newest") is not None:
            known["newest"] = int(known["newest"][0]), str(known["newest"][1])
        members = known.get("members", {})
        known["members"] = Members(**{**members, "names": tuple(members.get("names", ()))})
        return Manifest(**known)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ServiceError(f"{path} is not a manifest of a backup; use another backup.") from None


def newest_record(connection: sqlite3.Connection) -> tuple[int, str] | None:
    """Return row number and id of the newest record in a registry's database; None without any."""
    row = connection.execute("SELECT seq, id FROM knowledge ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def members_in(connection: sqlite3.Connection, now: datetime) -> Members:
    """Return who may use a hub, by its registry's database."""
    moment = now.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")

    def count(query: str, *values: str) -> int:
        return int(connection.execute(query, values).fetchone()[0])

    names = connection.execute("SELECT name FROM entities ORDER BY seq LIMIT ?", (_NAMED,))
    return Members(
        entities=count("SELECT count(*) FROM entities"),
        names=tuple(name for (name,) in names),
        tokens=count(
            "SELECT count(*) FROM tokens WHERE entity IS NOT NULL AND revoked_at IS NULL AND expires_at > ?", moment
        ),
        invitations=count("SELECT count(*) FROM invitations WHERE used_at IS NULL AND expires_at > ?", moment),
    )


def remember_backup(registry: Path, folder: Path) -> None:
    """Note in the registry's folder where its last backup lies. A folder that cannot be written is left alone."""
    with suppress(OSError):
        content = json.dumps({"folder": str(folder.absolute())}) + "\n"
        write_atomically(registry / LAST_BACKUP, content.encode())


def last_backup(registry: Path) -> Path | None:
    """Return the folder of the registry's last backup; None if none is known.

    Raises ServiceError when the note cannot be read.
    """
    path = registry / LAST_BACKUP
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["folder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ServiceError(
            f"{path} does not say where the last backup lies; remove the file, or name the backup with --backup."
        ) from None

"""Backups of a hub's data, made while it runs, and their restoration to empty folders."""

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kuber.domain.event import utc_now
from kuber.errors import ServiceError
from kuber.files import write_all
from kuber.services.backup_manifest import (
    Manifest,
    members_in,
    newest_record,
    read_manifest,
    remember_backup,
    write_manifest,
)
from kuber.services.db.integrity import assigned_numbers, damage
from kuber.services.vault.filesystem import make_folder, sync_folder
from kuber.services.vault.storage import CHUNK

REGISTRY, VAULT = "registry.sqlite", "vault.sqlite"
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupSummary:
    """Counts of a backup or restoration.

    `lacking` are the digests that records name but whose bytes are lost or damaged.
    """

    records: int
    blobs: int
    size: int  # bytes of the blobs
    lacking: tuple[str, ...]


def backup(folder: Path, *, registry: Path, vault: Path, copy: bool = False) -> BackupSummary:
    """Copy the data of both services into `folder`, which must be new or empty; the services may be running.

    The registry's database is copied first: blobs that its rows name are pinned, so the vault keeps them until they
    are copied. Blobs become hard links if `folder` is on the vault's disk, unless `copy` is set. The manifest, which
    `restore` requires, is written last.
    """
    _require_empty(folder)
    if not (vault / "blobs").is_dir():
        raise ServiceError(
            f"{vault} holds no blobs; a vault with --store has them in its bucket: back that up with its own tools."
        )
    with _as_service_error(f"The backup in {folder} cannot be written"):
        make_folder(folder.absolute())
        _copy_database(registry / REGISTRY, folder / REGISTRY)
        _copy_database(vault / VAULT, folder / VAULT)
        summary = _copy_blobs(vault / "blobs", folder / "blobs", folder, link=not copy)
        with _open(folder / REGISTRY) as connection:
            now = utc_now()
            manifest = Manifest(
                records=summary.records,
                blobs=summary.blobs,
                size=summary.size,
                lacking=summary.lacking,
                made_at=now,
                assigned=assigned_numbers(connection),
                newest=newest_record(connection),
                members=members_in(connection, now),
            )
        write_manifest(folder, manifest)
        sync_folder(folder)
    remember_backup(registry, folder)
    return summary


def restore(folder: Path, *, registry: Path, vault: Path) -> tuple[BackupSummary, Manifest]:
    """Restore a backup to the folders of services that are not running; both must be new or empty.

    Every blob is verified; those damaged in the backup are omitted and listed. Databases come last. Return what was
    restored, and the backup's manifest with who may use the hub now.
    """
    manifest = read_manifest(folder)
    _require_empty(registry)
    _require_empty(vault)
    with _as_service_error(f"The backup in {folder} cannot be restored"):
        make_folder(vault.absolute())
        make_folder(registry.absolute())
        summary = _copy_blobs(folder / "blobs", vault / "blobs", folder, link=False)
        _copy_database(folder / VAULT, vault / VAULT)
        _copy_database(folder / REGISTRY, registry / REGISTRY)
        with _open(registry / REGISTRY) as connection:
            manifest = replace(manifest, members=members_in(connection, utc_now()))
    return summary, manifest


def _copy_blobs(source: Path, target: Path, databases: Path, *, link: bool) -> BackupSummary:
    """Copy every blob that the vault's database knows."""
    make_folder(target.absolute())
    blobs = size = 0
    copied = set()
    with _open(databases / VAULT) as connection:
        for (hex,) in connection.execute("SELECT digest FROM blobs ORDER BY digest"):
            if not _HEX.fullmatch(str(hex)):  # of a damaged database; it would be a path of somebody's choice
                continue
            path = Path(hex[:2], hex[2:4], hex)
            length = _copy_blob(source / path, target / path, link=link)
            if length is not None:  # otherwise it was collected since, or is damaged
                blobs, size = blobs + 1, size + length
                copied.add(hex)
    with _open(databases / REGISTRY) as connection:
        named = {hex for (hex,) in connection.execute("SELECT DISTINCT digest FROM knowledge_artifacts")}
        (records,) = connection.execute("SELECT count(*) FROM knowledge").fetchone()
    lacking = tuple(f"sha256:{hex}" for hex in sorted(named - copied))
    return BackupSummary(records=records, blobs=blobs, size=size, lacking=lacking)


def _copy_blob(source: Path, target: Path, *, link: bool) -> int | None:
    """Copy a blob and return its size; None if it is missing or damaged. A linked blob is not verified."""
    make_folder(target.parent.absolute())
    if link:
        try:
            os.link(source, target)
            return target.stat().st_size
        except FileNotFoundError:
            return None
        except OSError:
            pass  # another disk, or a file system without hard links: copy it
    sha = hashlib.sha256()
    try:
        with source.open("rb") as read, target.open("xb", buffering=0) as written:
            while piece := read.read(CHUNK):
                sha.update(piece)
                write_all(written, piece)
            os.fsync(written.fileno())
    except FileNotFoundError:
        return None
    if sha.hexdigest() != target.name:
        target.unlink()
        return None
    sync_folder(target.parent)
    return target.stat().st_size


def _copy_database(source: Path, target: Path) -> None:
    with _open(source) as read, contextlib.closing(sqlite3.connect(target)) as written:
        read.backup(written)  # a consistent snapshot, even during writes
    fault = damage(target)
    if fault is not None:
        raise ServiceError(f"The database {source} is damaged ({fault}); restore a backup that was made before.")
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    sync_folder(target.parent)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise ServiceError(
            f"There is no database {path}; check the folder. Back up a PostgreSQL database with pg_dump."
        )
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        yield connection


@contextlib.contextmanager
def _as_service_error(failure: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ServiceError(f"{failure}: {reason}.") from None


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ServiceError(f"{folder} is not empty; choose a new folder.")

"""Copies of a hub's data, made while it runs, and brought back to empty folders."""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kuber.errors import ServiceError
from kuber.services.vault.filesystem import make, sync
from kuber.services.vault.storage import CHUNK

REGISTRY, VAULT, MARK = "registry.sqlite", "vault.sqlite", "backup.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What was copied; `lacking` are the digests that records name and whose bytes are gone or damaged."""

    records: int
    blobs: int
    size: int  # bytes of the blobs
    lacking: tuple[str, ...]


def backup(folder: Path, *, registry: Path, vault: Path, copy: bool = False) -> Copied:
    """Copy the data of both services into `folder`, which is new or empty; the services may run meanwhile.

    The registry's database comes first: what its rows name was pinned before, so the vault keeps it until it is
    copied. Blobs are hard links where `folder` is on the vault's disk, unless `copy` is set. The mark that `restore`
    asks for is written last.
    """
    _require_empty(folder)
    if not (vault / "blobs").is_dir():
        raise ServiceError(
            f"{vault} holds no blobs; a vault with --store has them in its bucket: back that up by its own means."
        )
    with _told(f"The backup in {folder} cannot be written"):
        make(folder.absolute())
        _copy_database(registry / REGISTRY, folder / REGISTRY)
        _copy_database(vault / VAULT, folder / VAULT)
        done = _copy_blobs(vault / "blobs", folder / "blobs", folder, link=not copy)
        mark = {"format": _FORMAT, **asdict(done)}
        (folder / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        sync(folder)
    return done


def restore(folder: Path, *, registry: Path, vault: Path) -> Copied:
    """Bring a backup back to the folders of services that do not run yet; both are new or empty.

    Every blob is compared with its digest; one that rotted in the backup is left out and told. Databases come last.
    """
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ServiceError(f"{folder} is no finished backup; `kuber hub backup` makes one.") from None
    if not isinstance(mark, dict) or mark.get("format") != _FORMAT:
        raise ServiceError(f"The backup in {folder} was made by another version of KUber; restore it with that one.")
    _require_empty(registry)
    _require_empty(vault)
    with _told(f"The backup in {folder} cannot be restored"):
        make(vault.absolute())
        make(registry.absolute())
        done = _copy_blobs(folder / "blobs", vault / "blobs", folder, link=False)
        _copy_database(folder / VAULT, vault / VAULT)
        _copy_database(folder / REGISTRY, registry / REGISTRY)
    return done


def _copy_blobs(source: Path, target: Path, databases: Path, *, link: bool) -> Copied:
    """Copy every blob that the vault's database knows."""
    make(target.absolute())
    blobs = size = 0
    copied = set()
    with _open(databases / VAULT) as connection:
        for (hex,) in connection.execute("SELECT digest FROM blobs ORDER BY digest"):
            place = Path(hex[:2], hex[2:4], hex)
            length = _copy_blob(source / place, target / place, link=link)
            if length is not None:  # else it was collected since, or has rotted
                blobs, size = blobs + 1, size + length
                copied.add(hex)
    with _open(databases / REGISTRY) as connection:
        named = {hex for (hex,) in connection.execute("SELECT DISTINCT digest FROM knowledge_artifacts")}
        (records,) = connection.execute("SELECT count(*) FROM knowledge").fetchone()
    lacking = tuple(f"sha256:{hex}" for hex in sorted(named - copied))
    return Copied(records=records, blobs=blobs, size=size, lacking=lacking)


def _copy_blob(source: Path, target: Path, *, link: bool) -> int | None:
    """Its size; None where the file is gone, or is not what its name says (a link is taken as it is)."""
    make(target.parent.absolute())
    if link:
        try:
            os.link(source, target)
            return target.stat().st_size
        except FileNotFoundError:
            return None
        except OSError:
            pass  # another disk, or a file system without links: a copy does as well
    sha = hashlib.sha256()
    try:
        with source.open("rb") as read, target.open("xb") as written:
            while piece := read.read(CHUNK):
                sha.update(piece)
                written.write(piece)
            written.flush()
            os.fsync(written.fileno())
    except FileNotFoundError:
        return None
    if sha.hexdigest() != target.name:
        target.unlink()
        return None
    sync(target.parent)
    return target.stat().st_size


def _copy_database(source: Path, target: Path) -> None:
    with _open(source) as read, contextlib.closing(sqlite3.connect(target)) as written:
        read.backup(written)  # one state of it, whoever writes meanwhile
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    sync(target.parent)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise ServiceError(
            f"There is no database {path}; check the folder. One that is on PostgreSQL is copied with pg_dump."
        )
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        yield connection


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ServiceError(f"{what}: {reason}.") from None


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ServiceError(f"{folder} is not empty; name a new folder.")

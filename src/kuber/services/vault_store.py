"""The vault on a folder: blobs as files named by digest, and a database that indexes and pins them."""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Index,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)

from kuber.domain.admission import check_text
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.domain.query import MAX_LIMIT, Page
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError, ServiceError
from kuber.services.database import Database

CHUNK = 1 << 20  # bytes read or written at a time

log = logging.getLogger(__name__)

tables = MetaData()
blob_rows = Table(
    "blobs",
    tables,
    Column("digest", String(64), primary_key=True),  # hex; its file is blobs/<2 digits>/<2 digits>/<hex>
    Column("size", BigInteger, nullable=False),
    Column("stored_at", DateTime(timezone=True), nullable=False),
)
# No foreign key: a promise outlives the loss of a file, and holds again when the bytes come back.
pin_rows = Table(
    "pins",
    tables,
    Column("holder", String(200), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("pinned_at", DateTime(timezone=True), nullable=False),
    Index("pins_by_digest", "digest"),
)


def utc_now() -> datetime:
    return datetime.now(UTC)


class VaultStore:
    """The Vault port on the files under `folder`. Safe to use from several threads, closed by `close`.

    At start leftovers of a crash are swept and the index is reconciled with the files. Raises ServiceError when the
    folder cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._clock = clock
        self._database = Database(folder / "vault.sqlite", history="vault")
        try:
            self._blobs.mkdir(exist_ok=True)
            self._incoming.mkdir(exist_ok=True)
            self._sweep()
            self._reconcile()
        except OSError as error:
            self._database.close()
            raise ServiceError(f"The vault's folder {folder} cannot be used: {error.strerror}.") from None

    def close(self) -> None:
        """Finish what is being written and let go of the folder."""
        self._database.close()

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing."""
        with self.receive() as blob:
            blob.write(data)
            artifact, _ = blob.keep(Digest(blob.hex))
        return artifact

    @contextmanager
    def receive(self) -> Iterator["Incoming"]:
        """A blob to write piece by piece; unless it is kept, nothing of it stays."""
        blob = Incoming(self, self._incoming / secrets.token_hex(16))
        try:
            yield blob
        finally:
            blob.discard()

    def get(self, digest: Digest) -> bytes:
        """The bytes with this digest, verified."""
        with self.open(digest) as file:
            data = file.read()
        if Digest.of(data) != digest:
            raise CorruptKnowledgeError(f"The file of blob {digest} is damaged in the vault; publish it again.")
        return data

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's file, for reading; the reader verifies what it reads."""
        if self.size(digest) is None:
            raise _missing(digest)
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            raise ServiceError(f"The vault cannot read blob {digest}: {error.strerror}.") from None

    def head(self, digest: Digest, length: int) -> bytes:
        """The first `length` bytes of a blob, or all of a shorter one."""
        with self.open(digest) as file:
            return file.read(length)

    def size(self, digest: Digest) -> int | None:
        """How many bytes are stored under this digest; None when there are none."""
        with self._database.read() as connection:
            size: int | None = connection.scalar(select(blob_rows.c.size).where(blob_rows.c.digest == digest.hex))
        return size

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """What is stored, in order of digest; a cursor is the digest that ended the page before."""
        if not 1 <= limit <= MAX_LIMIT:
            raise RequestRejectedError(f"A page has 1 to {MAX_LIMIT} entries; ask for that many.")
        query = select(blob_rows.c.digest, blob_rows.c.size).order_by(blob_rows.c.digest).limit(limit + 1)
        if cursor is not None:
            try:
                query = query.where(blob_rows.c.digest > Digest(cursor).hex)
            except ValueError:
                raise RequestRejectedError("The cursor is not one of this vault; start again without it.") from None
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        items = tuple(Artifact(digest=Digest(row.digest), size=row.size) for row in rows[:limit])
        return Page(items=items, cursor=items[-1].digest.hex if len(rows) > limit else None)

    def pin(self, holder: str, artifacts: Iterable[Artifact]) -> None:
        """Promise to keep these blobs for `holder`, all or none."""
        check_text(holder, "The name of a holder")
        wanted = set(artifacts)
        now = self._clock()

        def work(connection: Connection) -> None:
            digests = {artifact.digest.hex for artifact in wanted}
            stored = select(blob_rows.c.digest, blob_rows.c.size).where(blob_rows.c.digest.in_(digests))
            sizes = {row.digest: row.size for row in connection.execute(stored)}
            for artifact in wanted:
                _check_stored(artifact, sizes.get(artifact.digest.hex))
            held = set(connection.scalars(select(pin_rows.c.digest).where(pin_rows.c.holder == holder)))
            new = [{"holder": holder, "digest": digest, "pinned_at": now} for digest in sorted(digests - held)]
            if new:
                connection.execute(insert(pin_rows), new)

        self._database.write(work)

    def pinned(self, digest: Digest) -> list[str]:
        """Who holds this blob, in order of name."""
        query = select(pin_rows.c.holder).where(pin_rows.c.digest == digest.hex).order_by(pin_rows.c.holder)
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def path(self, digest: Digest) -> Path:
        """Where the file of this blob is, or would be."""
        return self._blobs / digest.hex[:2] / digest.hex[2:4] / digest.hex

    def add(self, artifact: Artifact) -> bool:
        """Index a blob whose file is in place; whether it is a new one."""
        row = {"digest": artifact.digest.hex, "size": artifact.size, "stored_at": self._clock()}

        def work(connection: Connection) -> bool:
            present = select(blob_rows.c.digest).where(blob_rows.c.digest == artifact.digest.hex)
            if connection.scalar(present) is not None:
                return False
            connection.execute(insert(blob_rows), row)
            return True

        return self._database.write(work)

    def _sweep(self) -> None:
        for leftover in self._incoming.iterdir():
            log.warning("removed %s, left by a crash", leftover.name)
            leftover.unlink()

    def _reconcile(self) -> None:
        """Make the index say what the folder holds. Only files that the index does not know are read."""
        with self._database.read() as connection:
            sizes = {row.digest: row.size for row in connection.execute(select(blob_rows.c.digest, blob_rows.c.size))}
        found = {file.name: file for file in self._blobs.glob("*/*/*")}
        sound = {name for name, file in found.items() if sizes.get(name) == file.stat().st_size}
        lost = sorted(sizes.keys() - sound)
        if lost:
            log.warning("%d blobs are gone or damaged on disk", len(lost))
            doomed = [{"doomed": name} for name in lost]
            self._database.write(
                lambda connection: connection.execute(
                    delete(blob_rows).where(blob_rows.c.digest == bindparam("doomed")), doomed
                )
            )
        for name in sorted(found.keys() - sound):
            artifact = _artifact(found[name])
            if artifact is None:
                log.warning("removed %s, which is not what its name says", found[name])
                found[name].unlink()
            else:
                self.add(artifact)


class Incoming:
    """A blob on its way in. Made by VaultStore.receive."""

    def __init__(self, store: VaultStore, path: Path) -> None:
        self.size = 0
        self._store = store
        self._path = path
        self._sha = hashlib.sha256()
        try:
            self._file: BinaryIO = path.open("xb", buffering=0)
        except OSError as error:
            raise _unwritable(error) from None

    @property
    def hex(self) -> str:
        """The digest of what was written so far, as hex digits."""
        return self._sha.hexdigest()

    def write(self, piece: bytes | bytearray) -> None:
        """Append these bytes; large pieces are best."""
        view = memoryview(piece)
        self._sha.update(view)
        self.size += len(view)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _unwritable(error) from None

    def keep(self, digest: Digest) -> tuple[Artifact, bool]:
        """Store what was written under `digest`: the artifact, and whether it is new.

        A file that was there already is replaced, which heals a damaged one. Raises CorruptKnowledgeError when the
        bytes are others than named, RequestRejectedError when there are none.
        """
        if self.hex != digest.hex:
            raise CorruptKnowledgeError(f"The bytes sent are sha256:{self.hex}, not {digest}; send them again.")
        if not self.size:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        target = self._store.path(digest)
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            _make(target.parent)
            self._path.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise _unwritable(error) from None
        artifact = Artifact(digest=digest, size=self.size)
        return artifact, self._store.add(artifact)

    def discard(self) -> None:
        """Remove what was written, unless it was kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    """Make a folder and those above it so that they survive a power cut."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _artifact(file: Path) -> Artifact | None:
    """What the file is if its bytes are what its name says, else None."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    size = file.stat().st_size
    return Artifact(digest=Digest(found), size=size) if found == file.name and size else None


def _check_stored(artifact: Artifact, size: int | None) -> None:
    if size is None:
        raise RequestRejectedError(f"Blob {artifact.digest} is not in the vault; put it there first.")
    if size != artifact.size:
        raise RequestRejectedError(f"Blob {artifact.digest} has {size} bytes, not the {artifact.size} told.")


def _missing(digest: Digest) -> KnowledgeNotFoundError:
    return KnowledgeNotFoundError(f"The vault has no blob {digest}.")


def _unwritable(error: OSError) -> ServiceError:
    return ServiceError(f"The vault cannot store the blob: {error.strerror}.")

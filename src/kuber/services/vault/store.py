"""Store of the vault: a blob storage, and a database that indexes, leases and pins the blobs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from kuber.domain.blob import Owner, Pin
from kuber.domain.digest import Digest
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Artifact, Manifest
from kuber.domain.query import Page, check_limit
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, KUberError, RequestRejectedError, ServiceError
from kuber.services.db.database import Database, database_location
from kuber.services.db.sqlite import lock_file
from kuber.services.http import pagination as cursors
from kuber.services.vault.artifact_verdicts import check_size
from kuber.services.vault.blob_writer import HashingWriter
from kuber.services.vault.filesystem import INDEX, FilesystemStorage
from kuber.services.vault.free_disk import FreeDisk
from kuber.services.vault.pinning import Pinned, PinRequest, pin_all
from kuber.services.vault.quota import Receiving, Reservation, check_quota
from kuber.services.vault.reconciliation import check_storage_id, reconcile
from kuber.services.vault.schema import blob_rows, pin_rows, upload_rows
from kuber.services.vault.storage import BlobReader, BlobStorage, StagedBlob
from kuber.services.vault.total_quota import TotalQuota

LEASE = timedelta(hours=1)  # for which an uploaded blob is kept without a pin

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_SIZE = select(blob_rows.c.size).where(blob_rows.c.digest == bindparam("digest"))
_INSERT = insert(blob_rows)
_EXTEND = (
    update(blob_rows)
    .where(blob_rows.c.digest == bindparam("of"), blob_rows.c.leased_until < bindparam("until"))
    .values(leased_until=bindparam("until"))
)


class VaultStore:
    """Vault port on a blob storage and an index in `folder`. Safe to use from several threads.

    At start the index is reconciled with the storage. Raises ServiceError when the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        storage: BlobStorage | None = None,
        database: str | None = None,
        lease: timedelta = LEASE,
        quota: int = 0,
        total_quota: int = 0,
        keep_free: int | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Use `storage` instead of files in the folder, and the PostgreSQL database at this URL instead of a SQLite
        file there. `quota` limits the bytes of each owner, `total_quota` those of all; 0 sets no limit. `keep_free`
        is how many bytes of the disk stay free, as FreeDisk says.
        """
        self.folder = folder
        self.quota = quota
        self.clock = clock
        self.receiving = Receiving(self)
        self.lease = lease
        index = folder / INDEX
        location = database_location(database, index)
        self._folder_lock = None if location is index else lock_file(index)  # SQLite locks its own file
        self.database = Database(location, history="vault")
        self.total = TotalQuota(self.database, folder / "uploads", total_quota, arriving=lambda: self.receiving.bytes)
        try:
            self.disk = FreeDisk(folder, keep_free)
            self.storage: BlobStorage = storage or FilesystemStorage(folder, disk=self.disk)
            if storage is not None or self.database.shared:
                check_storage_id(self)
            reconcile(self)
        except OSError as error:
            self.close()
            raise ServiceError(f"The vault's folder {folder} cannot be used: {error.strerror}.") from None
        except ServiceError:
            self.close()
            raise

    def close(self) -> None:
        """Commit the waiting writes and unlock the folder."""
        self.database.close()
        if self._folder_lock is not None:
            self._folder_lock.close()

    def put(self, data: bytes) -> Artifact:
        """Store a blob. Idempotent."""
        with self.create() as writer:
            writer.write(data)
            return self.commit(writer, Digest(writer.hex))[0]

    @contextmanager
    def create(self) -> Iterator[HashingWriter]:
        """Open a writer for a new blob. What is not committed is discarded."""
        blob = self.storage.create()
        try:
            yield HashingWriter(blob)
        finally:
            blob.cancel()

    def commit(
        self,
        writer: HashingWriter,
        digest: Digest,
        *,
        owner: str | None = None,
        reservation: Reservation | None = None,
    ) -> tuple[Artifact, bool]:
        """Store what was written, for `owner`: the artifact, and whether it is new. `reservation` ends with it.

        Raises CorruptKnowledgeError when it has another digest, RequestRejectedError when it is empty.
        """
        artifact = writer.finish(digest)
        return artifact, self.commit_staged(writer.blob, artifact, owner=owner, reservation=reservation)

    def commit_staged(
        self,
        blob: StagedBlob,
        artifact: Artifact,
        *,
        owner: str | None = None,
        upload: str | None = None,
        reservation: Reservation | None = None,
    ) -> bool:
        """Store a staged blob under its digest, then index it and begin its lease. Return whether it is new.

        Stored bytes are replaced, which repairs a damaged blob. A new blob belongs to `owner`; `upload` is the id of
        the upload that ends with it. When the index cannot be written or the owner exceeds the quota, the storage is
        rolled back. In any case the blob is staged no longer.
        """
        try:
            with self.lock(artifact.digest):
                blob.commit(artifact.digest)
                try:
                    return self.index(artifact, owner=owner, upload=upload, reservation=reservation)
                except ServiceError:
                    if self.size(artifact.digest) is None:
                        blob.rollback()
                    raise
        finally:
            blob.cancel()

    def get(self, digest: Digest) -> bytes:
        """Return the bytes of a blob, verified."""
        with self.open(digest) as file:
            data = file.read()
        if Digest.of(data) != digest:
            raise CorruptKnowledgeError(f"The file of blob {digest} is damaged in the vault; publish it again.")
        return data

    def open(self, digest: Digest) -> BlobReader:
        """Open a blob for reading. The bytes are not verified."""
        size = self.size(digest)
        if size is None:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.")
        return self.storage.open(Artifact(digest=digest, size=size))

    def head(self, digest: Digest, length: int) -> bytes:
        """Return the first `length` bytes of a blob, or all of a shorter one."""
        with self.open(digest) as file:
            return file.read(length)

    def size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None when it is not stored."""
        with self.database.read_snapshot() as connection:
            size: int | None = connection.scalar(_SIZE, {"digest": digest.hex})
        return size

    def owner(self, digest: Digest) -> Owner | None:
        """Return the owner of a blob; None when it is not stored."""
        columns = blob_rows.c.owner, blob_rows.c.stored_at
        with self.database.read_snapshot() as connection:
            row = connection.execute(select(*columns).where(blob_rows.c.digest == digest.hex)).one_or_none()
        return None if row is None else Owner(entity=row.owner, stored_at=row.stored_at)

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """Return a page of the stored blobs, ordered by digest; a cursor is the last digest of the previous page."""
        check_limit(limit)
        query = select(blob_rows.c.digest, blob_rows.c.size).order_by(blob_rows.c.digest).limit(limit + 1)
        if cursor is not None:
            try:
                query = query.where(blob_rows.c.digest > Digest(cursor).hex)
            except ValueError:
                raise RequestRejectedError("The cursor is not one of this vault; start again without it.") from None
        with self.database.read_snapshot() as connection:
            rows = connection.execute(query).all()
        items = tuple(Artifact(digest=Digest(row.digest), size=row.size) for row in rows[:limit])
        return Page(items=items, cursor=items[-1].digest.hex if len(rows) > limit else None)

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Keep these (kind, artifact) pairs for `holder`; all or none. Return the manifests of weights."""
        (result,) = self.pin_all([PinRequest(holder=holder, artifacts=tuple(artifacts))])
        if isinstance(result, KUberError):
            raise result
        return result

    def pin_all(self, requests: Iterable[PinRequest]) -> list[Pinned]:
        """Pin for several holders in one transaction; return the result or the refusal of each, in their order.

        Small blobs that come with a request are stored first.
        """
        return pin_all(self, requests)

    def unpin(self, holder: str) -> None:
        """Delete all pins of `holder`. Idempotent."""
        now = self.clock()

        def work(connection: Connection) -> None:
            held = select(pin_rows.c.digest).where(pin_rows.c.holder == holder)
            free = blob_rows.c.digest.in_(held) & (blob_rows.c.leased_until < now)
            connection.execute(update(blob_rows).where(free).values(leased_until=now))
            connection.execute(delete(pin_rows).where(pin_rows.c.holder == holder))

        self.database.write(work)

    def pins(self, *, limit: int = 100, cursor: str | None = None) -> Page[Pin]:
        """Return a page of the pins, ordered by holder and digest."""
        check_limit(limit)
        query = select(pin_rows).order_by(pin_rows.c.holder, pin_rows.c.digest).limit(limit + 1)
        if cursor is not None:
            after = cursors.decode(cursor, "pins", str, str)
            query = query.where(tuple_(pin_rows.c.holder, pin_rows.c.digest) > tuple_(*after))
        with self.database.read_snapshot() as connection:
            rows = connection.execute(query).all()
        items = tuple(
            Pin(holder=row.holder, digest=Digest(row.digest), pinned_at=row.pinned_at) for row in rows[:limit]
        )
        more = len(rows) > limit
        return Page(items=items, cursor=cursors.encode("pins", *rows[limit - 1][:2]) if more else None)

    def pinned(self, digest: Digest) -> list[str]:
        """Return the holders of a blob, ordered by name."""
        query = select(pin_rows.c.holder).where(pin_rows.c.digest == digest.hex).order_by(pin_rows.c.holder)
        with self.database.read_snapshot() as connection:
            return list(connection.scalars(query))

    def lock(self, *digests: Digest) -> AbstractContextManager[None]:
        """Lock these blobs against commits and deletions by other threads and vaults on this index.

        A commit writes the bytes before the row, a deletion deletes them after it. Neither may come between the two
        steps of another: otherwise a collection would delete the bytes of a blob that was just put again.
        """
        return self.database.lock("blob", *(digest.hex for digest in digests))

    def renew_lease(self, artifact: Artifact) -> bool:
        """Extend the lease of a blob as its upload would. Return whether the blob is stored.

        Raises RequestRejectedError when its size differs.
        """
        size = self.size(artifact.digest)
        if size is None:
            return False
        check_size(artifact, size)
        return self.database.write(lambda connection: self._extend_lease(connection, artifact.digest))

    def index(
        self,
        artifact: Artifact,
        *,
        owner: str | None = None,
        upload: str | None = None,
        reservation: Reservation | None = None,
    ) -> bool:
        """Add a row for stored bytes, or extend its lease. Return whether it is new."""
        now = self.clock()
        row = {"digest": artifact.digest.hex, "size": artifact.size, "stored_at": now, "owner": owner}

        def work(connection: Connection) -> bool:
            if upload is not None:
                connection.execute(delete(upload_rows).where(upload_rows.c.id == upload))
            if self._extend_lease(connection, artifact.digest):
                return False
            check_quota(connection, artifact, owner=owner, quota=self.quota)
            if upload is None:  # the bytes of an upload count as they arrive
                if owner is not None and reservation is None:
                    self.total.check(artifact.size, connection=connection)
                self.total.add(artifact.size)
            connection.execute(_INSERT, {**row, "leased_until": now + self.lease})
            if reservation is not None:
                reservation.close()  # from now on the row counts
            return True

        return self.database.write(work)

    def _extend_lease(self, connection: Connection, digest: Digest) -> bool:
        if connection.scalar(_SIZE, {"digest": digest.hex}) is None:
            return False
        connection.execute(_EXTEND, {"of": digest.hex, "until": self.clock() + self.lease})
        return True

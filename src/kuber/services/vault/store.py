"""The store of the vault: blobs on their shelves, and a database that indexes and pins them."""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, tuple_, update

from kuber.domain.blob import Pin
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.domain.publication_checks import check_kind, check_text, unsound
from kuber.domain.query import MAX_LIMIT, Page
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError, ServiceError
from kuber.services.db.database import Database, database_location
from kuber.services.db.sqlite import lock_file
from kuber.services.http import pagination as cursors
from kuber.services.vault.artifact_verdicts import find_fault, known_fault, remember
from kuber.services.vault.blob_writer import HashingWriter
from kuber.services.vault.filesystem import FilesystemStorage
from kuber.services.vault.quota import check_room
from kuber.services.vault.schema import blob_rows, pin_rows, shelf_rows, upload_rows
from kuber.services.vault.storage import MARK, BlobReader, BlobStorage, BlobWriter

LEASE = timedelta(hours=1)  # that a blob is kept after its upload, for a record to name it
_BATCH = 64  # blobs that are guarded at a time

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class VaultStore:
    """The Vault port on an index in `folder`, and on shelves. Safe to use from several threads, closed by `close`.

    At start the index is reconciled with what lies on the shelves. Raises ServiceError when the folder cannot be
    used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shelves: BlobStorage | None = None,
        database: str | None = None,
        lease: timedelta = LEASE,
        quota: int = 0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """The bytes lie on `shelves`; without any, in `folder` too. `database` is the URL of a PostgreSQL database;
        without one the index is a SQLite file in the folder. `quota` is how many bytes one owner may hold; 0: as many
        as there is space for.
        """
        self.folder = folder
        self.quota = quota
        self.clock = clock
        self._lease = lease
        index = folder / "vault.sqlite"
        place = database_location(database, index)
        self._held = None if place is index else lock_file(index)  # SQLite locks its own file
        self.database = Database(place, history="vault")
        try:
            self.shelves: BlobStorage = shelves or FilesystemStorage(folder)
            if shelves is not None or self.database.shared:
                self._check_mark()
            self._reconcile()
        except OSError as error:
            self.close()
            raise ServiceError(f"The vault's folder {folder} cannot be used: {error.strerror}.") from None
        except ServiceError:
            self.close()
            raise

    def close(self) -> None:
        """Finish what is being written and let go of the folder."""
        self.database.close()
        if self._held is not None:
            self._held.close()

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing."""
        with self.receive() as blob:
            blob.write(data)
            artifact, _ = blob.keep(Digest(blob.hex))
        return artifact

    @contextmanager
    def receive(self, *, owner: str | None = None) -> Iterator["HashingWriter"]:
        """A blob of `owner`'s to write piece by piece; unless it is kept, nothing of it stays."""
        blob = HashingWriter(self.shelves.arrival(), partial(self.settle, owner=owner))
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

    def open(self, digest: Digest) -> BlobReader:
        """The blob, to be read; the reader verifies what it reads."""
        size = self.size(digest)
        if size is None:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.")
        return self.shelves.open(Artifact(digest=digest, size=size))

    def head(self, digest: Digest, length: int) -> bytes:
        """The first `length` bytes of a blob, or all of a shorter one."""
        with self.open(digest) as file:
            return file.read(length)

    def size(self, digest: Digest) -> int | None:
        """How many bytes are stored under this digest; None when there are none."""
        with self.database.read_snapshot() as connection:
            size: int | None = connection.scalar(select(blob_rows.c.size).where(blob_rows.c.digest == digest.hex))
        return size

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """What is stored, in order of digest; a cursor is the digest that ended the page before."""
        _check_limit(limit)
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

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> None:
        """Promise to keep these blobs, each a sound artifact of the kind before it, for `holder`; all or none."""
        check_text(holder, "The name of a holder")
        wanted = dict.fromkeys(artifacts)
        for kind, artifact in wanted:
            self._check_sound(kind, artifact)
        now = self.clock()

        def work(connection: Connection) -> None:
            digests = {artifact.digest.hex for _, artifact in wanted}
            stored = select(blob_rows.c.digest, blob_rows.c.size).where(blob_rows.c.digest.in_(digests))
            sizes = {row.digest: row.size for row in connection.execute(stored)}
            for _, artifact in wanted:
                _check_stored(artifact, sizes.get(artifact.digest.hex))
            held = set(connection.scalars(select(pin_rows.c.digest).where(pin_rows.c.holder == holder)))
            new = [{"holder": holder, "digest": digest, "pinned_at": now} for digest in sorted(digests - held)]
            if new:
                connection.execute(insert(pin_rows), new)

        self.database.write(work)

    def unpin(self, holder: str) -> None:
        """Take back every promise to `holder`; without any, nothing changes."""
        now = self.clock()

        def work(connection: Connection) -> None:
            held = select(pin_rows.c.digest).where(pin_rows.c.holder == holder)
            free = blob_rows.c.digest.in_(held) & (blob_rows.c.leased_until < now)
            connection.execute(update(blob_rows).where(free).values(leased_until=now))
            connection.execute(delete(pin_rows).where(pin_rows.c.holder == holder))

        self.database.write(work)

    def pins(self, *, limit: int = 100, cursor: str | None = None) -> Page[Pin]:
        """Every promise, in order of holder and digest."""
        _check_limit(limit)
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
        """Who holds this blob, in order of name."""
        query = select(pin_rows.c.holder).where(pin_rows.c.digest == digest.hex).order_by(pin_rows.c.holder)
        with self.database.read_snapshot() as connection:
            return list(connection.scalars(query))

    @contextmanager
    def guard(self, *digests: Digest) -> Iterator[None]:
        """Keep others from giving these blobs their bytes, or taking them, meanwhile; also other vaults on one index.

        A row is taken away before its bytes and given after them. Between the two steps of one hand no other may
        come: else a collection would remove the bytes of a blob that was just put again.
        """
        with self.database.lock("blob", *(digest.hex for digest in digests)):
            yield

    def settle(
        self, arrival: BlobWriter, artifact: Artifact, *, upload: str | None = None, owner: str | None = None
    ) -> bool:
        """Give a whole blob its place and index it: whether it is new.

        Its lease begins; a new one is `owner`'s. `upload` is the row that has come to its end with it. When the index
        cannot be written, or the owner holds too much, it has no place, as before.
        """
        with self.guard(artifact.digest):
            arrival.place(artifact.digest)
            try:
                return self._index(artifact, upload, owner)
            except ServiceError:
                if self.size(artifact.digest) is None:
                    arrival.take_back(artifact.digest)
                raise

    def renew(self, artifact: Artifact) -> bool:
        """Lease a blob anew, as its upload does: whether it is stored. RequestRejectedError when its size differs."""
        size = self.size(artifact.digest)
        if size is None:
            return False
        _check_stored(artifact, size)
        return self.database.write(lambda connection: self._lease_again(connection, artifact.digest))

    def _check_sound(self, kind: str, artifact: Artifact) -> None:
        """RequestRejectedError unless the blob is stored and is a sound artifact of this kind."""
        check_kind(kind)
        known = known_fault(self.database, kind, artifact.digest)
        _check_stored(artifact, self.size(artifact.digest))
        if known is None:
            with self.open(artifact.digest) as file:
                known = (find_fault(file, kind, artifact),)
            remember(self.database, kind, artifact.digest, known[0])
        if known[0] is not None:
            raise unsound(artifact.digest, kind, known[0])

    def check_room(self, artifact: Artifact, *, owner: str | None) -> None:
        """InsufficientStorageError when `owner` may not bring this blob too; one that is here may be sent again."""
        if owner is not None and self.quota and self.size(artifact.digest) is None:
            with self.database.read_snapshot() as connection:
                check_room(connection, artifact, owner=owner, quota=self.quota)

    def _index(self, artifact: Artifact, upload: str | None = None, owner: str | None = None) -> bool:
        now = self.clock()
        row = {"digest": artifact.digest.hex, "size": artifact.size, "stored_at": now, "owner": owner}

        def work(connection: Connection) -> bool:
            if upload is not None:
                connection.execute(delete(upload_rows).where(upload_rows.c.id == upload))
            if self._lease_again(connection, artifact.digest):
                return False
            check_room(connection, artifact, owner=owner, quota=self.quota)
            connection.execute(insert(blob_rows), {**row, "leased_until": now + self._lease})
            return True

        return self.database.write(work)

    def _lease_again(self, connection: Connection, digest: Digest) -> bool:
        stored = connection.scalar(select(blob_rows.c.digest).where(blob_rows.c.digest == digest.hex)) is not None
        until = self.clock() + self._lease
        later = (blob_rows.c.digest == digest.hex) & (blob_rows.c.leased_until < until)
        connection.execute(update(blob_rows).where(later).values(leased_until=until))
        return stored

    def _check_mark(self) -> None:
        """ServiceError when the index is of other shelves: with these it would lose every row of theirs."""
        with self.database.lock("mark", "of the shelves"):
            with self.database.read_snapshot() as connection:
                known: str | None = connection.scalar(select(shelf_rows.c.mark))
            mark = self.shelves.mark()
            if known is None:
                if mark is None:
                    mark = secrets.token_hex(16)
                    self.shelves.give_mark(mark)
                self.database.write(lambda connection: connection.execute(insert(shelf_rows), {"mark": mark}))
            elif mark != known:
                raise ServiceError(
                    f"The index is of blobs in another place: its mark is {known}, and here it is {mark or 'none'}. "
                    f"Name that place, or another database; where the blobs were moved here, write it into {MARK!r}."
                )

    def _reconcile(self) -> None:
        """Make the index say what the shelves hold. Only blobs that the index does not know are read.

        Another vault may be at work on both: what seems to be lost, or to have no row, is looked at again.
        """
        with self.database.read_snapshot() as connection:
            rows = connection.execute(select(blob_rows.c.digest, blob_rows.c.size))
            sizes = {Digest(row.digest): row.size for row in rows}
        found = self.shelves.stock()
        sound = {digest for digest, size in found.items() if sizes.get(digest) == size}
        lost = sorted(sizes.keys() - sound)
        dropped = sum(self._drop_lost(lost[start : start + _BATCH]) for start in range(0, len(lost), _BATCH))
        if dropped:
            log.warning("%d blobs are gone or damaged", dropped)
        for digest in sorted(found.keys() - sound):
            self._adopt(digest)

    def _drop_lost(self, digests: list[Digest]) -> int:
        """Drop the rows of those whose bytes are not there, or not as many: how many."""
        with self.guard(*digests):
            there = {digest.hex: seen.size for digest in digests if (seen := self.shelves.look(digest)) is not None}

            def work(connection: Connection) -> int:
                named = blob_rows.c.digest.in_([digest.hex for digest in digests])
                rows = connection.execute(select(blob_rows.c.digest, blob_rows.c.size).where(named))
                gone = [row.digest for row in rows if there.get(row.digest) != row.size]
                connection.execute(delete(blob_rows).where(blob_rows.c.digest.in_(gone)))
                return len(gone)

            return self.database.write(work)

    def _adopt(self, digest: Digest) -> None:
        """Index a blob that has no row, if its bytes are what its name says; else remove them."""
        with self.guard(digest):
            found = self.shelves.hashed(digest) if self.size(digest) is None else None
            if found is not None and found.seen.size and found.hex == digest.hex:
                self._index(Artifact(digest=digest, size=found.seen.size))
            elif found is not None:
                log.warning("removed blob %s, which is not what its name says", digest)
                self.shelves.remove(digest)


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestRejectedError(f"A page has 1 to {MAX_LIMIT} entries; ask for that many.")


def _check_stored(artifact: Artifact, size: int | None) -> None:
    if size is None:
        raise RequestRejectedError(f"Blob {artifact.digest} is not in the vault; put it there first.")
    if size != artifact.size:
        raise RequestRejectedError(f"Blob {artifact.digest} has {size} bytes, not the {artifact.size} told.")

"""Bytes that go straight between clients and the bucket of a vault, by signed URLs."""

from datetime import UTC, datetime, timedelta

from kuber.domain.blob import DirectUrl
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import ConflictError, CorruptKnowledgeError
from kuber.services.vault.blob_writer import check_bytes
from kuber.services.vault.s3 import S3BlobWriter, S3Storage, hashed, placed, staged

TO_SEND = timedelta(hours=1)  # within which an upload begins; what has begun may last longer
TO_FETCH = timedelta(minutes=10)


class PresignedUrls:
    """Signed URLs for single objects: to write one that is staged, or to read one that is stored.

    A URL lets its holder do that one thing until it expires, as often as they like. So what was put by one is copied
    to a key that no URL reaches before it is hashed: else it could be changed between the look and the use.
    """

    def __init__(self, shelves: S3Storage) -> None:
        self._shelves = shelves
        self._bucket = shelves.bucket

    def upload_url(self, id: str) -> DirectUrl:
        """Where the bytes of an upload may be put."""
        return self._signed("PUT", staged(id), TO_SEND)

    def download_url(self, digest: Digest) -> DirectUrl:
        """Where the bytes of a stored blob may be read."""
        return self._signed("GET", placed(digest), TO_FETCH)

    def arrived(self, id: str, artifact: Artifact) -> S3BlobWriter:
        """What was put for an upload, found to be what was announced.

        ConflictError when nothing was, CorruptKnowledgeError when it is something else.
        """
        key = staged(id)
        found = self._bucket.head(key)
        if found is None:
            raise ConflictError("Nothing of the upload is in the bucket; put it there, or send it to the vault.")
        if found.size != artifact.size:
            raise CorruptKnowledgeError(
                f"The upload has {found.size} bytes in the bucket, not the {artifact.size} announced; begin again."
            )
        try:
            blob = self._shelves.copied(key)
        except FileNotFoundError:
            raise ConflictError("The upload was taken away from the bucket meanwhile; put it there again.") from None
        try:
            check_bytes(hashed(self._bucket, blob.key).hex, artifact.digest)
        except BaseException:
            blob.discard()
            raise
        return blob

    def drop(self, id: str) -> None:
        """Remove what was put for an upload, if anything was."""
        self._shelves.unstage(staged(id))

    def _signed(self, method: str, key: str, lifetime: timedelta) -> DirectUrl:
        now = datetime.now(UTC)
        return DirectUrl(url=self._bucket.signed(method, key, lifetime), expires_at=now + lifetime)

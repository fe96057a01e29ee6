"""Direct transfers between clients and the bucket of a vault, by signed URLs."""

from datetime import UTC, datetime, timedelta

from kuber.domain.blob import DirectUrl
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import ConflictError, CorruptKnowledgeError
from kuber.services.vault.blob_writer import check_digest
from kuber.services.vault.s3 import S3BlobWriter, S3Storage, blob_key, hash_object, staging_key

UPLOAD_LIFETIME = timedelta(hours=1)  # of a URL; a transfer that has begun may take longer
DOWNLOAD_LIFETIME = timedelta(minutes=10)


class PresignedUrls:
    """Signed URLs for single objects: to write a staged one, or to read a stored one.

    A URL can be used any number of times until it expires. So an uploaded object is copied to a key that no URL
    reaches before it is hashed: otherwise it could be changed between the check and the use.
    """

    def __init__(self, storage: S3Storage) -> None:
        self._storage = storage
        self._bucket = storage.bucket

    def upload_url(self, id: str) -> DirectUrl:
        """Return the URL to which the bytes of an upload may be sent."""
        return self._sign("PUT", staging_key(id), UPLOAD_LIFETIME)

    def download_url(self, digest: Digest) -> DirectUrl:
        """Return the URL from which a stored blob may be read."""
        return self._sign("GET", blob_key(digest), DOWNLOAD_LIFETIME)

    def adopt(self, id: str, artifact: Artifact) -> S3BlobWriter:
        """Stage a verified copy of what was sent to the URL of an upload.

        Raises ConflictError when nothing was sent, CorruptKnowledgeError when it is not the announced artifact.
        """
        key = staging_key(id)
        found = self._bucket.head(key)
        if found is None:
            raise ConflictError("Nothing of the upload is in the bucket; send it there, or to the vault.")
        if found.size != artifact.size:
            raise CorruptKnowledgeError(
                f"The upload has {found.size} bytes in the bucket, not the {artifact.size} announced; begin again."
            )
        try:
            blob = self._storage.adopt_object(key)
        except FileNotFoundError:
            raise ConflictError("The upload was deleted from the bucket meanwhile; send it there again.") from None
        try:
            check_digest(hash_object(self._bucket, blob.key).hex, artifact.digest)
        except BaseException:
            blob.cancel()
            raise
        return blob

    def discard(self, id: str) -> None:
        """Delete what was sent to the URL of an upload, if anything was."""
        self._storage.unstage(staging_key(id))

    def _sign(self, method: str, key: str, lifetime: timedelta) -> DirectUrl:
        now = datetime.now(UTC)
        return DirectUrl(url=self._bucket.signed_url(method, key, lifetime), expires_at=now + lifetime)

"""Hash a blob while it is written."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, RequestRejectedError
from kuber.services.vault.storage import BlobWriter, Piece

_PARALLEL_BYTES = 1 << 18  # from this size on a piece is hashed in another thread

_hashing = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hashing")


class HashingWriter:
    """Writer of a new blob that hashes what it passes on to the storage. Made by VaultStore.create."""

    def __init__(self, blob: BlobWriter) -> None:
        self.blob = blob
        self.size = 0
        self._sha = hashlib.sha256()

    @property
    def hex(self) -> str:
        """SHA-256 of what was written so far, as hex digits."""
        return self._sha.hexdigest()

    def write(self, piece: Piece) -> None:
        """Append bytes; large pieces are fastest."""
        write_hashed(self.blob.write, piece, self._sha)
        self.size += len(piece)

    def finish(self, digest: Digest) -> Artifact:
        """Check what was written against `digest`, and make it durable.

        Raises CorruptKnowledgeError when it has another digest, RequestRejectedError when it is empty.
        """
        check_digest(self.hex, digest)
        if not self.size:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        self.blob.finish()
        return Artifact(digest=digest, size=self.size)


def check_digest(hex: str, digest: Digest) -> None:
    """Raise CorruptKnowledgeError unless the received bytes, whose SHA-256 is `hex`, have this digest."""
    if hex != digest.hex:
        raise CorruptKnowledgeError(f"The bytes sent are sha256:{hex}, not {digest}; send them again.")


def write_hashed(write: Callable[[Piece], None], piece: Piece, sha: "hashlib._Hash") -> None:
    """Write and hash a piece, a large one at the same time."""
    hashed = _hashing.submit(sha.update, piece) if len(piece) >= _PARALLEL_BYTES else None
    try:
        write(piece)
    finally:
        if hashed is not None:
            hashed.result()
    if hashed is None:
        sha.update(piece)

"""A blob on its way into the vault, hashed while it comes."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, RequestRejectedError
from kuber.services.vault.storage import BlobWriter, Piece

_APART = 1 << 18  # bytes worth another thread

Settle = Callable[[BlobWriter, Artifact], bool]
"""Gives a whole blob its place and indexes it: whether it is new."""

_hashing = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hashing")


class HashingWriter:
    """A blob written piece by piece that has no name yet. Made by VaultStore.receive."""

    def __init__(self, arrival: BlobWriter, settle: Settle) -> None:
        self.size = 0
        self._arrival = arrival
        self._settle = settle
        self._sha = hashlib.sha256()

    @property
    def hex(self) -> str:
        """The digest of what was written so far, as hex digits."""
        return self._sha.hexdigest()

    def write(self, piece: Piece) -> None:
        """Append these bytes; large pieces are best."""
        write_hashed(self._arrival.write, piece, self._sha)
        self.size += len(piece)

    def keep(self, digest: Digest) -> tuple[Artifact, bool]:
        """Store what was written under `digest`: the artifact, and whether it is new.

        What lay there already is replaced, which heals a damaged blob. Raises CorruptKnowledgeError when the bytes
        are others than named, RequestRejectedError when there are none.
        """
        check_bytes(self.hex, digest)
        if not self.size:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        self._arrival.end()
        artifact = Artifact(digest=digest, size=self.size)
        return artifact, self._settle(self._arrival, artifact)

    def discard(self) -> None:
        """Remove what was written, unless it was kept."""
        self._arrival.discard()


def check_bytes(hex: str, digest: Digest) -> None:
    """CorruptKnowledgeError unless bytes of the digest `hex` are those named."""
    if hex != digest.hex:
        raise CorruptKnowledgeError(f"The bytes sent are sha256:{hex}, not {digest}; send them again.")


def write_hashed(write: Callable[[Piece], None], piece: Piece, sha: "hashlib._Hash") -> None:
    """Write a piece, and hash a large one at the same time."""
    hashed = _hashing.submit(sha.update, piece) if len(piece) >= _APART else None
    try:
        write(piece)
    finally:
        if hashed is not None:
            hashed.result()
    if hashed is None:
        sha.update(piece)

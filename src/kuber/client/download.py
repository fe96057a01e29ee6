"""A blob on its way from the vault, which goes on where it was cut."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import httpx

from kuber.domain.digest import Digest
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, ServiceError

MAX_BLOB_BYTES = 2 << 30  # a larger one is not taken into memory
TOGETHER = 1 << 20  # bytes that are hashed at a time, while the next ones come
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class Download:
    """What has come of a blob, over as many requests as it takes."""

    def __init__(self, digest: Digest, url: str) -> None:
        self.furthest = 0  # bytes held at any time; grows while there is progress
        self._digest = digest
        self._url = url
        self._start_over()

    def headers(self) -> dict[str, str]:
        """What to ask with next: the rest, provided that it is the rest of the same bytes."""
        asked = {"Accept-Encoding": "identity"}
        if self._come:
            asked |= {"Range": f"bytes={self._come}-", "If-Range": f'"{self._digest}"'}
        return asked

    def take(self, response: httpx.Response) -> bytes:
        """Read an answer as it comes; what came stays when it is cut."""
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            size = self._goes_on(response)
        else:
            self._start_over()
            size = announced(response, self._url)
        if size > MAX_BLOB_BYTES:
            raise IncompatibleKnowledgeError(
                f"Blob {self._digest} has {size} bytes, more than the {MAX_BLOB_BYTES} that are taken."
            )
        fresh: list[bytes] = []
        waiting = 0
        with ThreadPoolExecutor(1) as hashing:
            try:
                for piece in response.iter_raw():
                    if self._come + len(piece) > size:
                        raise self._corrupt()
                    self._pieces.append(piece)
                    self._come += len(piece)
                    self.furthest = max(self.furthest, self._come)
                    fresh.append(piece)
                    waiting += len(piece)
                    if waiting >= TOGETHER:
                        hashing.submit(_hash, self._sha, fresh)
                        fresh, waiting = [], 0
            finally:  # also what came before a cut
                hashing.submit(_hash, self._sha, fresh)
        if self._come != size:
            raise self._corrupt()
        return b""

    def verified(self) -> bytes:
        """The bytes; CorruptKnowledgeError when they are not what was named."""
        if self._sha.hexdigest() != self._digest.hex:
            raise self._corrupt()
        return b"".join(self._pieces)

    def _start_over(self) -> None:
        self._pieces: list[bytes] = []
        self._come = 0  # bytes
        self._sha = hashlib.sha256()

    def _goes_on(self, response: httpx.Response) -> int:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._come or int(match[2]) != int(match[3]) - 1:
            raise ServiceError(f"The vault at {self._url} sent another range than asked for; do not trust it.")
        return int(match[3])

    def _corrupt(self) -> CorruptKnowledgeError:
        return CorruptKnowledgeError(f"What the vault at {self._url} sent is not blob {self._digest}; do not use it.")


def _hash(sha: "hashlib._Hash", pieces: list[bytes]) -> None:
    for piece in pieces:
        sha.update(piece)


def announced(response: httpx.Response, url: str) -> int:
    """How many bytes an answer says it has."""
    length = response.headers.get("Content-Length", "")
    if not length.isascii() or not length.isdecimal():
        raise ServiceError(f"The vault at {url} does not tell how many bytes it sends; do not trust it.")
    return int(length)

"""A blob on its way from the vault, which goes on where it was cut."""

import hashlib
import re

import httpx

from kuber.domain.digest import Digest
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, ServiceError

MAX_BLOB_BYTES = 2 << 30  # a larger one is not taken into memory
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
        if self._data:
            asked |= {"Range": f"bytes={len(self._data)}-", "If-Range": f'"{self._digest}"'}
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
        for piece in response.iter_raw():
            self._data += piece
            if len(self._data) > size:
                raise self._corrupt()
            self._sha.update(piece)
            self.furthest = max(self.furthest, len(self._data))
        if len(self._data) != size:
            raise self._corrupt()
        return b""

    def verified(self) -> bytes:
        """The bytes; CorruptKnowledgeError when they are not what was named."""
        if self._sha.hexdigest() != self._digest.hex:
            raise self._corrupt()
        return bytes(self._data)

    def _start_over(self) -> None:
        self._data = bytearray()
        self._sha = hashlib.sha256()

    def _goes_on(self, response: httpx.Response) -> int:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != len(self._data) or int(match[2]) != int(match[3]) - 1:
            raise ServiceError(f"The vault at {self._url} sent another range than asked for; do not trust it.")
        return int(match[3])

    def _corrupt(self) -> CorruptKnowledgeError:
        return CorruptKnowledgeError(f"What the vault at {self._url} sent is not blob {self._digest}; do not use it.")


def announced(response: httpx.Response, url: str) -> int:
    """How many bytes an answer says it has."""
    length = response.headers.get("Content-Length", "")
    if not length.isascii() or not length.isdecimal():
        raise ServiceError(f"The vault at {url} does not tell how many bytes it sends; do not trust it.")
    return int(length)

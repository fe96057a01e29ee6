"""A blob on its way from the vault, which goes on where it was cut."""

import ctypes
import hashlib
import mmap
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx

from kuber.domain.digest import Digest
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, ServiceError

MAX_BLOB_BYTES = 2 << 30  # a larger one is not taken into memory
TOGETHER = 4 << 20  # bytes that are hashed at a time, while the next ones come; small ones would fight over the GIL
LARGE = 8 << 20  # bytes worth asking the system for large pages
_PAGE = mmap.PAGESIZE
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class Download:
    """What has come of a blob, over as many requests as it takes."""

    def __init__(self, digest: Digest, url: str) -> None:
        self.furthest = 0  # bytes held at any time; grows while there is progress
        self._digest = digest
        self._url = url
        self._come = 0  # bytes
        self._start_over(0)

    def headers(self) -> dict[str, str]:
        """What to ask with next: the rest, provided that it is the rest of the same bytes."""
        asked = {"Accept-Encoding": "identity"}
        if self._come:
            asked |= {"Range": f"bytes={self._come}-", "If-Range": f'"{self._digest}"'}
        return asked

    def take(self, response: httpx.Response) -> bytes:
        """Read an answer as it comes; what came stays when it is cut."""
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            self._check_goes_on(response)
        else:
            size = announced(response, self._url)
            if size > MAX_BLOB_BYTES:
                raise IncompatibleKnowledgeError(
                    f"Blob {self._digest} has {size} bytes, more than the {MAX_BLOB_BYTES} that are taken."
                )
            self._start_over(size)
        hashed = self._come
        with ThreadPoolExecutor(1) as hashing:
            try:
                for piece in response.iter_raw():
                    end = self._come + len(piece)
                    if end > self._size:
                        raise self._corrupt()
                    self._room[self._come : end] = piece
                    self._come = end
                    self.furthest = max(self.furthest, end)
                    if end - hashed >= TOGETHER:
                        hashing.submit(self._sha.update, self._room[hashed:end])
                        hashed = end
            finally:  # also what came before a cut
                hashing.submit(self._sha.update, self._room[hashed : self._come])
        if self._come != self._size:
            raise self._corrupt()
        return b""

    def verified(self) -> bytes:
        """The bytes; CorruptKnowledgeError when they are not what was named."""
        if self._sha.hexdigest() != self._digest.hex:
            raise self._corrupt()
        self._room.release()
        return self._data.getvalue()

    def _start_over(self, size: int) -> None:
        # Taken at once, filled in place and given away as it is: a list of pieces would be copied to be joined.
        # What is never sent is never backed by memory.
        self._data = BytesIO(bytes(size))
        self._room = self._data.getbuffer()
        _take_large_pages(self._room)
        self._size = size
        self._come = 0
        self._sha = hashlib.sha256()

    def _check_goes_on(self, response: httpx.Response) -> None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or tuple(map(int, match.groups())) != (self._come, self._size - 1, self._size):
            raise ServiceError(f"The vault at {self._url} sent another range than asked for; do not trust it.")

    def _corrupt(self) -> CorruptKnowledgeError:
        return CorruptKnowledgeError(f"What the vault at {self._url} sent is not blob {self._digest}; do not use it.")


def _take_large_pages(room: memoryview) -> None:
    """Ask Linux to back this memory by pages of 2 MiB, where it would do so only when asked.

    Taking 256 MiB in pages of 4 KiB lasts as long as to hash them, 0.2 s; in large pages a fifth of that.
    """
    if sys.platform == "linux" and len(room) >= LARGE:
        start = ctypes.addressof(ctypes.c_char.from_buffer(room))
        first, last = -(-start // _PAGE) * _PAGE, (start + len(room)) // _PAGE * _PAGE
        # The answer does not matter: it is advice.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_HUGEPAGE)


def announced(response: httpx.Response, url: str) -> int:
    """How many bytes an answer says it has."""
    length = response.headers.get("Content-Length", "")
    if not length.isascii() or not length.isdecimal():
        raise ServiceError(f"The vault at {url} does not tell how many bytes it sends; do not trust it.")
    return int(length)

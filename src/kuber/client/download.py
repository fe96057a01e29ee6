"""Download of a blob that resumes after a lost connection, and is verified."""

import ctypes
import hashlib
import mmap
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx

from kuber.domain.digest import Digest
from kuber.domain.whole_numbers import read_digits
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, ServiceError

MAX_BLOB_BYTES = 2 << 30  # larger blobs are not held in memory
HASH_BYTES = 4 << 20  # hashed at a time, while the next ones are received; small pieces would contend for the GIL
LARGE = 8 << 20  # bytes from which on large pages are worth a system call
_PAGE = mmap.PAGESIZE
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class Download:
    """Received bytes of a blob, over as many requests as it takes."""

    def __init__(self, digest: Digest, url: str) -> None:
        self.furthest = 0  # most bytes held so far; grows while there is progress
        self._digest = digest
        self._url = url
        self._received = 0
        self._start_over(0)

    def headers(self) -> dict[str, str]:
        """Return the headers of the next request: for the rest, if the blob is still the same."""
        headers = {"Accept-Encoding": "identity"}
        if self._received:
            headers |= {"Range": f"bytes={self._received}-", "If-Range": f'"{self._digest}"'}
        return headers

    def receive(self, response: httpx.Response) -> bytes:
        """Read the body of a response into the download, and return no bytes.

        What was received before a lost connection is kept. Raises CorruptKnowledgeError when the body is shorter or
        longer than announced, IncompatibleKnowledgeError when the blob exceeds MAX_BLOB_BYTES.
        """
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            self._check_range(response)
        else:
            size = content_length(response.headers, self._url)
            if size > MAX_BLOB_BYTES:
                raise IncompatibleKnowledgeError(
                    f"Blob {self._digest} has {size} bytes, more than the limit of {MAX_BLOB_BYTES}."
                )
            self._start_over(size)
        hashed = self._received
        with ThreadPoolExecutor(1) as hashing:
            try:
                for piece in response.iter_raw():
                    end = self._received + len(piece)
                    if end > self._size:
                        raise self._corrupt()
                    self._view[self._received : end] = piece
                    self._received = end
                    self.furthest = max(self.furthest, end)
                    if end - hashed >= HASH_BYTES:
                        hashing.submit(self._sha.update, self._view[hashed:end])
                        hashed = end
            finally:  # also after a lost connection
                hashing.submit(self._sha.update, self._view[hashed : self._received])
        if self._received != self._size:
            raise self._corrupt()
        return b""

    def verified(self) -> bytes:
        """Return the bytes. CorruptKnowledgeError when they have another digest."""
        if self._sha.hexdigest() != self._digest.hex:
            raise self._corrupt()
        self._view.release()
        return self._data.getvalue()

    def _start_over(self, size: int) -> None:
        # Allocated at once, filled in place and returned as it is: joining a list of pieces would copy them all.
        # Bytes that are never received never use physical memory.
        self._data = BytesIO(bytes(size))
        self._view = self._data.getbuffer()
        _use_large_pages(self._view)
        self._size = size
        self._received = 0
        self._sha = hashlib.sha256()

    def _check_range(self, response: httpx.Response) -> None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or tuple(map(int, match.groups())) != (self._received, self._size - 1, self._size):
            raise ServiceError(f"The vault at {self._url} sent another range than requested; do not trust it.")

    def _corrupt(self) -> CorruptKnowledgeError:
        return CorruptKnowledgeError(
            f"The bytes from the vault at {self._url} are not blob {self._digest}; do not use them."
        )


def _use_large_pages(view: memoryview) -> None:
    """Request pages of 2 MiB from Linux, which uses them only on request.

    Allocating 256 MiB in pages of 4 KiB takes 0.2 s, as long as hashing them; in large pages a fifth of that.
    """
    if sys.platform == "linux" and len(view) >= LARGE:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        first, last = -(-start // _PAGE) * _PAGE, (start + len(view)) // _PAGE * _PAGE
        # The result does not matter: it is advice.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_HUGEPAGE)


def content_length(headers: Mapping[str, str], url: str) -> int:
    """Return the Content-Length of a response from the vault at `url`. ServiceError when it is missing."""
    length = read_digits(headers.get("Content-Length", ""))
    if length is None:
        raise ServiceError(f"The vault at {url} does not say how many bytes it sends; do not trust it.")
    return length

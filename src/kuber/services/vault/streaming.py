"""Streaming of request and response bodies through the vault, piece by piece."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kuber.domain.whole_numbers import read_digits
from kuber.services.vault.storage import CHUNK, BlobReader

BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}  # OpenAPI

_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


async def write_pieces(pieces: AsyncIterator[memoryview], write: Callable[[memoryview], None]) -> None:
    """Write each piece in a thread while the next one is received."""
    writing: asyncio.Task[None] | None = None
    try:
        async for piece in pieces:
            if writing is not None:
                await writing
            writing = asyncio.create_task(run_in_threadpool(write, piece))
    finally:
        if writing is not None:
            await writing


async def bounded(pieces: AsyncIterator[memoryview], limit: int) -> AsyncIterator[memoryview]:
    """Pass the pieces on; raise HTTPException 413 when they exceed `limit` bytes."""
    received = 0
    async for piece in pieces:
        received += len(piece)
        if received > limit:
            raise too_large(limit)
        yield piece


async def pieces_of(request: Request) -> AsyncIterator[memoryview]:
    """Yield the body in pieces of CHUNK bytes. When the client disconnects, yield what was received, then raise.

    Two buffers take turns: a piece must be written before the next but one is requested. They are no larger than the
    body, where its length is known.
    """
    length = read_digits(request.headers.get("content-length", ""))
    size = CHUNK if length is None else min(CHUNK, max(1, length))
    buffers = memoryview(bytearray(size)), memoryview(bytearray(size))
    filled = 0  # buffers
    buffer, used = buffers[0], 0
    try:
        async for chunk in request.stream():
            left = memoryview(chunk)
            while left:
                taken = min(len(left), size - used)
                buffer[used : used + taken] = left[:taken]
                left, used = left[taken:], used + taken
                if used == size:
                    yield buffer
                    filled += 1
                    buffer, used = buffers[filled % 2], 0
    except ClientDisconnect:
        if used:
            yield buffer[:used]
        raise
    if used:
        yield buffer[:used]


def too_large(limit: int) -> HTTPException:
    """Return the error for a blob of more than `limit` bytes."""
    message = f"The vault accepts blobs of at most {limit} bytes; start it with a larger --max-blob-bytes."
    return HTTPException(413, message, {"connection": "close"})


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last byte of a Range header.

    None means to send the whole blob: RFC 9110 lets a server ignore unusual ranges. Raises HTTPException 416.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == (None, None):
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        assert last is not None
        span = max(size - last, 0), size - 1
    elif last is not None and last < first:
        return None
    else:
        span = first, size - 1 if last is None else min(last, size - 1)
    if span[0] > span[1]:
        raise HTTPException(
            416, f"The blob has only {size} bytes; request a range within them.", {"Content-Range": f"bytes */{size}"}
        )
    return span


async def pieces_from(blob: BlobReader, length: int) -> AsyncIterator[bytes]:
    """Yield the next `length` bytes of a blob, then close it."""
    with blob:
        left = length
        while left and (piece := await run_in_threadpool(blob.read, min(CHUNK, left))):
            left -= len(piece)
            yield piece

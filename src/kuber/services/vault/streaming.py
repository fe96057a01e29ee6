"""The bytes of requests and answers as they stream through the vault, in pieces."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kuber.services.vault.storage import CHUNK, BlobReader

_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


async def write_pieces(pieces: AsyncIterator[memoryview], write: Callable[[memoryview], None]) -> None:
    """Write each piece while the next one comes in."""
    under_way: asyncio.Task[None] | None = None
    try:
        async for piece in pieces:
            if under_way is not None:
                await under_way
            under_way = asyncio.create_task(run_in_threadpool(write, piece))
    finally:
        if under_way is not None:
            await under_way


async def bounded(pieces: AsyncIterator[memoryview], limit: int) -> AsyncIterator[memoryview]:
    """The pieces, of which no more than `limit` bytes are taken."""
    taken = 0
    async for piece in pieces:
        taken += len(piece)
        if taken > limit:
            raise too_large(limit)
        yield piece


async def pieces_of(request: Request) -> AsyncIterator[memoryview]:
    """The body in pieces of CHUNK bytes. What came before the sender went away is given, then that is told.

    A piece is overwritten by the next but one: it has to be written by then.
    """
    rooms = memoryview(bytearray(CHUNK)), memoryview(bytearray(CHUNK))
    full = 0  # rooms
    room, come = rooms[0], 0
    try:
        async for chunk in request.stream():
            left = memoryview(chunk)
            while left:
                taken = min(len(left), CHUNK - come)
                room[come : come + taken] = left[:taken]
                left, come = left[taken:], come + taken
                if come == CHUNK:
                    yield room
                    full += 1
                    room, come = rooms[full % 2], 0
    except ClientDisconnect:
        if come:
            yield room[:come]
        raise
    if come:
        yield room[:come]


def too_large(limit: int) -> HTTPException:
    message = f"The vault takes blobs of at most {limit} bytes; start it with a larger --max-blob-bytes."
    return HTTPException(413, message, {"connection": "close"})


def span_of(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header; None to send the whole (RFC 9110 lets a server ignore odd ranges)."""
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
            416, f"The blob has only {size} bytes; ask for a range within.", {"Content-Range": f"bytes */{size}"}
        )
    return span


async def pieces_from(blob: BlobReader, length: int) -> AsyncIterator[bytes]:
    """The next `length` bytes of a blob, which is closed after them."""
    with blob:
        left = length
        while left and (piece := await run_in_threadpool(blob.read, min(CHUNK, left))):
            left -= len(piece)
            yield piece

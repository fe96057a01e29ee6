"""Main function of a worker process of the engine `processes`."""

import mmap
import os
import pickle
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process, reduction
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import torch

from kuber.entity.work.steps import Work
from kuber.experiment.engines.base import THREADS, ignore_progress
from kuber.experiment.engines.mapped_memory import Block, MappedMemoryWriter
from kuber.experiment.engines.serialization import MAX_MESSAGE_BYTES, pack, portable_error, unpack
from kuber.learning.runtime import keep_freed_memory

OWN_FILE = -1  # number of the worker's own mapped file


class MappedSpan(NamedTuple):
    """A stretch of a file that the worker has open."""

    file: int
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A message to a worker: a work step, or the announcement of a file."""

    new_file: int | None = None  # number of a file that follows; the other fields are then unused
    message: bytes = b""  # the pickled work step; if empty, it is in the last of the spans
    spans: Sequence[MappedSpan] = ()
    freed: Sequence[Block] = ()  # of the worker's own file
    closed: Sequence[int] = ()  # files that are no longer used


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerReply:
    """The result of a work step."""

    failed: bool  # the value is the error
    message: bytes  # the pickled value; if empty, it is in the last of the places
    block: Block | None  # of the worker's own file, which follows the first reply that has a block
    places: Sequence[Block]  # of the parts, in that block
    seconds: float


def serve(pipe: Connection, files: Connection) -> None:
    """Execute work steps until the pipe is closed, or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    memory = MappedMemoryWriter()
    descriptors, sent = {OWN_FILE: memory.descriptor}, False
    while True:
        try:
            order: Order = pickle.loads(pipe.recv_bytes())  # noqa: S301 - our own parent wrote it
        except (EOFError, ConnectionResetError):
            return
        if order.new_file is not None:
            if order.new_file in descriptors:
                os.close(descriptors[order.new_file])
            descriptors[order.new_file] = reduction.recv_handle(files)
            continue
        for number in order.closed:
            os.close(descriptors.pop(number))
        for block in order.freed:
            memory.free(block)
        reply = _execute(order, descriptors, memory)
        pipe.send_bytes(pickle.dumps(reply, protocol=5))
        if reply.block is not None and not sent:
            reduction.send_handle(files, memory.descriptor, os.getppid())
            sent = True


def _execute(order: Order, descriptors: dict[int, int], memory: MappedMemoryWriter) -> WorkerReply:
    start = time.perf_counter()
    failed, value = False, None
    try:
        parts = _mapped(order.spans, descriptors)
        work: Work = unpack(order.message or parts.pop(), parts)
        value = work.do(ignore_progress)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        failed, value = True, portable_error(error)
    seconds = time.perf_counter() - start
    try:
        return _packed(value, memory, failed=failed, seconds=seconds)
    except Exception as error:  # noqa: BLE001 - not picklable, or no space
        return _packed(portable_error(error), memory, failed=True, seconds=seconds)


def _packed(value: Any, memory: MappedMemoryWriter, *, failed: bool, seconds: float) -> WorkerReply:
    message, parts = pack(value)
    buffers = [part.array.data for part in parts]
    if len(message) > MAX_MESSAGE_BYTES:
        buffers, message = [*buffers, memoryview(message)], b""
    block, places = memory.write(buffers) if buffers else (None, [])
    return WorkerReply(failed=failed, message=message, block=block, places=places, seconds=seconds)


def _mapped(spans: Sequence[MappedSpan], descriptors: dict[int, int]) -> list[memoryview]:
    """Map the spans, copy-on-write; adjacent ones with one map."""
    found: list[memoryview] = []
    first = 0
    while first < len(spans):
        last = first
        while last + 1 < len(spans) and _adjacent(spans[last], spans[last + 1]):
            last += 1
        begin = spans[first].offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        end = spans[last].offset + spans[last].size
        descriptor, access = descriptors[spans[first].file], mmap.ACCESS_COPY
        whole = memoryview(mmap.mmap(descriptor, end - begin, access=access, offset=begin))
        found += [whole[span.offset - begin :][: span.size] for span in spans[first : last + 1]]
        first = last + 1
    return found


def _adjacent(first: MappedSpan, second: MappedSpan) -> bool:
    return first.file == second.file and 0 <= second.offset - first.offset - first.size <= mmap.PAGESIZE


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

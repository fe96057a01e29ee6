"""What a worker process of the engine `processes` does: orders come by pipe, big tensors in files that it maps."""

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

OWN = -1  # the arena of the worker that is told


class MappedSpan(NamedTuple):
    """Bytes of a file that a worker has."""

    file: int
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a worker is told: to do a step, or that a file comes."""

    arrives: int | None = None  # the file of this number follows, and nothing else is in this order
    message: bytes = b""  # of the work; where it is empty, it is the last of the spans
    spans: Sequence[MappedSpan] = ()
    freed: Sequence[Block] = ()  # of the worker's own arena
    gone: Sequence[int] = ()  # files that nobody will speak of again


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerReply:
    """What a worker found."""

    failed: bool  # then the value is what was raised
    message: bytes  # of the value; where it is empty, it is the last of the places
    block: Block | None  # of the worker's arena; the file follows the first that is told
    places: Sequence[Block]  # in that block
    seconds: float


def serve(pipe: Connection, files: Connection) -> None:
    """The main function of a worker: do what is ordered until nobody orders any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    memory = MappedMemoryWriter()
    known, told = {OWN: memory.descriptor}, False
    while True:
        try:
            order: Order = pickle.loads(pipe.recv_bytes())  # noqa: S301 - our own parent wrote it
        except (EOFError, ConnectionResetError):
            return
        if order.arrives is not None:
            if order.arrives in known:
                os.close(known[order.arrives])
            known[order.arrives] = reduction.recv_handle(files)
            continue
        for number in order.gone:
            os.close(known.pop(number))
        for block in order.freed:
            memory.free(block)
        answer = _answer(order, known, memory)
        pipe.send_bytes(pickle.dumps(answer, protocol=5))
        if answer.block is not None and not told:
            reduction.send_handle(files, memory.descriptor, os.getppid())
            told = True


def _answer(order: Order, known: dict[int, int], memory: MappedMemoryWriter) -> WorkerReply:
    start = time.perf_counter()
    failed, value = False, None
    try:
        parts = _mapped(order.spans, known)
        work: Work = unpack(order.message or parts.pop(), parts)
        value = work.do(ignore_progress)
    except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
        failed, value = True, portable_error(error)
    seconds = time.perf_counter() - start
    try:
        return _packed(value, memory, failed=failed, seconds=seconds)
    except Exception as error:  # noqa: BLE001 - a result that cannot travel, or no room for it
        return _packed(portable_error(error), memory, failed=True, seconds=seconds)


def _packed(value: Any, memory: MappedMemoryWriter, *, failed: bool, seconds: float) -> WorkerReply:
    message, parts = pack(value)
    beside = [part.array.data for part in parts]
    if len(message) > MAX_MESSAGE_BYTES:
        beside, message = [*beside, memoryview(message)], b""
    block, places = memory.write(beside) if beside else (None, [])
    return WorkerReply(failed=failed, message=message, block=block, places=places, seconds=seconds)


def _mapped(spans: Sequence[MappedSpan], known: dict[int, int]) -> list[memoryview]:
    """The bytes of each span. What is written to them stays in this process; neighbours share one map."""
    found: list[memoryview] = []
    first = 0
    while first < len(spans):
        last = first
        while last + 1 < len(spans) and _follows(spans[last], spans[last + 1]):
            last += 1
        begin = spans[first].offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        end = spans[last].offset + spans[last].size
        memory = mmap.mmap(
            known[spans[first].file],
            end - begin,
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
            offset=begin,
        )
        whole = memoryview(memory)
        found += [whole[span.offset - begin :][: span.size] for span in spans[first : last + 1]]
        first = last + 1
    return found


def _follows(one: MappedSpan, other: MappedSpan) -> bool:
    return one.file == other.file and 0 <= other.offset - one.offset - one.size <= mmap.PAGESIZE


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

"""The engine `processes`: work steps shared among worker processes of this machine.

Big tensors are written once, to an arena, and mapped by the other side; a message of some kilobytes goes by pipe.
Each worker has an arena of its own for results, which it writes and we map.
"""

import contextlib
import os
import pickle
import selectors
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from kuber.entity.work.steps import Work
from kuber.errors import TrainingError
from kuber.experiment.engines.fork_server import CONTEXT, warm_up
from kuber.experiment.engines.mapped_memory import Block, Bytes, MappedMemory, MappedMemoryWriter, find_block
from kuber.experiment.engines.process_worker import MappedSpan, Order, WorkerReply, serve
from kuber.experiment.engines.serialization import (
    MAX_MESSAGE_BYTES,
    LearnerCache,
    LearnerPacker,
    PayloadPart,
    pack,
    unpack,
)

QUICK = 0.01  # seconds; a worker whose last step took less gets the next one before it has answered
STOP_SECONDS = 5.0


class ProcessPool:
    """So many workers of one thread each; samples are mapped by all of them, not sent."""

    def __init__(self, workers: int) -> None:
        warm_up()
        self._memory = MappedMemoryWriter()
        self._sent: dict[int, _Sent] = {}  # id of a tensor -> where it lies
        self._learners = LearnerCache()
        self._lock = threading.RLock()
        self._waiting: deque[_Task] = deque()
        self._crew: list[_Worker] = []
        self._ended = False
        self._broken = ""  # why no step is done any more
        self._wake, self._woken = os.pipe()[::-1]
        self._thread = threading.Thread(target=self._run, args=(workers,), name="engine")
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        task = _Task(work)
        with self._lock:
            if self._broken:
                task.tell(None, TrainingError(self._broken))
                return task.future
            if self._ended:
                raise RuntimeError("the engine has ended")
            self._waiting.append(task)
            self._hand_out()
        return task.future

    def close(self) -> None:
        """End the workers, whatever they are doing; what they were to do is cancelled."""
        with self._lock:
            self._ended = True
        os.write(self._wake, b"x")
        self._thread.join()
        for worker in self._crew:
            worker.end()
        os.close(self._wake)
        os.close(self._woken)
        self._fail(None)

    def _run(self, workers: int) -> None:
        """Start the workers, then take their answers until the engine ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            try:
                for _ in range(workers):
                    worker = _Worker()
                    with self._lock:
                        self._crew.append(worker)
                        if self._ended:
                            return
                        self._hand_out()
                    selector.register(worker.pipe, selectors.EVENT_READ, worker)
                while not self._ended:
                    for key, _ in selector.select():
                        if key.data is not None:
                            self._hear(key.data)
            except (EOFError, OSError):
                with self._lock:
                    gone = not self._ended
                if gone:
                    self._fail("A worker process ended unexpectedly, perhaps for want of memory; try again.")

    def _hear(self, worker: "_Worker") -> None:
        answer: WorkerReply = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301 - our own worker wrote it
        with self._lock:
            task = worker.under_way.popleft()
            worker.quick = answer.seconds < QUICK
            self._hand_out()
        task.held.clear()
        try:
            found = worker.opened(answer)
        except (EOFError, OSError):
            task.tell(None, TrainingError("What a worker answered cannot be read: it ended, or memory is short."))
            raise
        except Exception as error:  # noqa: BLE001 - what was raised there may not be raised here
            found = None, error
        task.tell(*found)

    def _hand_out(self) -> None:
        """Give work to those who have room for it; the lock is held."""
        room = True
        while self._waiting and room and not self._ended:
            room = False
            for worker in sorted(self._crew, key=lambda one: len(one.under_way)):
                if self._waiting and len(worker.under_way) < (2 if worker.quick else 1):
                    room = True
                    self._send(self._waiting.popleft(), worker)

    def _send(self, task: "_Task", worker: "_Worker") -> None:
        try:
            message, parts = pack(task.work, LearnerPacker, self._learners)
            if len(message) > MAX_MESSAGE_BYTES:
                parts.append(PayloadPart(np.frombuffer(message, np.uint8), None))
                message = b""
            spans = self._spans(parts, task, worker)
        except BrokenPipeError:
            worker.under_way.append(task)  # it is gone; its pipe says so to who listens, who tells all that wait
            return
        except Exception as error:  # noqa: BLE001 - a step that cannot travel, or no room: whoever asks is told
            task.tell(None, error)
            return
        worker.under_way.append(task)
        with contextlib.suppress(OSError):  # it is gone; its pipe says so to who listens
            worker.send(message, spans)

    def _spans(self, parts: list[PayloadPart], task: "_Task", worker: "_Worker") -> list[MappedSpan]:
        """Where the worker finds these parts; what lies in no arena yet is written to ours."""
        places: list[tuple[MappedMemory, Block] | None] = [self._place(part, task) for part in parts]
        fresh = [number for number, place in enumerate(places) if place is None]
        if fresh:
            block, pieces = self._memory.write([parts[number].array.data for number in fresh])
            held = self._memory.view(block)
            task.held.append(held)
            for number, piece in zip(fresh, pieces, strict=True):
                places[number] = self._memory, piece
                tensor = parts[number].tensor
                if tensor is not None and not tensor.is_inference():
                    self._sent[id(tensor)] = _Sent(tensor, self._sent, piece, held)
        return [worker.span(*place) for place in places if place is not None]

    def _place(self, part: PayloadPart, task: "_Task") -> tuple[MappedMemory, Block] | None:
        place = find_block(part.array)
        if place is not None or part.tensor is None:
            return place
        sent = self._sent.get(id(part.tensor))
        if sent is None or not sent.is_of(part.tensor):
            return None
        task.held.append(sent.held)
        return self._memory, sent.block

    def _fail(self, sentence: str | None) -> None:
        """Every step that is not done fails, or is cancelled; so does what comes later."""
        with self._lock:
            self._ended, self._broken = True, sentence or ""
            tasks = [*self._waiting, *(task for worker in self._crew for task in worker.under_way)]
            self._waiting.clear()
            for worker in self._crew:
                worker.under_way.clear()
        for task in tasks:
            if sentence is None:
                task.future.cancel()
            else:
                task.tell(None, TrainingError(sentence))


@dataclass(eq=False)
class _Task:
    """A work step on its way."""

    work: Work
    future: Future[Any] = field(default_factory=Future)
    held: list[Bytes] = field(default_factory=list)  # what must stay in the arena until it is done

    def tell(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _Sent:
    """A tensor that was written to the arena; forgotten, and its block free, when the tensor is gone."""

    def __init__(self, tensor: torch.Tensor, known: "dict[int, _Sent]", block: Block, held: Bytes) -> None:
        number = id(tensor)
        self.block = block
        self.held = held
        self._version = tensor._version
        self._tensor = weakref.ref(tensor, lambda _: known.pop(number, None))

    def is_of(self, tensor: torch.Tensor) -> bool:
        """Whether it is that tensor, and nobody has written to it since."""
        return self._tensor() is tensor and tensor._version == self._version


class _Worker:
    """One worker process, and our ends of what leads to it."""

    def __init__(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self._files, their_files = CONTEXT.Pipe()
        self.process: BaseProcess = CONTEXT.Process(target=serve, args=(theirs, their_files), daemon=True)
        self.process.start()
        theirs.close()
        their_files.close()
        self.under_way: deque[_Task] = deque()
        self.quick = False
        self._freed: deque[Block] = deque()  # of its arena
        self._memory: MappedMemory | None = None
        self._known: dict[int, weakref.ref[MappedMemory]] = {}  # descriptor -> the arena it has

    def opened(self, answer: WorkerReply) -> tuple[Any, BaseException | None]:
        """The result in an answer, mapped, or the error."""
        message: bytes | memoryview = answer.message
        parts: list[memoryview] = []
        if answer.block is not None:
            if self._memory is None:
                self._memory = MappedMemory(reduction.recv_handle(self._files), self._freed.append)
            whole = self._memory.view(answer.block)
            start = answer.block.offset
            parts = [whole[place.offset - start :][: place.size].data for place in answer.places]
            self._memory.note_read(answer.block.size)
            message = message or parts.pop()
        found = unpack(message, parts)
        return (None, found) if answer.failed else (found, None)

    def span(self, memory: MappedMemory, block: Block) -> MappedSpan:
        """Where the worker finds a block; it gets the file when it has not got it yet."""
        number = memory.descriptor
        if memory is self._memory:
            return MappedSpan(-1, *block)
        known = self._known.get(number)
        if known is None or known() is not memory:
            self.pipe.send_bytes(pickle.dumps(Order(arrives=number)))
            reduction.send_handle(self._files, memory.descriptor, self.process.pid)
            self._known[number] = weakref.ref(memory)
        return MappedSpan(number, *block)

    def send(self, message: bytes, spans: list[MappedSpan]) -> None:
        freed = [self._freed.popleft() for _ in range(len(self._freed))]
        gone = [number for number, memory in self._known.items() if memory() is None]
        for number in gone:
            del self._known[number]
        order = Order(message=message, spans=spans, freed=freed, gone=gone)
        self.pipe.send_bytes(pickle.dumps(order, protocol=5))

    def end(self) -> None:
        self.process.terminate()
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self._files.close()

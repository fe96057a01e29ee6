"""The engine `processes`: work steps in worker processes on this machine.

Large tensors are written once, to a mapped file that the workers map; messages of a few kilobytes go through pipes.
Each worker writes its results to a file of its own, which this process maps.
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
from kuber.experiment.engines.process_worker import OWN_FILE, MappedSpan, Order, WorkerReply, serve
from kuber.experiment.engines.serialization import (
    MAX_MESSAGE_BYTES,
    LearnerCache,
    LearnerPacker,
    PayloadPart,
    pack,
    unpack,
)

SHORT_STEP = 0.01  # seconds; a worker whose last step was shorter gets its next one ahead of the reply
STOP_SECONDS = 5.0


class ProcessPool:
    """Workers of one thread each. They map the samples from the data set's file."""

    def __init__(self, workers: int) -> None:
        warm_up()
        self._memory = MappedMemoryWriter()
        self._sent: dict[int, _Sent] = {}  # by id of the tensor
        self._learners = LearnerCache()
        self._lock = threading.RLock()
        self._waiting: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._ended = False
        self._broken = ""  # why the engine failed
        self._wake, self._woken = os.pipe()[::-1]
        self._thread = threading.Thread(target=self._run, args=(workers,), name="engine")
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        task = _Task(work)
        with self._lock:
            if self._broken:
                task.finish(None, TrainingError(self._broken))
                return task.future
            if self._ended:
                raise RuntimeError("the engine has ended")
            self._waiting.append(task)
            self._dispatch()
        return task.future

    def close(self) -> None:
        """Stop the workers at once, and cancel the work steps that are not done."""
        with self._lock:
            self._ended = True
        os.write(self._wake, b"x")
        self._thread.join()
        for worker in self._workers:
            worker.end()
        os.close(self._wake)
        os.close(self._woken)
        self._fail(None)

    def _run(self, workers: int) -> None:
        """Start the workers, then receive their replies until the engine is closed."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            try:
                for _ in range(workers):
                    worker = _Worker()
                    with self._lock:
                        self._workers.append(worker)
                        if self._ended:
                            return
                        self._dispatch()
                    selector.register(worker.pipe, selectors.EVENT_READ, worker)
                while not self._ended:
                    for key, _ in selector.select():
                        if key.data is not None:
                            self._receive(key.data)
            except (EOFError, OSError):
                with self._lock:
                    unexpected = not self._ended
                if unexpected:
                    self._fail("A worker process ended unexpectedly, perhaps for lack of memory; try again.")

    def _receive(self, worker: "_Worker") -> None:
        reply: WorkerReply = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301 - our own worker wrote it
        with self._lock:
            task = worker.under_way.popleft()
            worker.is_fast = reply.seconds < SHORT_STEP
            self._dispatch()
        task.held.clear()
        try:
            outcome = worker.outcome(reply)
        except (EOFError, OSError):
            task.finish(None, TrainingError("The reply of a worker cannot be read: it ended, or memory is short."))
            raise
        except Exception as error:  # noqa: BLE001 - an error of unpickling, for the future
            outcome = None, error
        task.finish(*outcome)

    def _dispatch(self) -> None:
        """Send waiting work to workers with room for it. The lock must be held."""
        room = True
        while self._waiting and room and not self._ended:
            room = False
            for worker in sorted(self._workers, key=lambda worker: len(worker.under_way)):
                if self._waiting and len(worker.under_way) < (2 if worker.is_fast else 1):
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
            worker.under_way.append(task)  # the worker is gone: its pipe ends, and `_run` fails all tasks
            return
        except Exception as error:  # noqa: BLE001 - not picklable, or no space: the future raises it
            task.finish(None, error)
            return
        worker.under_way.append(task)
        with contextlib.suppress(OSError):  # the worker is gone: its pipe ends
            worker.send(message, spans)

    def _spans(self, parts: list[PayloadPart], task: "_Task", worker: "_Worker") -> list[MappedSpan]:
        """Return where the worker finds these parts; write those that are in no mapped file to ours."""
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
        """Fail, or without a sentence cancel, the work steps that are not done, and those submitted later."""
        with self._lock:
            self._ended, self._broken = True, sentence or ""
            tasks = [*self._waiting, *(task for worker in self._workers for task in worker.under_way)]
            self._waiting.clear()
            for worker in self._workers:
                worker.under_way.clear()
        for task in tasks:
            if sentence is None:
                task.future.cancel()
            else:
                task.finish(None, TrainingError(sentence))


@dataclass(eq=False)
class _Task:
    """A submitted work step."""

    work: Work
    future: Future[Any] = field(default_factory=Future)
    held: list[Bytes] = field(default_factory=list)  # views that keep its blocks allocated until it is done

    def finish(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _Sent:
    """A tensor that was written to the mapped file; its block is freed when the tensor is collected."""

    def __init__(self, tensor: torch.Tensor, known: "dict[int, _Sent]", block: Block, held: Bytes) -> None:
        number = id(tensor)
        self.block = block
        self.held = held
        self._version = tensor._version
        self._tensor = weakref.ref(tensor, lambda _: known.pop(number, None))

    def is_of(self, tensor: torch.Tensor) -> bool:
        """Whether this is the tensor that was written, unmodified since."""
        return self._tensor() is tensor and tensor._version == self._version


class _Worker:
    """One worker process, and our ends of its pipes."""

    def __init__(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self._files, their_files = CONTEXT.Pipe()
        self.process: BaseProcess = CONTEXT.Process(target=serve, args=(theirs, their_files), daemon=True)
        self.process.start()
        theirs.close()
        their_files.close()
        self.under_way: deque[_Task] = deque()
        self.is_fast = False
        self._freed: deque[Block] = deque()  # of its file
        self._memory: MappedMemory | None = None
        self._known: dict[int, weakref.ref[MappedMemory]] = {}  # our descriptor -> the file that the worker has open

    def outcome(self, reply: WorkerReply) -> tuple[Any, BaseException | None]:
        """Return the result of a reply, mapped, or its error."""
        message: bytes | memoryview = reply.message
        parts: list[memoryview] = []
        if reply.block is not None:
            if self._memory is None:
                self._memory = MappedMemory(reduction.recv_handle(self._files), self._freed.append)
            whole = self._memory.view(reply.block)
            start = reply.block.offset
            parts = [whole[place.offset - start :][: place.size].data for place in reply.places]
            self._memory.note_read(reply.block.size)
            message = message or parts.pop()
        found = unpack(message, parts)
        return (None, found) if reply.failed else (found, None)

    def span(self, memory: MappedMemory, block: Block) -> MappedSpan:
        """Return where the worker finds a block; send it the file first if it does not have it."""
        number = memory.descriptor
        if memory is self._memory:
            return MappedSpan(OWN_FILE, *block)
        known = self._known.get(number)
        if known is None or known() is not memory:
            self.pipe.send_bytes(pickle.dumps(Order(new_file=number)))
            reduction.send_handle(self._files, memory.descriptor, self.process.pid)
            self._known[number] = weakref.ref(memory)
        return MappedSpan(number, *block)

    def send(self, message: bytes, spans: list[MappedSpan]) -> None:
        freed = [self._freed.popleft() for _ in range(len(self._freed))]
        closed = [number for number, memory in self._known.items() if memory() is None]
        for number in closed:
            del self._known[number]
        order = Order(message=message, spans=spans, freed=freed, closed=closed)
        self.pipe.send_bytes(pickle.dumps(order, protocol=5))

    def end(self) -> None:
        self.process.terminate()
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self._files.close()

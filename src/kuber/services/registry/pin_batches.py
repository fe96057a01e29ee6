"""Pins of publications that wait at the same time, sent to the vault in one request."""

import contextvars
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Manifest
from kuber.errors import KUberError, ServiceUnavailableError
from kuber.wire.vault import MAX_BATCH, PinsBody

SENDERS = 2  # requests in flight: while one waits for the vault's disk, the next one is read

Pinned = Mapping[Digest, Manifest] | KUberError
"""Manifests of the pinned weights, or why nothing was pinned."""


class PinBatches:
    """Threads that send what waits. Safe to use from several threads.

    `send` pins for each of up to MAX_BATCH holders, and returns one result for each, in their order.
    """

    def __init__(self, send: Callable[[Sequence[PinsBody]], Sequence[Pinned]]) -> None:
        self._send = send
        self._gate = threading.Lock()  # nothing is queued after the end marks
        self._closed = False
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._senders = [
            threading.Thread(target=self._run, name=f"pins-{number}", daemon=True) for number in range(SENDERS)
        ]
        for sender in self._senders:
            sender.start()

    def pin(self, body: PinsBody) -> Mapping[Digest, Manifest]:
        """Pin for one holder; return the manifests of weights. Raises what the vault refuses it with."""
        waiting = _Waiting(body)
        with self._gate:
            if self._closed:
                raise ServiceUnavailableError("The registry is stopping; try again when it is up.")
            self._queue.put(waiting)
        return waiting.future.result()

    def close(self) -> None:
        """Send what waits, then end the threads. Idempotent."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            for _ in self._senders:
                self._queue.put(None)
        for sender in self._senders:
            sender.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, closing = self._next_batch(first)
            results: Sequence[Pinned | BaseException]
            try:
                results = first.context.run(self._send, [waiting.body for waiting in batch])
            except BaseException as error:  # noqa: BLE001  the waiting threads must learn of it, whatever it is
                if isinstance(error, ServiceUnavailableError) and not closing:  # nor has it an answer for the next
                    behind, closing = self._next_batch(None, limit=self._queue.qsize())
                    batch += behind
                results = [error] * len(batch)
            for waiting, result in zip(batch, results, strict=True):
                if isinstance(result, BaseException):
                    waiting.future.set_exception(result)
                else:
                    waiting.future.set_result(result)
            if closing:
                return

    def _next_batch(self, first: "_Waiting | None", *, limit: int = MAX_BATCH) -> tuple[list["_Waiting"], bool]:
        """Return what waits, at most `limit` with the first, and whether an end mark followed."""
        batch = [] if first is None else [first]
        while len(batch) < limit:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return batch, True
            batch.append(waiting)
        return batch, False


class _Waiting:
    """The pins of one holder, and their result."""

    def __init__(self, body: PinsBody) -> None:
        self.body = body
        self.future: Future[Mapping[Digest, Manifest]] = Future()
        self.context = contextvars.copy_context()  # the request belongs to the trace of the first publication

"""Processes of load.py that send requests when they are due, whether or not responses have arrived.

The latency of a request counts from its due time (no coordinated omission), so it includes the time it waits for a
slow hub, and the delay of the generator itself, which is also reported as `lag`.
"""

import asyncio
import multiprocessing
import random
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
from load_entities import Call, Entity, HubError, ask, entities

DRAIN_SECONDS = 10  # after a stretch, for missing responses
JOINING = 64  # entities that join at the same time


@dataclass
class Observations:
    """The observations of one process in one stretch."""

    waits: dict[str, list[float]] = field(default_factory=lambda: {"discover": [], "publish": []})  # seconds
    offered: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)  # bytes
    received: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    processor: float = 0.0  # seconds
    seconds: float = 0.0  # from the first due time to the last response

    def add(self, other: "Observations") -> None:
        """Add the observations of another process."""
        for kind, waits in other.waits.items():
            self.waits[kind] += waits
        for mine, theirs in (
            (self.offered, other.offered),
            (self.sent, other.sent),
            (self.received, other.received),
            (self.errors, other.errors),
        ):
            mine.update(theirs)
        self.lags += other.lags
        self.processor = max(self.processor, other.processor)
        self.seconds = max(self.seconds, other.seconds)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The requests per second that a process sends, their duration, and their start (time.monotonic)."""

    rates: dict[str, float]
    seconds: float
    start: float
    seed: int


class Generator:
    """The entities of one process."""

    def __init__(self, session: aiohttp.ClientSession, own: list[Entity]) -> None:
        self._session = session
        self._entities = own
        self._turns = {"discover": 0, "publish": 0}
        self._queues = [asyncio.Lock() for _ in own]  # an entity publishes one record after the other

    async def join(self) -> None:
        """Let every entity join and publish once, so that there is something to discover."""
        room = asyncio.Semaphore(JOINING)

        async def join(entity: Entity) -> None:
            async with room:
                await entity.join(self._session)
                for call in entity.publication():
                    await ask(self._session, call)

        await asyncio.gather(*map(join, self._entities))

    async def run(self, stretch: Stretch) -> Observations:
        """Send the requests of a stretch, and wait for the responses."""
        seen = Observations()
        chance = random.Random(stretch.seed)
        due = sorted(
            (at, kind) for kind, rate in stretch.rates.items() for at in _arrivals(rate, stretch.seconds, chance)
        )
        # Signing takes longer than sending, so it is done before the stretch starts.
        plan = [(at, kind, self._prepared(kind)) for at, kind in due]
        if time.monotonic() > stretch.start:
            seen.errors["generator started late"] += 1
        under_way = set()
        before = resource.getrusage(resource.RUSAGE_SELF)
        for at, kind, send in plan:
            pause = stretch.start + at - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            seen.offered[kind] += 1
            under_way.add(asyncio.create_task(self._timed(kind, stretch.start + at, send, seen)))
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        seen.seconds = max(stretch.seconds, time.monotonic() - stretch.start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        seen.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return seen

    def _prepared(self, kind: str) -> Callable[[Observations], Awaitable[None]]:
        number = self._turns[kind] % len(self._entities)
        self._turns[kind] += 1
        entity = self._entities[number]
        if kind == "discover":
            calls, queue = [entity.question()], None
        else:
            calls, queue = [*entity.publication()], self._queues[number]

        async def send(seen: Observations) -> None:
            if queue is None:
                await self._send(kind, calls, seen)
            else:
                async with queue:
                    await self._send(kind, calls, seen)

        return send

    async def _send(self, kind: str, calls: list[Call], seen: Observations) -> None:
        for call in calls:
            body = await ask(self._session, call)
            step = kind if call.method != "PUT" else "blob"
            seen.sent[step] += len(call.body or b"")
            seen.received[step] += len(body)

    async def _timed(
        self, kind: str, due: float, send: Callable[[Observations], Awaitable[None]], seen: Observations
    ) -> None:
        seen.lags.append(time.monotonic() - due)
        try:
            await send(seen)
        except HubError as error:
            seen.errors[f"{kind}: {error}"] += 1
        except asyncio.CancelledError:
            seen.errors[f"{kind}: no answer"] += 1
            seen.waits[kind].append(time.monotonic() - due)
        else:
            seen.waits[kind].append(time.monotonic() - due)


def _arrivals(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """Return the times of requests of independent entities: a Poisson process."""
    at = chance.expovariate(rate) if rate else seconds
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def serve(pipe: Connection, numbers: range, connections: int, made: dict[str, Any]) -> None:
    """Main function of a process: create entities, let them join, and run the stretches from the pipe."""

    async def live() -> None:
        connector = aiohttp.TCPConnector(limit=connections, limit_per_host=connections)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            generator = Generator(session, entities(numbers, **made))
            try:
                await generator.join()
            except HubError as error:
                pipe.send(error)
                return
            pipe.send(None)
            while (stretch := await asyncio.to_thread(pipe.recv)) is not None:
                pipe.send(await generator.run(stretch))

    asyncio.run(live())


class LoadGroup:
    """All processes."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def run(self, rates: dict[str, float], seconds: float, seed: int) -> Observations:
        """Run one stretch, shared by all processes."""
        prepared = 1 + 0.002 * rates["publish"] * seconds  # for signing
        start = time.monotonic() + prepared
        share = {kind: rate / len(self._pipes) for kind, rate in rates.items()}
        for place, pipe in enumerate(self._pipes):
            pipe.send(Stretch(rates=share, seconds=seconds, start=start, seed=seed * 1000 + place))
        seen = Observations()
        for pipe in self._pipes:
            seen.add(pipe.recv())
        return seen


@contextmanager
def load_group(count: int, *, processes: int, connections: int, made: dict[str, Any]) -> Iterator[LoadGroup]:
    """Let `entities` join, shared by a number of processes; `made` are the arguments of each.

    Raises HubError if they cannot join.
    """
    context = multiprocessing.get_context("spawn")
    pipes, started = [], []
    bounds = [count * place // processes for place in range(processes + 1)]
    for first, last in pairwise(bounds):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, range(first, last), max(1, connections // processes), made), daemon=True
        )
        process.start()
        theirs.close()
        pipes.append(ours)
        started.append(process)
    try:
        for pipe in pipes:
            error = pipe.recv()
            if error is not None:
                raise error
        yield LoadGroup(pipes)
        for pipe in pipes:
            pipe.send(None)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in started:
            process.join(10)
            if process.is_alive():
                process.terminate()

"""Processes of load.py that send requests when they are due, whether or not earlier ones were answered.

The latency of a request counts from when it was due (no coordinated omission): what a slow hub keeps waiting is
counted as waiting, and so is what the generator itself is late by, which is told apart as `lag`.
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

DRAIN_SECONDS = 10  # after a stretch, for what is not answered yet
JOINING = 64  # entities that join at the same time


@dataclass
class Told:
    """What one process saw in one stretch."""

    waits: dict[str, list[float]] = field(default_factory=lambda: {"discover": [], "publish": []})  # seconds
    offered: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)  # bytes
    received: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    processor: float = 0.0  # seconds
    seconds: float = 0.0  # from the first due time to the last answer

    def add(self, other: "Told") -> None:
        """Also what another process saw."""
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
    """What a process is to send: requests a second, for so long, from `start` on (time.monotonic)."""

    rates: dict[str, float]
    seconds: float
    start: float
    seed: int


class Generator:
    """What one process does with its entities."""

    def __init__(self, session: aiohttp.ClientSession, own: list[Entity]) -> None:
        self._session = session
        self._entities = own
        self._turns = {"discover": 0, "publish": 0}
        self._queues = [asyncio.Lock() for _ in own]  # an entity publishes one record after the other

    async def join(self) -> None:
        """Every entity joins, and publishes once: there is something to discover."""
        room = asyncio.Semaphore(JOINING)

        async def one(entity: Entity) -> None:
            async with room:
                await entity.join(self._session)
                for call in entity.publication():
                    await ask(self._session, call)

        await asyncio.gather(*map(one, self._entities))

    async def run(self, stretch: Stretch) -> Told:
        """Send a stretch, and wait for its answers."""
        told = Told()
        chance = random.Random(stretch.seed)
        due = sorted(
            (at, kind) for kind, rate in stretch.rates.items() for at in _arrivals(rate, stretch.seconds, chance)
        )
        # Signing takes the generator longer than sending: it is done before the stretch begins.
        plan = [(at, kind, self._prepared(kind)) for at, kind in due]
        if time.monotonic() > stretch.start:
            told.errors["generator began late"] += 1
        under_way = set()
        before = resource.getrusage(resource.RUSAGE_SELF)
        for at, kind, send in plan:
            pause = stretch.start + at - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            told.offered[kind] += 1
            under_way.add(asyncio.create_task(self._timed(kind, stretch.start + at, send, told)))
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        told.seconds = max(stretch.seconds, time.monotonic() - stretch.start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        told.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return told

    def _prepared(self, kind: str) -> Callable[[Told], Awaitable[None]]:
        number = self._turns[kind] % len(self._entities)
        self._turns[kind] += 1
        entity = self._entities[number]
        if kind == "discover":
            calls, queue = [entity.question()], None
        else:
            calls, queue = [*entity.publication()], self._queues[number]

        async def send(told: Told) -> None:
            if queue is None:
                await self._send(kind, calls, told)
            else:
                async with queue:
                    await self._send(kind, calls, told)

        return send

    async def _send(self, kind: str, calls: list[Call], told: Told) -> None:
        for call in calls:
            body = await ask(self._session, call)
            step = kind if call.method != "PUT" else "blob"
            told.sent[step] += len(call.body or b"")
            told.received[step] += len(body)

    async def _timed(self, kind: str, due: float, send: Callable[[Told], Awaitable[None]], told: Told) -> None:
        told.lags.append(time.monotonic() - due)
        try:
            await send(told)
        except HubError as error:
            told.errors[f"{kind}: {error}"] += 1
        except asyncio.CancelledError:
            told.errors[f"{kind}: no answer"] += 1
            told.waits[kind].append(time.monotonic() - due)
        else:
            told.waits[kind].append(time.monotonic() - due)


def _arrivals(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """When requests of entities that know nothing of each other come: a Poisson process."""
    at = chance.expovariate(rate) if rate else seconds
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def serve(pipe: Connection, numbers: range, connections: int, made: dict[str, Any]) -> None:
    """A process: it makes its entities, lets them join, and runs the stretches that come through the pipe."""

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


class Crowd:
    """The processes together."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def run(self, rates: dict[str, float], seconds: float, seed: int) -> Told:
        """One stretch, shared by all processes."""
        prepared = 1 + 0.002 * rates["publish"] * seconds  # that signing takes
        start = time.monotonic() + prepared
        share = {kind: rate / len(self._pipes) for kind, rate in rates.items()}
        for place, pipe in enumerate(self._pipes):
            pipe.send(Stretch(rates=share, seconds=seconds, start=start, seed=seed * 1000 + place))
        told = Told()
        for pipe in self._pipes:
            told.add(pipe.recv())
        return told


@contextmanager
def crowd(count: int, *, processes: int, connections: int, made: dict[str, Any]) -> Iterator[Crowd]:
    """So many entities that have joined, shared by so many processes; `made` is what they are made with.

    Raises HubError when the hub does not let them join.
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
        yield Crowd(pipes)
        for pipe in pipes:
            pipe.send(None)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in started:
            process.join(10)
            if process.is_alive():
                process.terminate()

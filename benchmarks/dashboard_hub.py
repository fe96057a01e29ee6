"""A synthetic hub to look at: a running registry and vault, filled through the public clients.

`fill` lets entities train, publish and absorb until the registry has exactly a number of events; `Live` continues
from there. Equal seeds give equal events: only ids, times and the order within a wave differ.

    python benchmarks/dashboard_hub.py --entities 200 --events 20000 --live 5
"""

import argparse
import math
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

from dashboard_entity import TASK, Entity, SentEvent
from dashboard_world import ACTS, EACH, World
from hub_site import TEST_SET, hub

from kuber.domain.auth import OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE
from kuber.domain.evaluation import Evaluation


def fill(
    registry_url: str,
    vault_url: str,
    *,
    entities: int = 200,
    events: int = 20_000,
    seed: int = 0,
    verifier: str | None = None,
    operator: str | None = None,
) -> World:
    """Fill a new registry with exactly `events` events; `verifier` and `operator` are their tokens."""
    if not 1 <= entities <= events:
        raise ValueError("there must be at least one entity, and at least as many events as entities")
    rounds = max(1.0, events / entities / ACTS)
    world = World(registry_url, entities=entities, rounds=rounds, seed=seed, verifier=verifier, operator=operator)
    with ExitStack() as unfinished:
        unfinished.enter_context(world)
        world.enrol(vault_url)
        while (left := events - world.sent.total()) > 0:
            world.send(world.next(left))
        unfinished.pop_all()
    return world


class Live:
    """Continues in a filled world, event by event."""

    def __init__(self, world: World, *, rate: float) -> None:
        """`rate` is in events per second."""
        self._world = world
        self._rate = rate
        self._beats = 0

    def events(self, seconds: float = math.inf) -> Iterator[SentEvent]:
        """Send and yield events at the rate for a time; late if the registry is slower."""
        start = time.monotonic()
        for number in count():
            due = number / self._rate
            time.sleep(max(0.0, start + due - time.monotonic()))
            if max(due, time.monotonic() - start) >= seconds:
                return
            yield from self._world.send(self._world.next(1))

    @property
    def next_beat(self) -> float:
        """The accuracy of the next beat, 0.901 to 0.999: higher than that of any entity, and not a recent one."""
        return (901 + self._beats % 99) / 1000

    def beat(self, entity: Entity) -> SentEvent:
        """Report the accuracy of this beat."""
        tens, more = divmod(round(1000 * self.next_beat), TASK.classes)
        self._beats += 1
        correct = tuple(tens + (label < more) for label in range(TASK.classes))
        return entity.report(
            entity.round, Evaluation(test_set=TEST_SET, correct=correct, total=(EACH,) * TASK.classes)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=200)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="new folder for the hub's data (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep the folder at the end")
    parser.add_argument("--port", type=int, default=0, help="port of the registry; 0 for any free port")
    parser.add_argument("--live", type=float, metavar="RATE", help="continue with this many events per second")
    args = parser.parse_args()
    if not 1 <= args.entities <= args.events:
        parser.error("--entities must be at least 1, and --events at least as many")
    if args.live is not None and not 0 < args.live < math.inf:
        parser.error("--live must be greater than 0")
    if args.folder and args.folder.exists():
        parser.error(f"{args.folder} exists already; give a new folder")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="dashboard-hub-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a script stops it like Ctrl-C
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        if not args.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            registry_url, vault_url = stack.enter_context(hub(folder, port=args.port))
        except (OSError, OverflowError):
            parser.error(f"port {args.port} is not free; choose another one")
        stack.enter_context(suppress(KeyboardInterrupt))  # Ctrl-C ends the services at once
        operator, verifier = (folder / "registry" / name for name in (OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE))
        start = time.monotonic()
        world = fill(
            registry_url,
            vault_url,
            entities=args.entities,
            events=args.events,
            seed=args.seed,
            verifier=verifier.read_text(),
            operator=operator.read_text(),
        )
        stack.enter_context(world)
        counts = ", ".join(f"{number} {act}" for act, number in world.sent.most_common())
        print(f"{world.sent.total()} events in {time.monotonic() - start:.1f} s: {counts}")
        print(f"registry     {registry_url}\nvault        {vault_url}\nadmin token  {operator}", flush=True)
        if args.live is None:
            signal.pause()
        for _ in Live(world, rate=args.live).events():
            pass


if __name__ == "__main__":
    main()

"""A believable hub to look at: a running registry and vault, filled through the public clients, that goes on living.

`fill` lets entities learn, publish and absorb until the registry tells exactly so many events; `Live` goes on from
there. For one seed the same is told: only ids, times, and whose word comes first within a wave differ.

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

from dashboard_entity import TASK, Entity, Told
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
    """A world whose new registry tells exactly so many events; verifier and operator are known by their tokens."""
    if not 1 <= entities <= events:
        raise ValueError("each entity enrols, so there are at least as many events as entities, and one of these")
    rounds = max(1.0, events / entities / ACTS)
    world = World(registry_url, entities=entities, rounds=rounds, seed=seed, verifier=verifier, operator=operator)
    with ExitStack() as unfinished:
        unfinished.enter_context(world)
        world.enrol(vault_url)
        while (left := events - world.told.total()) > 0:
            world.tell(world.next(left))
        unfinished.pop_all()
    return world


class Live:
    """Goes on in a world that was filled, one event after the other."""

    def __init__(self, world: World, *, rate: float) -> None:
        """`rate` in events a second."""
        self._world = world
        self._rate = rate
        self._beats = 0

    def events(self, seconds: float = math.inf) -> Iterator[Told]:
        """Tells an event when it is due, for so long, and what was told; late where the registry is slower."""
        start = time.monotonic()
        for number in count():
            due = number / self._rate
            time.sleep(max(0.0, start + due - time.monotonic()))
            if max(due, time.monotonic() - start) >= seconds:
                return
            yield from self._world.tell(self._world.next(1))

    @property
    def next_beat(self) -> float:
        """The accuracy of the next beat: 0.901 to 0.999, more than any entity comes to, and in no report nearby."""
        return (901 + self._beats % 99) / 1000

    def beat(self, entity: Entity) -> Told:
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
    parser.add_argument("--folder", type=Path, help="a new one, for the hub's data; without it a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the folder there in the end")
    parser.add_argument("--port", type=int, default=0, help="of the registry; 0: a free one")
    parser.add_argument("--live", type=float, metavar="RATE", help="events a second to go on with")
    asked = parser.parse_args()
    if not 1 <= asked.entities <= asked.events:
        parser.error("each entity enrols: ask for at least one, and for at least as many events")
    if asked.live is not None and not 0 < asked.live < math.inf:
        parser.error("a rate is more than no event a second")
    if asked.folder and asked.folder.exists():
        parser.error(f"{asked.folder} is there already; name a new folder")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="dashboard-hub-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a script ends it as Ctrl-C does
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        if not asked.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            registry_url, vault_url = stack.enter_context(hub(folder, port=asked.port))
        except (OSError, OverflowError):
            parser.error(f"the registry cannot have port {asked.port}; choose another")
        stack.enter_context(suppress(KeyboardInterrupt))  # with one on its way, nobody waits for the services to end
        operator, verifier = (folder / "registry" / name for name in (OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE))
        start = time.monotonic()
        world = fill(
            registry_url,
            vault_url,
            entities=asked.entities,
            events=asked.events,
            seed=asked.seed,
            verifier=verifier.read_text(),
            operator=operator.read_text(),
        )
        stack.enter_context(world)
        told = ", ".join(f"{number} {act}" for act, number in world.told.most_common())
        print(f"{world.told.total()} events in {time.monotonic() - start:.1f} s: {told}")
        print(f"registry     {registry_url}\nvault        {vault_url}\nadmin token  {operator}", flush=True)
        if asked.live is None:
            signal.pause()
        for _ in Live(world, rate=asked.live).events():
            pass


if __name__ == "__main__":
    main()

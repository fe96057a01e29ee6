"""Load on a hub: many entities that publish and discover, each at its time, whether or not others were answered.

Entities join once; then they publish real, signed records of small sound weights (the blob, then the record), and ask
what their strategy asks. Latencies count from when a request was due. Prints one JSON line.

    python benchmarks/load.py --entities 10000 --publish 5 --discover 50 --seconds 20
    python benchmarks/load.py --entities 10000 --search
    python benchmarks/load.py --registry http://hub:5001 --vault http://hub:5002 --admin-token admin-token

`--search` finds the highest rate, ten questions to one publication, at which 99 of 100 questions are answered within
`--within` milliseconds, nothing fails, and the rate offered is reached. Without addresses it starts a hub of its own.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
from load_entities import Hub, HubError, new_run
from load_generator import Crowd, Told, crowd
from load_site import Site, site

RATIO = 10  # questions to one publication
REACHED = 0.95  # of what was offered


def summary(told: Told, seconds: float) -> dict[str, object]:
    """Rates, latencies in milliseconds, bytes of one request, and what the generator itself needed."""
    found: dict[str, object] = {}
    for kind, waits in told.waits.items():
        cuts = statistics.quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [*waits] * 99
        answered = len(waits) - sum(n for name, n in told.errors.items() if name == f"{kind}: no answer")
        found[kind] = {
            "offered": round(told.offered[kind] / seconds, 2),
            "reached": round(answered / told.seconds, 2),
            "answered": answered,
            **{name: round(1000 * cuts[at], 1) for name, at in (("p50", 49), ("p95", 94), ("p99", 98)) if cuts},
            "max": round(1000 * max(waits), 1) if waits else None,
            "bytes_sent": round(told.sent[kind] / answered) if answered else None,
            "bytes_received": round(told.received[kind] / answered) if answered else None,
        }
    lags = statistics.quantiles(told.lags, n=100, method="inclusive") if len(told.lags) > 1 else [0.0] * 99
    generator = {"busiest_core": round(told.processor / told.seconds, 2), "lag_p99": round(1000 * lags[98], 1)}
    return {**found, "errors": dict(told.errors), "seconds": round(told.seconds, 1), "generator": generator}


def measured(group: Crowd, hub: Site | None, rates: dict[str, float], seconds: float, seed: int) -> dict[str, object]:
    """One stretch, with the cores that each service of a hub of our own kept busy."""
    services = {} if hub is None else {name: psutil.Process(id) for name, id in hub.processes.items()}
    before = {name: sum(one.cpu_times()[:2]) for name, one in services.items()}
    told = group.run(rates, seconds, seed)
    cores = {name: (sum(one.cpu_times()[:2]) - before[name]) / told.seconds for name, one in services.items()}
    return summary(told, seconds) | {"cores": {name: round(used, 2) for name, used in cores.items()}}


def held(found: dict[str, object], within: float) -> bool:
    """Whether a stretch was quick enough, without an error, and as fast as it was asked for."""
    kinds = found["discover"], found["publish"]
    reached = all(kind["reached"] >= REACHED * kind["offered"] for kind in kinds)
    return not found["errors"] and found["discover"].get("p99", within) < within and reached


def search(group: Crowd, hub: Site | None, *, first: float, within: float, seconds: float) -> dict[str, object]:
    """The stretch with the highest rate that was held, to a tenth; the last one when none was."""
    low = high = best = None
    rate, number = first, 0
    while True:
        number += 1
        found = measured(group, hub, {"discover": rate, "publish": rate / RATIO}, seconds, number)
        good = held(found, within)
        p99 = found["discover"].get("p99")
        print(f"{rate:.1f} questions a second: p99 {p99} ms, held: {good}", file=sys.stderr, flush=True)
        if good:
            low, best = rate, found
        else:
            high = rate
        if high is None:
            rate *= 2
        elif low is None:
            if rate < 2:
                return found | {"held": False}
            rate /= 2
        elif high / low < 1.1:
            return best | {"held": True}
        else:
            rate = (low + high) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=1000)
    parser.add_argument("--per-task", type=int, default=100, help="entities that share a task")
    parser.add_argument("--strategy", default="kuber", help="whose questions are asked")
    parser.add_argument("--blob-bytes", type=int, default=4096, help="of the numbers in a published model")
    parser.add_argument("--publish", type=float, default=2.0, help="publications a second")
    parser.add_argument("--discover", type=float, default=20.0, help="questions a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a stretch")
    parser.add_argument("--search", action="store_true", help="find the highest rate, beginning at --discover")
    parser.add_argument("--within", type=float, default=100.0, help="milliseconds, for 99 of 100 questions")
    parser.add_argument("--processes", type=int, default=1, help="that generate the load")
    parser.add_argument("--connections", type=int, default=64, help="that they hold together, at most")
    parser.add_argument("--hub", choices=("sqlite", "postgresql"), default="sqlite", help="of a hub of our own")
    parser.add_argument("--registries", type=int, default=1, help="processes of our own hub, on postgresql")
    parser.add_argument("--registry", action="append", metavar="URL", help="of a hub that runs; may come again")
    parser.add_argument("--vault", metavar="URL", help="of a hub that runs")
    parser.add_argument("--admin-token", type=Path, metavar="FILE", help="to invite the entities with")
    asked = parser.parse_args()
    if bool(asked.registry) != bool(asked.vault):
        parser.error("--registry and --vault are given together")
    if not 1 <= asked.processes <= asked.entities:
        parser.error("each process has at least one entity")
    with ExitStack() as stack:
        own = None
        if asked.registry:
            operator = asked.admin_token.read_text().strip() if asked.admin_token else None
            hub = Hub(tuple(asked.registry), asked.vault, operator)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
            try:
                own = stack.enter_context(site(folder, asked.hub, asked.registries))
            except ValueError as error:
                parser.error(str(error))
            hub = Hub(own.registries, own.vault)
        made = {"run": new_run(), "hub": hub, "strategy": asked.strategy}
        made |= {"per_task": asked.per_task, "blob_bytes": asked.blob_bytes}
        start = time.monotonic()
        try:
            group = stack.enter_context(
                crowd(asked.entities, processes=asked.processes, connections=asked.connections, made=made)
            )
        except HubError as error:
            sys.exit(f"error: the hub does not let the entities in: {error}")
        joined = time.monotonic() - start
        if asked.search:
            found = search(group, own, first=asked.discover, within=asked.within, seconds=asked.seconds)
        else:
            found = measured(group, own, {"discover": asked.discover, "publish": asked.publish}, asked.seconds, 0)
        told = {"hub": asked.hub if own else asked.vault, "registries": len(hub.registries)}
        told |= {"entities": asked.entities, "joined_seconds": round(joined, 1)}
        if own:
            told["stored_bytes"] = own.stored()
        print(json.dumps(told | found), flush=True)


if __name__ == "__main__":
    main()

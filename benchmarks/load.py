"""Load test of a hub: many entities publish and discover at fixed times, whether or not responses have arrived.

Entities join once. Then they publish valid, signed records of small weights (the blob, then the record), and send the
queries of their strategy. Latencies count from the due time of a request. Prints one JSON line.

    python benchmarks/load.py --entities 10000 --publish 5 --discover 50 --seconds 20
    python benchmarks/load.py --entities 10000 --search
    python benchmarks/load.py --registry http://hub:5001 --vault http://hub:5002 --admin-token admin-token

`--search` finds the highest rate, with ten queries per publication, at which 99 of 100 queries are answered within
`--within` milliseconds, nothing fails, and the offered rate is reached. Without addresses it starts a hub of its own.
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
from load_generator import LoadGroup, Observations, load_group
from load_site import Site, site

RATIO = 10  # queries per publication
REACHED = 0.95  # share of the offered rate


def summary(seen: Observations, seconds: float) -> dict[str, object]:
    """Return rates, latencies in milliseconds, bytes per request, and the load of the generator itself."""
    found: dict[str, object] = {}
    for kind, waits in seen.waits.items():
        cuts = statistics.quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [*waits] * 99
        answered = len(waits) - sum(n for name, n in seen.errors.items() if name == f"{kind}: no answer")
        found[kind] = {
            "offered": round(seen.offered[kind] / seconds, 2),
            "reached": round(answered / seen.seconds, 2),
            "answered": answered,
            **{name: round(1000 * cuts[at], 1) for name, at in (("p50", 49), ("p95", 94), ("p99", 98)) if cuts},
            "max": round(1000 * max(waits), 1) if waits else None,
            "bytes_sent": round(seen.sent[kind] / answered) if answered else None,
            "bytes_received": round(seen.received[kind] / answered) if answered else None,
        }
    lags = statistics.quantiles(seen.lags, n=100, method="inclusive") if len(seen.lags) > 1 else [0.0] * 99
    generator = {"busiest_core": round(seen.processor / seen.seconds, 2), "lag_p99": round(1000 * lags[98], 1)}
    return {**found, "errors": dict(seen.errors), "seconds": round(seen.seconds, 1), "generator": generator}


def measured(
    group: LoadGroup, hub: Site | None, rates: dict[str, float], seconds: float, seed: int
) -> dict[str, object]:
    """Run one stretch; add the cores that each service of our own hub kept busy."""
    services = {} if hub is None else {name: psutil.Process(id) for name, id in hub.processes.items()}
    before = {name: sum(process.cpu_times()[:2]) for name, process in services.items()}
    seen = group.run(rates, seconds, seed)
    cores = {name: (sum(process.cpu_times()[:2]) - before[name]) / seen.seconds for name, process in services.items()}
    return summary(seen, seconds) | {"cores": {name: round(used, 2) for name, used in cores.items()}}


def held(found: dict[str, object], within: float) -> bool:
    """Whether a stretch met the latency limit and the offered rate, without errors."""
    kinds = found["discover"], found["publish"]
    reached = all(kind["reached"] >= REACHED * kind["offered"] for kind in kinds)
    return not found["errors"] and found["discover"].get("p99", within) < within and reached


def search(group: LoadGroup, hub: Site | None, *, first: float, within: float, seconds: float) -> dict[str, object]:
    """Return the stretch with the highest sustained rate, to a tenth; the last stretch if there is none."""
    low = high = best = None
    rate, number = first, 0
    while True:
        number += 1
        found = measured(group, hub, {"discover": rate, "publish": rate / RATIO}, seconds, number)
        good = held(found, within)
        p99 = found["discover"].get("p99")
        print(f"{rate:.1f} queries per second: p99 {p99} ms, sustained: {good}", file=sys.stderr, flush=True)
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
    parser.add_argument("--per-task", type=int, default=100, help="entities per task")
    parser.add_argument("--strategy", default="kuber", help="strategy whose queries are sent")
    parser.add_argument("--blob-bytes", type=int, default=4096, help="bytes of the numbers in a published model")
    parser.add_argument("--publish", type=float, default=2.0, help="publications per second")
    parser.add_argument("--discover", type=float, default=20.0, help="queries per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of a stretch in seconds")
    parser.add_argument("--search", action="store_true", help="find the highest rate, starting from --discover")
    parser.add_argument("--within", type=float, default=100.0, help="latency limit in ms for 99 of 100 queries")
    parser.add_argument("--processes", type=int, default=1, help="processes that generate the load")
    parser.add_argument("--connections", type=int, default=64, help="connections of all processes together, at most")
    parser.add_argument(
        "--hub", choices=("sqlite", "postgresql"), default="sqlite", help="database of the started hub"
    )
    parser.add_argument("--registries", type=int, default=1, help="registries of the started hub, on postgresql")
    parser.add_argument("--registry", action="append", metavar="URL", help="of a running hub; repeatable")
    parser.add_argument("--vault", metavar="URL", help="of a running hub")
    parser.add_argument("--admin-token", type=Path, metavar="FILE", help="operator token that invites the entities")
    args = parser.parse_args()
    if bool(args.registry) != bool(args.vault):
        parser.error("--registry and --vault need each other")
    if not 1 <= args.processes <= args.entities:
        parser.error("--entities must be at least --processes")
    with ExitStack() as stack:
        own = None
        if args.registry:
            operator = args.admin_token.read_text().strip() if args.admin_token else None
            hub = Hub(tuple(args.registry), args.vault, operator)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
            try:
                own = stack.enter_context(site(folder, args.hub, args.registries))
            except ValueError as error:
                parser.error(str(error))
            hub = Hub(own.registries, own.vault)
        made = {"run": new_run(), "hub": hub, "strategy": args.strategy}
        made |= {"per_task": args.per_task, "blob_bytes": args.blob_bytes}
        start = time.monotonic()
        try:
            group = stack.enter_context(
                load_group(args.entities, processes=args.processes, connections=args.connections, made=made)
            )
        except HubError as error:
            sys.exit(f"error: the entities cannot join the hub: {error}")
        joined = time.monotonic() - start
        if args.search:
            found = search(group, own, first=args.discover, within=args.within, seconds=args.seconds)
        else:
            found = measured(group, own, {"discover": args.discover, "publish": args.publish}, args.seconds, 0)
        result = {"hub": args.hub if own else args.vault, "registries": len(hub.registries)}
        result |= {"entities": args.entities, "joined_seconds": round(joined, 1)}
        if own:
            result["stored_bytes"] = own.stored()
        print(json.dumps(result | found), flush=True)


if __name__ == "__main__":
    main()

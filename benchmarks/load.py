"""Load on a hub: many entities that publish and discover, each request at its time whether or not others were answered.

Entities join once; then they publish real, signed records of small sound weights (the blob, then the record), and ask
what their strategy asks. Latencies count from when a request was due. Prints one JSON line.

    python benchmarks/load.py --entities 10000 --publish 5 --discover 50 --seconds 20
    python benchmarks/load.py --entities 10000 --search
    python benchmarks/load.py --registry https://hub:5001 --vault https://hub:5002 --admin-token hub/registry/admin-token

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
STEPS = 4  # of the search, once a rate was too high


def summary(told: Told, rates: dict[str, float], seconds: float) -> dict[str, object]:
    """Rates, latencies in milliseconds, bytes of one request, and what the generator itself needed."""
    found: dict[str, object] = {}
    for kind, waits in told.waits.items():
        cuts = statistics.quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [*waits] * 99
        answered = len(waits) - sum(n for name, n in told.errors.items() if name == f"{kind}: no answer")
        found[kind] = {
            "offered": round(rates[kind], 2),
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
    return summary(told, rates, seconds) | {"cores": {name: round(used, 2) for name, used in cores.items()}}


def search(group: Crowd, hub: Site | None, *, first: float, within: float, seconds: float) -> dict[str, object]:
    """The stretch of the highest rate that was held; the last one when not even the first rate was."""
    low, high, best = 0.0, 0.0, None
    rate = first
    for number in range(40):
        found = measured(group, hub, {"discover": rate, "publish": rate / RATIO}, seconds, number)
        discover, publish = found["discover"], found["publish"]
        held = (
            not found["errors"]
            and discover["p99"] < within
            and all(kind["reached"] >= REACHED * kind["answered"] / seconds for kind in (discover, publish))
        )
        print(f"{rate:.1f} questions a second: p99 {discover['p99']} ms, held: {held}", file=sys.stderr, flush=True)
        if held:
            low, best = rate, found
        else:
            high, best = rate, best or (found if number == 39 else best)
        if high and (high / max(low, high / 16) < 1.1 or number >= 39):
            break
        if not high:
            rate *= 2
        else:
            rate = (low + high) / 2 if low else high / 2
        if rate < 0.5:
            break
    return (best or found) | {"held": best is not None, "within": within}

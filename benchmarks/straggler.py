"""One entity ten times slower: what it costs the others, with KUber's strategy and with synchronous FedAvg.

Both are played in the same simulator, on the same partitions, speeds and seeds, with and without the straggler. The
target is 95 % of the held-out accuracy that the other entities have, on average, after their last round without it.
Told for each: the virtual seconds until their mean is there, their mean at the end, and that when the fastest of the
four plays is over. Prints one JSON line a method and seed.
"""

import argparse
import json
import tempfile
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from kuber.experiment.comparison.methods import perform
from kuber.experiment.engines import open_engine
from kuber.experiment.metrics import RoundMetrics
from kuber.experiment.scenario import load_scenario
from kuber.learning.runtime import available_cores
from kuber.settings import Settings

STRAGGLER = 0


def mean_at(metrics: list[RoundMetrics], time: float) -> float:
    """The mean held-out accuracy of the other entities at this moment; 0 for those that have ended no round."""
    others: dict[int, list[RoundMetrics]] = {}
    for one in sorted(metrics, key=lambda one: one.time):
        if one.entity != STRAGGLER:
            others.setdefault(one.entity, []).append(one)
    known = [(ends, bisect_right([one.time for one in ends], time)) for ends in others.values()]
    return fmean(ends[count - 1].evaluation.accuracy if count else 0.0 for ends, count in known)


def reached(metrics: list[RoundMetrics], target: float) -> float | None:
    """The virtual second at which their mean is at the target for the first time."""
    times = sorted({one.time for one in metrics if one.entity != STRAGGLER})
    return next((time for time in times if mean_at(metrics, time) >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--slower", type=float, default=10.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, open_engine(available_cores()) as engine:
        for seed in range(asked.seeds):
            settings = Settings(
                dataset="digits",
                architecture="mlp",
                learning_rate=0.1,
                batch_size=16,
                num_entities=asked.entities,
                num_rounds=asked.rounds,
                local_epochs=2,
                dirichlet_alpha=asked.alpha,
                seed=seed,
                cache_dir=Path(cache),
            )
            sound = load_scenario(settings)
            slow = sound.world.entities[STRAGGLER].speed / asked.slower
            worlds = {"sound": sound, "straggler": replace(sound, world=sound.world.change(STRAGGLER, speed=slow))}
            plays = {
                (method, name): perform(method, scenario, engine=engine).metrics
                for method in ("kuber", "fedavg")
                for name, scenario in worlds.items()
            }
            over = min(max(one.time for one in metrics if one.entity != STRAGGLER) for metrics in plays.values())
            for method in ("kuber", "fedavg"):
                target = 0.95 * mean_at(plays[method, "sound"], float("inf"))
                times = [reached(plays[method, name], target) for name in worlds]
                told = {
                    "seed": seed,
                    "method": method,
                    "target": round(target, 4),
                    "seconds": [None if time is None else round(time, 2) for time in times],
                    "slower": None if None in times else round(times[1] / times[0], 2),
                    "final": [round(mean_at(plays[method, name], float("inf")), 4) for name in worlds],
                    "when_the_first_is_over": [round(mean_at(plays[method, name], over), 4) for name in worlds],
                }
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

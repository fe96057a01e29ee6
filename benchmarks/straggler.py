"""Cost of one straggler, ten times slower, to the other entities: with KUber's strategy and with synchronous FedAvg.

Both run in the same simulator, on the same partitions, speeds and seeds, with and without the straggler. The target
is 95 % of the mean held-out accuracy of the other entities after their last round without the straggler. Prints for
each method and seed, as a JSON line, the virtual seconds until their mean reaches the target, their mean at the end,
and their mean when the fastest of the four simulations ends.
"""

import argparse
import json
import tempfile
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from kuber.experiment.comparison.methods import perform
from kuber.experiment.engines.factory import open_engine
from kuber.experiment.metrics import RoundMetrics
from kuber.experiment.scenario import load_scenario
from kuber.learning.runtime import available_cores
from kuber.settings import Settings

STRAGGLER = 0


def mean_at(metrics: list[RoundMetrics], time: float) -> float:
    """Return the mean held-out accuracy of the other entities at this time; 0 for those without a completed round."""
    others: dict[int, list[RoundMetrics]] = {}
    for entry in sorted(metrics, key=lambda entry: entry.time):
        if entry.entity != STRAGGLER:
            others.setdefault(entry.entity, []).append(entry)
    known = [(ends, bisect_right([entry.time for entry in ends], time)) for ends in others.values()]
    return fmean(ends[count - 1].evaluation.accuracy if count else 0.0 for ends, count in known)


def reached(metrics: list[RoundMetrics], target: float) -> float | None:
    """Return the virtual second at which their mean first reaches the target."""
    times = sorted({entry.time for entry in metrics if entry.entity != STRAGGLER})
    return next((time for time in times if mean_at(metrics, time) >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--slower", type=float, default=10.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, open_engine(available_cores()) as engine:
        for seed in range(args.seeds):
            settings = Settings(
                dataset="digits",
                architecture="mlp",
                learning_rate=0.1,
                batch_size=16,
                num_entities=args.entities,
                num_rounds=args.rounds,
                local_epochs=2,
                dirichlet_alpha=args.alpha,
                seed=seed,
                cache_dir=Path(cache),
            )
            sound = load_scenario(settings)
            slow = sound.world.entities[STRAGGLER].speed / args.slower
            worlds = {"sound": sound, "straggler": replace(sound, world=sound.world.change(STRAGGLER, speed=slow))}
            plays = {
                (method, name): perform(method, scenario, engine=engine).metrics
                for method in ("kuber", "fedavg")
                for name, scenario in worlds.items()
            }
            over = min(max(e.time for e in metrics if e.entity != STRAGGLER) for metrics in plays.values())
            for method in ("kuber", "fedavg"):
                target = 0.95 * mean_at(plays[method, "sound"], float("inf"))
                times = [reached(plays[method, name], target) for name in worlds]
                result = {
                    "seed": seed,
                    "method": method,
                    "target": round(target, 4),
                    "seconds": [None if time is None else round(time, 2) for time in times],
                    "slower": None if None in times else round(times[1] / times[0], 2),
                    "final": [round(mean_at(plays[method, name], float("inf")), 4) for name in worlds],
                    "when_the_first_is_over": [round(mean_at(plays[method, name], over), 4) for name in worlds],
                }
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

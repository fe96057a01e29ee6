"""Effect of half of the entities on the others, when they are slow, late, absent or unsound.

Every second entity is five times slower, joins at half-time, leaves then, never takes part, or publishes models with
rotated labels under the claims of its sound models (`lying`). Prints for each condition the mean held-out accuracy of
the other entities after their last round, and the difference to the same entities when nothing is wrong. Started
again with the same --folder, it resumes.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from kuber.experiment.engines.factory import open_engine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.experiment.world.conditions import Absence, Conditions
from kuber.learning.runtime import available_cores
from kuber.settings import load


def others_accuracy(scenario: Scenario, engine: ResultCache) -> float:
    """Return the mean held-out accuracy of the entities with even numbers after their last round."""
    runtime = simulated_runtime(scenario)
    recorder = MetricsRecorder(scenario, engine, make_learners(scenario, runtime))
    Simulation(scenario, engine=engine, recorder=recorder, runtime=runtime, progress=SilentProgress()).run()
    last = scenario.settings.num_rounds
    return fmean(e.evaluation.accuracy for e in recorder.metrics() if e.round == last and e.entity % 2 == 0)


def changed(scenario: Scenario, odd: Conditions) -> Scenario:
    """Return the scenario with other conditions, relative to its own speed, for every second entity."""
    entities = [
        replace(odd, speed=usual.speed * odd.speed) if index % 2 else usual
        for index, usual in enumerate(scenario.world.entities)
    ]
    return replace(scenario, world=replace(scenario.world, entities=tuple(entities)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/disturbed"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="run only these conditions; `nothing` always runs first")
    parser.add_argument("--strategy", default="kuber")
    parser.add_argument("--preset", default="study")
    args = parser.parse_args()
    with open_engine(available_cores()) as inner:
        engine = ResultCache(inner, args.folder)
        for seed in args.seeds:
            scenario = load_scenario(load({"strategy": args.strategy, "seed": seed}, preset=args.preset))
            phase = scenario.settings.local_epochs * len(scenario.private[0]) / scenario.world.entities[0].speed
            half = phase * scenario.settings.num_rounds / 2  # virtual seconds
            conditions = {
                "nothing": Conditions(speed=1.0),
                "slow": Conditions(speed=0.2),
                "late": Conditions(speed=1.0, joins=half),
                "gone": Conditions(speed=1.0, absences=(Absence(half),)),
                "absent": Conditions(speed=1.0, absences=(Absence(-1.0),)),
                "lying": Conditions(speed=1.0, poison="claims"),
            }
            if unknown := set(args.only or ()) - conditions.keys():
                parser.error(f"no condition {', '.join(sorted(unknown))}; choose from {', '.join(conditions)}")
            plain = 0.0
            for name, odd in conditions.items():
                if args.only and name not in ("nothing", *args.only):
                    continue
                accuracy = others_accuracy(changed(scenario, odd), engine)
                plain = accuracy if name == "nothing" else plain
                result = {
                    "seed": seed,
                    "half": name,
                    "others": round(accuracy, 4),
                    "points": round(100 * (accuracy - plain), 2),
                }
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

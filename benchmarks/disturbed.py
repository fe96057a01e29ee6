"""What half of the entities can do to the others: being slow, late, gone or liars.

Every second entity is five times slower, joins when half of the time is over, leaves then, never takes part, or
publishes models whose labels are turned round, under the claims of the sound ones (`lying`). Printed for each: the
mean held-out accuracy of the other entities after their last round, and the difference to the same entities when
nothing is wrong. Stopped and started again with the same --folder, it goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from kuber.experiment.engines import open_engine
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
    """The mean held-out accuracy of the entities with even numbers after their last round."""
    runtime = simulated_runtime(scenario)
    recorder = MetricsRecorder(scenario, engine, make_learners(scenario, runtime))
    Simulation(scenario, engine=engine, recorder=recorder, runtime=runtime, progress=SilentProgress()).run()
    last = scenario.settings.num_rounds
    return fmean(one.evaluation.accuracy for one in recorder.metrics() if one.round == last and one.entity % 2 == 0)


def changed(scenario: Scenario, odd: Conditions) -> Scenario:
    """The scenario in which every second entity lives under other conditions, relative to its own speed."""
    entities = [
        replace(odd, speed=one.speed * odd.speed) if index % 2 else one
        for index, one in enumerate(scenario.world.entities)
    ]
    return replace(scenario, world=replace(scenario.world, entities=tuple(entities)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/disturbed"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="these conditions; the first of all, `nothing`, is always run")
    parser.add_argument("--strategy", default="kuber")
    parser.add_argument("--preset", default="study")
    asked = parser.parse_args()
    with open_engine(available_cores()) as inner:
        engine = ResultCache(inner, asked.folder)
        for seed in asked.seeds:
            scenario = load_scenario(load({"strategy": asked.strategy, "seed": seed}, preset=asked.preset))
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
            if unknown := set(asked.only or ()) - conditions.keys():
                parser.error(f"there is no condition {', '.join(sorted(unknown))}; there are {', '.join(conditions)}")
            plain = 0.0
            for name, odd in conditions.items():
                if asked.only and name not in ("nothing", *asked.only):
                    continue
                accuracy = others_accuracy(changed(scenario, odd), engine)
                plain = accuracy if name == "nothing" else plain
                told = {
                    "seed": seed,
                    "half": name,
                    "others": round(accuracy, 4),
                    "points": round(100 * (accuracy - plain), 2),
                }
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

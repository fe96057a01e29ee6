"""What half of the entities can do to the others: being slow, late, gone or liars.

Every second entity is five times slower, joins when half of the time is over, leaves then, never takes part, or
publishes models whose labels are turned round, under the claims of the sound ones (`lying`). Printed for each: the
mean held-out accuracy of the other entities after their last round, and the difference to the same entities when
nothing is wrong. Stopped and started again with the same --folder, it goes on.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import fmean

from kuber.domain.evaluation import Evaluation
from kuber.entity.loop import Entity, Steps
from kuber.experiment.engines import engine
from kuber.experiment.entities import make_learners
from kuber.experiment.ledger import Ledger
from kuber.experiment.memo import Memo
from kuber.experiment.methods import Unwatched
from kuber.experiment.scenario import Scenario, scenario
from kuber.experiment.simulator import Simulation, simulated_runtime
from kuber.learning.runtime import available_cores
from kuber.settings import load


class Liar:
    """Publishes, under the claims of the sound model, one whose output layer answers the next class."""

    def __init__(self, entity: Entity) -> None:
        self._honest = entity._publisher
        self._journal = entity._journal

    def publish_start(self) -> Steps:
        yield from self._honest.publish_start()

    def publish(self, own: Evaluation) -> Steps:
        sound = self._journal.state.weights
        *_, last = [name.removesuffix(".bias") for name in sound if name.endswith(".bias")]
        turned = {name: sound[name].roll(1, 0) for name in (f"{last}.weight", f"{last}.bias")}
        self._journal.change(weights=sound | turned)
        yield from self._honest.publish(own)
        self._journal.change(weights=sound)


def others_accuracy(scene: Scenario, machine: Memo, disturb: Callable[[Simulation], None]) -> float:
    """The mean held-out accuracy of the entities with even numbers after their last round."""
    runtime = simulated_runtime(scene)
    ledger = Ledger(scene, machine, make_learners(scene, runtime))
    simulation = Simulation(scene, engine=machine, ledger=ledger, runtime=runtime, watcher=Unwatched())
    disturb(simulation)
    simulation.run()
    last = scene.settings.num_rounds
    return fmean(one.evaluation.accuracy for one in ledger.standings() if one.round == last and one.entity % 2 == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/disturbed"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="these conditions; the first of all, `nothing`, is always run")
    parser.add_argument("--strategy", default="kuber")
    parser.add_argument("--preset", default="study")
    asked = parser.parse_args()

    def nothing(simulation: Simulation) -> None: ...

    def turn(simulation: Simulation) -> None:
        for entity in simulation.entities[1::2]:
            entity._publisher = Liar(entity)

    with engine(available_cores()) as inner:
        machine = Memo(inner, asked.folder)
        for seed in asked.seeds:
            scene = scenario(load({"strategy": asked.strategy, "seed": seed}, preset=asked.preset))
            phase = scene.settings.local_epochs * len(scene.private[0]) / scene.speeds[0]  # virtual seconds
            half = phase * scene.settings.num_rounds / 2
            odd = [index % 2 for index in range(len(scene.private))]
            conditions = {
                "nothing": (scene, nothing),
                "slow": (
                    replace(scene, speeds=tuple(s / 5 if o else s for s, o in zip(scene.speeds, odd, strict=True))),
                    nothing,
                ),
                "late": (replace(scene, joins=tuple(half if o else 0.0 for o in odd)), nothing),
                "gone": (replace(scene, leaves=tuple(half if o else inf for o in odd)), nothing),
                "absent": (replace(scene, leaves=tuple(-1.0 if o else inf for o in odd)), nothing),
                "lying": (scene, turn),
            }
            if unknown := set(asked.only or ()) - conditions.keys():
                parser.error(f"there is no condition {', '.join(sorted(unknown))}; there are {', '.join(conditions)}")
            plain = 0.0
            for name, (changed, disturb) in conditions.items():
                if asked.only and name not in ("nothing", *asked.only):
                    continue
                accuracy = others_accuracy(changed, machine, disturb)
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

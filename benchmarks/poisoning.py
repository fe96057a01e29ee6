"""Accuracy of honest entities among attackers that publish whenever somebody ends a round (digits, mlp).

Each cell is one attack, strategy, number of entities and seed. In its place among 4 or 10 entities, 1 or 3 are never
there; attackers join in their stead, so that `absent` is the reference. Prints the mean held-out accuracy of the
honest after their last round as a table, and in how many samples the trigger of a backdoor works. Results are kept
in --folder, one file for each cell, so that a run that is started again resumes.

python benchmarks/poisoning.py --strategies kuber merge exchange --seeds 0 1 2
"""

import argparse
import json
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kuber import settings
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft, Knowledge
from kuber.domain.query import Query
from kuber.entity.deployment import Decision
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.learning.architectures import initial_weights
from kuber.learning.evaluation import evaluate
from kuber.learning.weights import Weights, dump, load, weights_of
from kuber.signing import Identity
from kuber.wire.signing_payloads import record_bytes

ATTACKS = ("liar", "recalls", "sybils", "replace", "backdoor", "flipped", "plagiarism", "withdrawn", "turncoat")
SIZES = {4: 1, 10: 3}  # entities, and attackers among them
TRIGGER = ((0, 0), (0, 1), (7, 7))  # pixels


class Lab:
    """Training and evaluation as attackers do them, on the whole public training part."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.runtime = simulated_runtime(scenario)
        self.learners = make_learners(scenario, self.runtime)
        self.learner = replace(self.learners[0], private=scenario.dataset.train)
        self.architecture = scenario.architectures[0]
        self.counts = tuple(np.bincount(scenario.common.labels, minlength=10).tolist())

    def initial(self, seed: int) -> Weights:
        """Return weights before training."""
        return initial_weights(self.architecture, seed)

    def train(self, weights: Weights, *, epochs: int, backdoor: bool = False, flip: bool = False) -> Weights:
        """Return weights after training, on rotated labels or with a backdoor."""
        network = self.learner.model(weights)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        for _ in range(epochs):
            for x, labels in self.learner.ordered_batches(self.scenario.dataset.train):
                y = (labels.long() + 1) % 10 if flip else labels.long()
                if backdoor:
                    x, y = torch.cat([x, triggered(x)]), torch.cat([y, torch.zeros_like(y)])
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(network(x), y))
                optimizer.step()
        return weights_of(network)

    def evaluate(self, weights: Weights) -> Evaluation:
        """Evaluate weights on the common test set."""
        batches = self.learner.ordered_batches(self.scenario.common)
        test_set = self.scenario.task.test_set
        assert test_set is not None
        return evaluate(self.learner.model(weights), batches, classes=10, test_set=test_set, runtime=self.runtime)

    def trigger_rate(self, weights: Weights) -> float:
        """Return the share of held-out samples, but for those of class 0, that the trigger turns into class 0."""
        network, hits, total = self.learner.model(weights), 0, 0
        with torch.no_grad():
            for x, y in self.learner.ordered_batches(self.scenario.held_out):
                others = y != 0
                hits += int((network(triggered(x)).argmax(1)[others] == 0).sum())
                total += int(others.sum())
        return hits / total

    def perturbed(self, weights: Weights, seed: int, size: float = 1e-6) -> Weights:
        """Return the same model with other bytes."""
        draws = torch.Generator().manual_seed(seed)
        return {name: tensor + torch.randn(tensor.shape, generator=draws) * size for name, tensor in weights.items()}

    def noise(self, seed: int) -> Weights:
        """Return weights that are noise."""
        zeros = {name: torch.zeros_like(tensor) for name, tensor in self.initial(0).items()}
        return self.perturbed(zeros, seed, 0.05)

    def perfect(self) -> Evaluation:
        """Return the claim of a model that is always right."""
        test_set = self.scenario.task.test_set
        assert test_set is not None
        return Evaluation(test_set=test_set, correct=self.counts, total=self.counts)


def triggered(x: Tensor) -> Tensor:
    """Return the samples with the trigger on them."""
    x = x.clone()
    for row, column in TRIGGER:
        x[..., row, column] = x.max()
    return x


class Attacker:
    """A member that signs and publishes what it likes."""

    def __init__(self, simulation: "AttackedSimulation", name: str) -> None:
        self.identity = Identity.generate()
        self.simulation = simulation
        self.id = simulation.registry.register(name, public_key=self.identity.public_key).id
        self.sequence = 0

    def publish(self, weights: Weights | bytes, claim: Evaluation, **fields: Any) -> Knowledge:
        """Publish weights under this claim."""
        self.sequence += 1
        scenario, simulation = self.simulation.lab.scenario, self.simulation
        artifact = simulation.vault.put(weights if isinstance(weights, bytes) else dump(weights))
        draft = Draft(
            entity=self.id,
            task=scenario.task,
            architecture=scenario.architectures[0],
            artifacts={WEIGHTS: artifact},
            evaluation=claim,
            round=self.sequence,
            sequence=self.sequence,
            **fields,
        )
        signed = replace(draft, signature=self.identity.sign(record_bytes(draft)))
        return simulation.registry.publish(signed, key=f"{self.sequence}")


class AttackedSimulation(Simulation):
    """A simulation in which attackers act whenever an entity ends a round."""

    def __init__(
        self, lab: Lab, attack: str, attackers: int, recorder: MetricsRecorder, engine: InlineEngine
    ) -> None:
        super().__init__(
            lab.scenario, engine=engine, recorder=recorder, runtime=lab.runtime, progress=SilentProgress()
        )
        self.lab = lab
        self.final: dict[int, Weights] = {}
        self._attack = attack
        self._attackers: list[Attacker] = []
        self._count = attackers
        self._ends = 0
        self._model: Weights = {}
        self._last: list[Knowledge] = []

    def end_round(self, index: int, round: int, decision: Decision, weights: Weights, seconds: float) -> str | None:
        self.final[index] = {name: tensor.clone() for name, tensor in weights.items()}
        self._ends += 1
        if self._attack != "absent":
            if not self._attackers:
                number = 40 if self._attack == "sybils" else self._count
                self._attackers = [Attacker(self, f"m{place}") for place in range(number)]
            self._strike()
        return super().end_round(index, round, decision, weights, seconds)

    def _strike(self) -> None:
        lab, ours = self.lab, {attacker.id for attacker in self._attackers}
        query = Query(task=lab.scenario.task.name, test_set=lab.scenario.task.test_set, order="newest", limit=200)
        honest = [record for record in self.registry.discover(query).items if record.entity not in ours]
        best = max(honest, key=lambda record: record.evaluation.accuracy, default=None)
        origin = next((record.origin for record in honest if record.origin), None)
        for place, attacker in enumerate(self._attackers):
            number = 1000 * place + self._ends
            match self._attack:
                case "liar":
                    attacker.publish(lab.noise(number), lab.perfect(), origin=origin)
                case "recalls":  # the true accuracy, with recalls of 100 % on every class
                    self._model = self._model or lab.initial(99)
                    accuracy, many = lab.evaluate(self._model).accuracy, 10**9
                    claim = Evaluation(
                        test_set=lab.perfect().test_set,
                        correct=(1,) * 9 + (int(many * accuracy),),
                        total=(1,) * 9 + (many,),
                    )
                    attacker.publish(lab.perturbed(self._model, number), claim)
                case "sybils":
                    if attacker.sequence == 0:
                        attacker.publish(lab.noise(number), lab.perfect(), origin=origin, sample_count=10**6)
                case "replace" | "backdoor" if best is not None:
                    if place == 0:
                        stored = self.vault.get(best.artifacts[WEIGHTS].digest)
                        epochs = 2 if attacker.sequence else 8
                        self._model = lab.train(load(stored, best.architecture), epochs=epochs, backdoor=True)
                    model = lab.perturbed(self._model, number)
                    samples = 10**12 if self._attack == "replace" else 300
                    attacker.publish(model, lab.evaluate(model), origin=origin, sample_count=samples)
                case "flipped":
                    self._model = self._model or lab.train(lab.initial(1), epochs=6, flip=True)
                    model = lab.perturbed(self._model, number)
                    attacker.publish(model, lab.evaluate(model), origin=origin, sample_count=1000)
                case "plagiarism" if best is not None:
                    stored = self.vault.get(best.artifacts[WEIGHTS].digest)
                    attacker.publish(stored, best.evaluation, origin=best.origin, sample_count=10**6)
                case "withdrawn" if best is not None:
                    stored = self.vault.get(best.artifacts[WEIGHTS].digest)
                    record = attacker.publish(stored, best.evaluation, origin=best.origin, sample_count=500)
                    self._last.append(record)
                    if len(self._last) > len(self._attackers):
                        self.registry.withdraw(self._last.pop(0).id)
                case "turncoat":  # sound for the first rounds, and then a lie each time
                    if self._ends <= 5 * len(self.lab.learners):
                        self._model = lab.train(self._model or lab.initial(2), epochs=1)
                        model = lab.perturbed(self._model, number)
                        attacker.publish(model, lab.evaluate(model), origin=origin)
                    else:
                        attacker.publish(lab.noise(number), lab.perfect(), origin=origin)


def measure(attack: str, strategy: str, entities: int, seed: int, rounds: int) -> dict[str, float]:
    """Return the accuracy of the honest, and the rate of the trigger."""
    fields = {
        "dataset": "digits",
        "architecture": "mlp",
        "num_entities": entities,
        "num_rounds": rounds,
        "local_epochs": 3,
        "learning_rate": 0.1,
        "batch_size": 16,
        "partition": "shards",
        "classes_per_entity": 3,
        "strategy": strategy,
        "seed": seed,
    }
    scenario = load_scenario(settings.load(fields))
    attackers = SIZES[entities]
    for index in range(entities - attackers, entities):
        scenario = replace(scenario, world=scenario.world.change(index, joins=inf))
    lab, engine = Lab(scenario), InlineEngine()
    recorder = MetricsRecorder(scenario, engine, lab.learners)
    simulation = AttackedSimulation(lab, attack, attackers, recorder, engine)
    simulation.run()
    accuracy = fmean(entry.evaluation.accuracy for entry in recorder.metrics() if entry.round == rounds)
    return {"accuracy": accuracy, "trigger": fmean(map(lab.trigger_rate, simulation.final.values()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/poisoning"))
    parser.add_argument("--strategies", nargs="+", default=["kuber", "merge", "exchange"])
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    parser.add_argument("--entities", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--table", action="store_true", help="only print the table of the cells that are done")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cells: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for seed in args.seeds:
        for entities in args.entities:
            for attack in ("absent", *args.attacks):
                for strategy in args.strategies:
                    path = args.folder / f"{strategy}-{attack}-{entities}-{args.rounds}-{seed}.json"
                    if not path.exists() and not args.table:
                        path.write_text(json.dumps(measure(attack, strategy, entities, seed, args.rounds)))
                        print(path.name, path.read_text(), flush=True)
                    if path.exists():
                        cells.setdefault((strategy, attack, entities), []).append(json.loads(path.read_text()))
    print_table(cells)


def print_table(cells: dict[tuple[str, str, int], list[dict[str, float]]]) -> None:
    """Print the mean and the standard deviation over the seeds in points, and the difference to `absent`."""
    for strategy in dict.fromkeys(key[0] for key in cells):
        print(f"\n| {strategy} | " + " | ".join(f"{SIZES[n]} of {n} | trigger" for n in SIZES) + " | seeds |")
        print("| --- | " + "--- | " * (2 * len(SIZES) + 1))
        for attack in dict.fromkeys(key[1] for key in cells if key[0] == strategy):
            texts, seeds = [], []
            for entities in SIZES:
                found = cells.get((strategy, attack, entities), [])
                values = [100 * cell["accuracy"] for cell in found]
                seeds.append(len(values))
                texts.append(f"{fmean(values):.1f} ± {pstdev(values):.1f}" if values else "")
                texts.append(f"{100 * fmean(cell['trigger'] for cell in found):.0f} %" if values else "")
            print(f"| {attack} | {' | '.join(texts)} | {min(seeds)} |")


if __name__ == "__main__":
    main()

"""Cost and held-out accuracy at the end of every round of every entity."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace

import torch

from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import FORWARD_COST, EvaluationResult, Progress, Work
from kuber.experiment.engines.base import Engine
from kuber.experiment.held_out import interim_part
from kuber.experiment.scenario import Scenario
from kuber.learning.evaluation import compute_logits, evaluate
from kuber.learning.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cumulative cost of one entity."""

    samples_trained: int = 0  # forward, backward and step
    samples_forward: int = 0  # forward only
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0  # of compute, on one core

    @property
    def compute(self) -> float:
        """Samples trained plus a third of the samples run forward only."""
        return self.samples_trained + FORWARD_COST * self.samples_forward

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundMetrics:
    """Cost and accuracy of one entity at the end of one round."""

    entity: int
    round: int
    time: float  # virtual second at which it ended
    cost: Cost
    evaluation: Evaluation  # held out; on a subset of that set between the first and the last round


class MetricsRecorder:
    """Evaluates models on the held-out test set, in parallel to the work of the method.

    A method passes models in and gets nothing back, so no decision reads the held-out test set.
    """

    def __init__(
        self,
        scenario: Scenario,
        engine: Engine,
        learners: Sequence[Learner],
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        """Use `learners` to run each entity's models, but not their samples; call `on_round` after every round."""
        self._on_round = on_round
        self._engine = engine
        self._learners = tuple(learners)
        self._rounds = scenario.settings.num_rounds
        self._whole, self._part = scenario.held_out, interim_part(scenario)
        self._digests = {len(samples): samples.digest() for samples in (self._whole, self._part)}
        self._pending: list[tuple[int, int, float, Cost, Future[EvaluationResult]]] = []
        self._latest: tuple[int, list[Weights], Future[EvaluationResult]] | None = None

    def end_round(self, entity: int, round: int, models: list[Weights], cost: Cost, *, time: float) -> None:
        """Record the end of a round at virtual second `time`; evaluate the model, or the mean logits of several."""
        if self._latest is None or self._latest[0] != round or [*map(id, self._latest[1])] != [*map(id, models)]:
            samples = self._whole if round in (1, self._rounds) else self._part
            self._latest = round, models, self._engine.submit(self._evaluation(entity, models, samples))
        self._pending.append((entity, round, time, cost, self._latest[2]))
        self._on_round()

    def metrics(self) -> list[RoundMetrics]:
        """Return every round of every entity, sorted by round; wait for the evaluations."""
        found = [
            RoundMetrics(entity=entity, round=round, time=time, cost=cost, evaluation=future.result().evaluation)
            for entity, round, time, cost, future in self._pending
        ]
        return sorted(found, key=lambda entry: (entry.round, entry.entity))

    def _evaluation(self, entity: int, models: list[Weights], samples: Samples) -> Work:
        # The learner sent to the worker needs no private samples.
        learner = replace(self._learners[entity], private=samples, common=samples)
        digest = self._digests[len(samples)]
        arguments = {"learner": learner, "models": models, "samples": samples, "test_set": digest}
        return Work(function=evaluate_together, arguments=arguments, cost=FORWARD_COST * len(samples) * len(models))


def evaluate_together(
    learner: Learner, models: list[Weights], samples: Samples, test_set: Digest, *, progress: Progress
) -> EvaluationResult:
    """Evaluate one model, or the mean of the logits of several models."""
    start = time.perf_counter()
    batches = learner.ordered_batches
    if len(models) == 1:
        model = learner.model(models[0])
        evaluation = evaluate(
            model, batches(samples), classes=learner.classes, test_set=test_set, runtime=learner.runtime
        )
    else:
        networks = map(learner.model, models)
        predictions = [compute_logits(network, batches(samples), runtime=learner.runtime) for network in networks]
        labels = torch.from_numpy(samples.labels)
        right = labels[torch.stack(predictions).mean(0).argmax(1) == labels]
        correct, total = (torch.bincount(of, minlength=learner.classes).tolist() for of in (right, labels))
        evaluation = Evaluation(test_set=test_set, correct=tuple(correct), total=tuple(total))
    progress(1.0)
    return EvaluationResult(evaluation=evaluation, seconds=time.perf_counter() - start)

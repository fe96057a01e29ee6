"""Cost and held-out accuracy at the end of every round of every entity."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from kuber.data.samples import Samples
from kuber.domain.deployment import Choice
from kuber.domain.evaluation import Evaluation
from kuber.domain.prior import Frequencies, uniform
from kuber.entity.deployment import PrivateAnswer
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import FORWARD_COST, Progress, Work
from kuber.experiment.engines.base import Engine
from kuber.experiment.held_out import (
    HeldOut,
    PrivatePart,
    deciding_part,
    deployed_answers,
    interim_part,
    plain_answers,
)
from kuber.experiment.scenario import Scenario
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
    """Cost and accuracy of one entity at the end of one round.

    Accuracies are held out, on a subset of that set between the first and the last round.
    """

    entity: int
    round: int
    time: float  # virtual second at which it ended
    cost: Cost
    evaluation: Evaluation  # general: with logits of a uniform prior
    own_accuracy: float  # on the entity's own mixture of classes, with logits of its own prior
    deployed: Choice = "last"  # which model these are of
    private_accuracy: float | None = None  # general, of the private network alone; None where there is none


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
        whole, part = scenario.held_out, interim_part(scenario)
        self._whole, self._part = HeldOut.of(whole, scenario.task.classes), HeldOut.of(part, scenario.task.classes)
        self._deciding = deciding_part(scenario)
        self._architectures = scenario.architectures
        self._class_counts = [scenario.class_counts(index) for index in range(len(scenario.private))]
        self._ends: list[tuple[_RoundEnd, int]] = []  # with the place among the entities that end with its model
        self._latest: _EndedModel | None = None

    def end_round(
        self,
        entity: int,
        round: int,
        models: list[Weights],
        cost: Cost,
        *,
        time: float,
        carried: Frequencies | None = None,
        deployed: Choice = "last",
        personal: Weights | None = None,
        private: PrivateAnswer | None = None,
    ) -> None:
        """Record the end of a round at virtual second `time`; evaluate the model, or the mean logits of several.

        `carried` is the prior that these logits carry, by default uniform, and `deployed` which model it is. A model
        with which several entities end a round, one after the other, is run forward once. Own accuracy is that of the
        `personal` model, if there is one, whose logits carry the entity's prior. With a `private` network the model
        is its proxy, and no other entity's.
        """
        carried = carried or uniform(self._learners[entity].classes)
        if self._latest is None or private is not None or not self._latest.is_same(round, models, carried):
            self.evaluate()
            self._latest = _EndedModel(round=round, models=models, carried=carried, private=private)
        self._ends.append((_RoundEnd(entity, round, time, cost, deployed, self._latest), len(self._latest.entities)))
        self._latest.entities.append(entity)
        self._latest.personal.append(personal)
        self._on_round()

    def evaluate(self) -> None:
        """Begin to evaluate the model of the last call; call it when no further entity ends its round with that."""
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.counts = self._engine.submit(self._work(latest))
            latest.models, latest.personal, latest.private = [], [], None

    def metrics(self) -> list[RoundMetrics]:
        """Return every round of every entity, sorted by round; wait for the evaluations."""
        self.evaluate()
        found = [self._metrics(end, place) for end, place in self._ends]
        return sorted(found, key=lambda entry: (entry.round, entry.entity))

    def _metrics(self, end: "_RoundEnd", place: int) -> RoundMetrics:
        assert end.model.counts is not None
        correct = end.model.counts.result().tolist()  # general, then own of each entity
        held_out = self._held_out(end.round)
        alone = correct[1 + len(end.model.entities) :]
        found = held_out.accuracies(correct[0], correct[1 + place], self._class_counts[end.entity], *alone)
        return RoundMetrics(
            entity=end.entity,
            round=end.round,
            time=end.time,
            cost=end.cost,
            evaluation=Evaluation(test_set=held_out.digest, correct=tuple(correct[0]), total=held_out.total),
            own_accuracy=found.own,
            deployed=end.deployed,
            private_accuracy=found.private,
        )

    def _held_out(self, round: int) -> HeldOut:
        return self._whole if round in (1, self._rounds) else self._part

    def _work(self, ended: "_EndedModel") -> Work:
        samples = self._held_out(ended.round).samples
        # Samples that are not run are left out, so that a cache of results knows equal work.
        deciding = samples if ended.carried == uniform(len(ended.carried)) else self._deciding
        # The learner sent to the worker needs no private samples.
        learner = replace(self._learners[ended.entities[0]], private=samples, common=samples)
        arguments = {
            "learner": learner,
            "models": ended.models,
            "samples": samples,
            "carried": ended.carried,
            "class_counts": [self._class_counts[entity] for entity in ended.entities],
            "deciding": deciding,
        }
        if any(model is not None for model in ended.personal):
            arguments["personal"] = list(ended.personal)
        networks = len(ended.models)
        if ended.private is not None:
            own = replace(learner, architecture=self._architectures[ended.entities[0]])
            part = PrivatePart(learner=own, weights=ended.private.weights, share=ended.private.share)
            arguments["private"], networks = part, networks + 1
        forward = networks * (len(samples) + (len(deciding) if deciding is not samples else 0))
        forward += len(samples) * sum(model is not None for model in ended.personal)
        return Work(function=evaluate_together, arguments=arguments, cost=FORWARD_COST * forward)


@dataclass(kw_only=True, slots=True)
class _EndedModel:
    """A model with which entities ended a round, or several whose logits are averaged."""

    round: int
    models: list[Weights]
    carried: Frequencies
    entities: list[int] = field(default_factory=list)
    personal: list[Weights | None] = field(default_factory=list)  # of each of these
    private: PrivateAnswer | None = None
    counts: Future[Tensor] | None = None

    def is_same(self, round: int, models: list[Weights], carried: Frequencies) -> bool:
        same = [*map(id, self.models)] == [*map(id, models)]
        return same and self.round == round and self.carried == carried and self.private is None


class _RoundEnd(NamedTuple):
    entity: int
    round: int
    time: float
    cost: Cost
    deployed: Choice
    model: _EndedModel


def evaluate_together(
    learner: Learner,
    models: list[Weights],
    samples: Samples,
    *,
    carried: Frequencies,
    class_counts: list[tuple[int, ...]],
    deciding: Samples,
    personal: Sequence[Weights | None] = (),
    private: PrivatePart | None = None,
    progress: Progress,
) -> Tensor:
    """Return `deployed_answers`; own ones are of personal models."""
    counts = deployed_answers(
        learner,
        models,
        samples,
        private=private,
        carried=carried,
        class_counts=class_counts,
        deciding=deciding,
    )
    for place, weights in enumerate(personal):
        if weights is not None:
            counts[1 + place] = plain_answers(learner, weights, samples)
    progress(1.0)
    return counts

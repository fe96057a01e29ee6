"""The models that a baseline deploys, by the rule of the entities that KUber trains."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from kuber.domain.deployment import AVERAGED, Choice, Deployed
from kuber.entity.deployment import decide
from kuber.entity.work.average import AverageResult, average_evaluation
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import EvaluationResult, Work, common_evaluation
from kuber.experiment.metrics import Cost
from kuber.learning.weights import Weights

Submit = Callable[[Work], Future[Any]]
_Pending = tuple[Future[EvaluationResult], Future[AverageResult] | None]  # of a model, and of an average
Models = list[Weights]  # of one entity: one, or several whose logits are averaged


@dataclass(frozen=True, slots=True)
class _Track:
    """The models of one entity or several: at the end of the last rounds, the newest first, and the deployed ones."""

    entities: list[int]
    recent: tuple[Models, ...] = ()
    deployed: tuple[tuple[Deployed, Weights], ...] = ()


class DeployedModels:
    """Chooses the deployed models at the end of each round, on the common test set.

    Entities that have their models in one list share one choice and its cost; it begins anew when others share it.
    Each model of an ensemble is chosen by the entity that trained it.
    """

    def __init__(self, learners: Sequence[Learner], submit: Submit, spend: Callable[[int, Cost], None]) -> None:
        self._learners = learners
        self._submit = submit
        self._spend = spend
        self._tracks: dict[int, _Track] = {}

    def choose(self, round: int, models: Sequence[Models]) -> list[tuple[Models, Choice]]:
        """Return the deployed models of each entity, and which they are, given those at the end of a round."""
        sharing: dict[int, list[int]] = {}
        for entity, current in enumerate(models):
            sharing.setdefault(id(current), []).append(entity)
        pending = [(entities, self._begin(models[entities[0]], entities)) for entities in sharing.values()]
        chosen: dict[int, tuple[Models, Choice]] = {}
        for entities, futures in pending:
            current = models[entities[0]]
            track = self._next(round, current, entities, futures)
            for place, entity in enumerate(entities):
                self._tracks[entity] = track
                own = track.deployed[place if len(current) == len(entities) else 0][0]
                chosen[entity] = [weights for _, weights in track.deployed], own.choice(round)
        return [chosen[entity] for entity in range(len(models))]

    def _begin(self, current: Models, entities: list[int]) -> list[_Pending]:
        """Begin to evaluate each model, and the average of it and those of the last rounds."""
        recent = self._track(entities).recent
        futures = []
        for place, weights in enumerate(current):
            learner = self._learners[entities[place % len(entities)]]
            average = None
            if recent:
                earlier = [models[place] for models in recent]
                average = self._submit(average_evaluation(learner, (weights, *earlier)))
            futures.append((self._submit(common_evaluation(learner, weights)), average))
        return futures

    def _next(self, round: int, current: Models, entities: list[int], futures: list[_Pending]) -> _Track:
        """Return the track at the end of a round, and let the entities pay for what it took."""
        before = self._track(entities)
        deployed = []
        for place, (weights, (evaluated, average)) in enumerate(zip(current, futures, strict=True)):
            result: EvaluationResult = evaluated.result()
            earlier = before.deployed[place] if before.deployed else (None, weights)
            decision = decide(
                earlier[0],
                round=round,
                current=weights,
                evaluation=result.evaluation,
                earlier=tuple(models[place] for models in before.recent),
                average=partial(_result_of, average),
            )
            samples = sum(result.evaluation.total) + decision.forward
            payers = [entities[place]] if len(current) == len(entities) else entities
            self._share(samples, result.seconds + decision.seconds, payers)
            model = decision.average
            if model is None:
                model = weights if decision.deployed.round == round else earlier[1]
            deployed.append((decision.deployed, model))
        return _Track(entities, recent=(current, *before.recent)[: AVERAGED - 1], deployed=tuple(deployed))

    def _track(self, entities: list[int]) -> _Track:
        """Return the models so far; none if other entities had them too, as before models become own ones."""
        track = self._tracks.get(entities[0])
        return track if track is not None and track.entities == entities else _Track(entities)

    def _share(self, samples: int, seconds: float, entities: list[int]) -> None:
        """Let each of these entities pay for an equal share."""
        count = len(entities)
        for place, entity in enumerate(entities):
            part = samples * (place + 1) // count - samples * place // count
            self._spend(entity, Cost(samples_forward=part, seconds=seconds / count))


def _result_of(average: Future[AverageResult] | None, models: tuple[Weights, ...]) -> AverageResult:
    assert average is not None, "there is an average of as many models as there were earlier ones"
    return average.result()

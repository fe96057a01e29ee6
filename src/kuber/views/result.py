"""The result of a run, as stored in `result.json`. docs/runs.md describes every field."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import zip_longest
from statistics import fmean
from typing import Any, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from kuber.domain.deployment import Choice
from kuber.wire.base import sentence

T = TypeVar("T")

finite = with_config(ConfigDict(allow_inf_nan=False))  # no chart can draw NaN or infinity


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class EntityResult:
    """The result of one entity. Every accuracy is on the held-out test set, 0 to 1; general where not called own."""

    entity: str
    final_accuracy: float
    start_accuracy: float  # at the end of its first round
    gain: float  # final minus start
    accuracies: tuple[float, ...]  # at the end of each round
    samples: int  # private training samples
    published: int
    absorbed: int
    rejected: int
    bytes_up: int
    bytes_down: int
    ends: tuple[float, ...] = ()  # active seconds of the run when each round ended; virtual ones in a simulation
    group: str | None = None  # in the simulated world; None where no world was named
    own_accuracy: float | None = None  # final, on the entity's own mixture of classes; older results lack it
    own_accuracies: tuple[float, ...] = ()  # at the end of each round
    deployed: Choice | None = None  # model that all accuracies at the end are of; None in older results: the last
    deployed_round: int | None = None  # at whose end that model was made
    private_accuracy: float | None = None  # final, general, of its private network alone; None where there is none


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """The result of a run."""

    run_dir: str
    strategy: str
    seed: int
    dataset: str
    architecture: str
    rounds: int
    device: str
    precision: str
    entities: tuple[EntityResult, ...]
    mean_accuracy: float
    worst_accuracy: float
    wall_seconds: float
    samples_trained: int
    samples_forward: int
    own_accuracy: float | None = None  # mean of the entities' own accuracies; older results lack it

    def to_json(self) -> str:
        """Return the result as one JSON object."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the output of `to_json`; ignore fields of later versions. Raises ValueError if it is not valid."""
        found = parsed(cls, text, what="the result of a run")
        if not found.entities:
            raise ValueError("This is not the result of a run: it lists no entities.")
        return found

    @property
    def start_accuracy(self) -> float:
        """Mean held-out accuracy of the entities at the end of their first round."""
        return fmean(entity.start_accuracy for entity in self.entities)

    @property
    def worst(self) -> EntityResult:
        """The entity with the lowest final accuracy."""
        return min(self.entities, key=lambda entity: entity.final_accuracy)

    @property
    def worst_own_accuracy(self) -> float | None:
        """The lowest own accuracy of an entity; None in older results."""
        return min((entity.own_accuracy for entity in self.entities if entity.own_accuracy is not None), default=None)

    @property
    def deployed(self) -> tuple[Choice | None, ...]:
        """The deployed model of each entity."""
        return tuple(entity.deployed for entity in self.entities)

    @property
    def of_own_mixtures(self) -> "RunResult | None":
        """The result with own accuracies in place of the general ones; None in older results."""
        if self.own_accuracy is None or self.worst_own_accuracy is None:
            return None
        entities = tuple(
            replace(
                entity,
                final_accuracy=entity.own_accuracies[-1],
                start_accuracy=entity.own_accuracies[0],
                gain=entity.own_accuracies[-1] - entity.own_accuracies[0],
                accuracies=entity.own_accuracies,
            )
            for entity in self.entities
        )
        return replace(
            self, entities=entities, mean_accuracy=self.own_accuracy, worst_accuracy=self.worst_own_accuracy
        )


def mean_by_round(entities: Iterable[EntityResult]) -> list[float]:
    """Return the mean accuracy at the end of each round, over the entities that completed it."""
    rounds = zip_longest(*(entity.accuracies for entity in entities))
    return [fmean(value for value in values if value is not None) for values in rounds]


def parsed(kind: type[T], text: str | bytes, *, what: str) -> T:
    """Parse JSON as a dataclass of this kind; ignore fields that it does not have.

    Raises ValueError with a sentence that names `what` was expected.
    """
    try:
        found: T = _adapter(kind).validate_json(text)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        reason = sentence(error)
        raise ValueError(f"This is not {what}: {reason[0].lower()}{reason[1:]}") from None
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

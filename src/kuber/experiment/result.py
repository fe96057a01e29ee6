"""The outcome of a run, as `result.json` holds it. docs/runs.md describes every field."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any, Self

from kuber.domain.event import Event
from kuber.settings import Settings
from kuber.views import RunView, Stopwatch


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityResult:
    """What became of one entity. Every accuracy is on the held-out test set, 0 to 1."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What became of a run."""

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

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result that `to_json` wrote; fields of later versions are left out. ValueError when it is none."""
        found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(found.get("entities"), list):
            raise ValueError("this is not the result of a run: it lists no entities")
        entities = tuple(EntityResult(**_known(EntityResult, entity)) for entity in found["entities"])
        return cls(**_known(cls, found | {"entities": entities}))

    @property
    def start_accuracy(self) -> float:
        """The mean over entities at the end of their first round."""
        return fmean(entity.start_accuracy for entity in self.entities)

    @property
    def worst(self) -> EntityResult:
        """The entity that ended lowest."""
        return min(self.entities, key=lambda entity: entity.final_accuracy)


def result_of(
    view: RunView, held_out: Mapping[str, Sequence[float]], *, run_dir: str, settings: Settings, wall: float
) -> RunResult:
    """The result of a run that is complete.

    `held_out` gives for each entity the held-out accuracy at the end of each of its rounds, `wall` the seconds at
    work. Raises ValueError when an entity of the log has no such accuracies.
    """
    missing = [name for name in view.entities if not held_out.get(name)]
    if missing or not view.entities:
        raise ValueError(
            f"a result needs held-out accuracies of every entity; missing: {', '.join(missing) or 'all'}"
        )
    entities = []
    for name, entity in view.entities.items():
        accuracies = tuple(held_out[name])
        entities.append(
            EntityResult(
                entity=name,
                final_accuracy=accuracies[-1],
                start_accuracy=accuracies[0],
                gain=accuracies[-1] - accuracies[0],
                accuracies=accuracies,
                samples=entity.samples,
                published=entity.published,
                absorbed=entity.absorbed,
                rejected=entity.rejected,
                bytes_up=entity.bytes_up,
                bytes_down=entity.bytes_down,
            )
        )
    return RunResult(
        run_dir=run_dir,
        strategy=settings.strategy,
        seed=settings.seed,
        dataset=settings.dataset,
        architecture=_each(entity.architecture for entity in view.entities.values()),
        rounds=view.rounds,
        device=_each(entity.device for entity in view.entities.values()),
        precision=_each(entity.precision for entity in view.entities.values()),
        entities=tuple(entities),
        mean_accuracy=fmean(entity.final_accuracy for entity in entities),
        worst_accuracy=min(entity.final_accuracy for entity in entities),
        wall_seconds=wall,
        samples_trained=sum(entity.samples_trained for entity in view.entities.values()),
        samples_forward=sum(entity.samples_forward for entity in view.entities.values()),
    )


def wall_seconds(events: Iterable[Event]) -> float:
    """Seconds at work: the sum over sessions; one that was killed ended with its last event."""
    stopwatch = Stopwatch()
    for event in events:
        stopwatch.apply(event)
    return stopwatch.seconds()


def _each(values: Iterable[str | None]) -> str:
    """The one value that all share, or every different one."""
    return ", ".join(sorted({value for value in values if value is not None}))


def _known(cls: type[EntityResult] | type[RunResult], found: object) -> dict[str, Any]:
    """The fields of `cls` in a JSON object, lists as tuples. ValueError when one is missing."""
    if not isinstance(found, dict):
        raise ValueError("this is not the result of a run: an object was expected")
    missing = [known.name for known in fields(cls) if known.name not in found]
    if missing:
        raise ValueError(f"this is not the result of a run: {', '.join(missing)} is missing")
    values = {known.name: found[known.name] for known in fields(cls)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

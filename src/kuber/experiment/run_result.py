"""Compute the result of a run from its events and held-out accuracies."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from kuber.domain.event import Event
from kuber.errors import SettingsError
from kuber.settings import Settings
from kuber.views.result import EntityResult, RunResult
from kuber.views.run import RunView, Stopwatch


class HeldOutAccuracy(NamedTuple):
    """The two accuracies of a model at the end of a round."""

    general: float  # on the held-out test set as it is, with logits of a uniform prior
    own: float  # on the entity's own mixture of classes, with logits of its own prior
    private: float | None = None  # general, of its private network alone; None where there is none


def result_of(
    view: RunView,
    held_out: Mapping[str, Sequence[HeldOutAccuracy]],
    *,
    run_dir: str,
    settings: Settings,
    wall: float,
    groups: Mapping[str, str] | None = None,
) -> RunResult:
    """Return the result of a complete run, over the entities that completed a round.

    `held_out` holds the accuracies of each entity at the end of each of its rounds, `wall` the active seconds, and
    `groups` the group of each entity in a world. Raises ValueError if an entity lacks accuracies, and SettingsError
    if no entity completed a round.
    """
    ended = {name: entity for name, entity in view.entities.items() if entity.history}
    if not ended:
        raise SettingsError(
            "There is no result because no entity completed a round; choose a world in which they stay longer."
        )
    missing = [name for name, entity in ended.items() if len(held_out.get(name, ())) != len(entity.history)]
    if missing:
        raise ValueError(f"a result needs held-out accuracies of every entity; missing: {', '.join(missing)}")
    entities = []
    for name, entity in ended.items():
        deployed = entity.deployed.get(entity.history[-1][0])
        accuracies, own, private = (tuple(kind) for kind in zip(*held_out[name], strict=True))
        entities.append(
            EntityResult(
                entity=name,
                final_accuracy=accuracies[-1],
                start_accuracy=accuracies[0],
                gain=accuracies[-1] - accuracies[0],
                accuracies=accuracies,
                own_accuracy=own[-1],
                own_accuracies=own,
                private_accuracy=private[-1],
                deployed=None if deployed is None else deployed.model,
                deployed_round=None if deployed is None else deployed.round,
                samples=entity.samples,
                published=entity.published,
                absorbed=entity.absorbed,
                rejected=entity.rejected,
                bytes_up=entity.bytes_up,
                bytes_down=entity.bytes_down,
                ends=tuple(entity.ends),
                group=None if groups is None else groups[name],
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
        own_accuracy=fmean(held_out[entity.entity][-1].own for entity in entities),
        worst_accuracy=min(entity.final_accuracy for entity in entities),
        wall_seconds=wall,
        samples_trained=sum(entity.samples_trained for entity in view.entities.values()),
        samples_forward=sum(entity.samples_forward for entity in view.entities.values()),
    )


def active_seconds(events: Iterable[Event]) -> float:
    """Return the active seconds of a run: the sum of its sessions, without the pauses between them."""
    stopwatch = Stopwatch()
    for event in events:
        stopwatch.apply(event)
    return stopwatch.seconds()


def _each(values: Iterable[str | None]) -> str:
    """Return the common value, or all different ones."""
    return ", ".join(sorted({value for value in values if value is not None}))

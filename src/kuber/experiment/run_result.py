"""The result of a run, made from its events and the held-out accuracies."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from kuber.domain.event import Event
from kuber.errors import SettingsError
from kuber.settings import Settings
from kuber.views import EntityResult, RunResult, RunView, Stopwatch


def result_of(
    view: RunView,
    held_out: Mapping[str, Sequence[float]],
    *,
    run_dir: str,
    settings: Settings,
    wall: float,
    groups: Mapping[str, str] | None = None,
) -> RunResult:
    """The result of a run that is complete, of the entities that ended a round in it.

    `held_out` gives for each entity the held-out accuracy at the end of each of its rounds, `wall` the seconds at
    work, and `groups` those of a world. Raises ValueError when an entity of the log lacks such accuracies,
    SettingsError when there is nothing to tell of.
    """
    ended = {name: entity for name, entity in view.entities.items() if entity.history}
    if not ended:
        raise SettingsError("No entity ended a round, so there is no result; let them stay longer in this world.")
    missing = [name for name, entity in ended.items() if len(held_out.get(name, ())) != len(entity.history)]
    if missing:
        raise ValueError(f"a result needs held-out accuracies of every entity; missing: {', '.join(missing)}")
    entities = []
    for name, entity in ended.items():
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

"""The report of a run: one HTML page that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from kuber.experiment.reports.html import page
from kuber.views import RunResult, RunView, exchanges, groups_of, natural, percent

TEMPLATE = "report.html.j2"
MOST_CLASSES = 20  # with more, a table of them says nothing to the eye
UPRIGHT = 70  # characters; class names that are longer together stand upright
MOST_ENTITIES = 20  # with more, who taught whom is a list
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def write_report(
    path: Path,
    result: RunResult,
    view: RunView,
    plots: Mapping[str, bytes],
    settings: Mapping[str, Any],
    labels: Sequence[str],
) -> None:
    """Write the report of a run that is complete to `path`.

    `plots` holds the PNG images `accuracy`, `partition` and `lineage`, and `world` where one was named; `settings`
    what the run was told, and `labels` names the classes.
    """
    taught = view.taught
    html = page(
        TEMPLATE,
        images=plots,
        settings=settings,
        result=result,
        headline=headline(result),
        deliveries=view.deliveries,
        reasons=any(delivery.reason for delivery in view.deliveries),
        taught=taught,
        pairs=sorted(taught, key=lambda pair: (natural(pair[0]), natural(pair[1]))),
        teachers=sorted({*view.entities, *(teacher for teacher, _ in taught)}, key=natural),
        as_list=len(view.entities) > MOST_ENTITIES,
        exchanges=exchanges(view),
        entities=view.entities.values(),
        groups=groups_of(result.entities, rounds=result.rounds),
        labels=labels,
        upright=sum(map(len, labels)) > UPRIGHT,
        most_classes=MOST_CLASSES,
        means=_means([entity.recalls for entity in view.entities.values()]),
        name_of=view.name_of,
    )
    path.write_text(html, encoding="utf-8")


def headline(result: RunResult) -> str:
    """What happened, in one sentence."""
    entities = _count(len(result.entities), "entity", "entities").capitalize()
    rounds = _count(result.rounds, "round", "rounds")
    published = sum(entity.published for entity in result.entities)
    absorbed = sum(entity.absorbed for entity in result.entities)
    if published or absorbed:
        pieces = "one piece" if absorbed == 1 else f"{_number(absorbed)} pieces"
        done = f"{entities} published {_count(published, 'model', 'models')} and absorbed {pieces} of knowledge"
        done += f" in {rounds}"
    else:
        each = "learnt" if len(result.entities) == 1 else "each learnt"
        done = f"{entities} {each} alone for {rounds}"
    accuracy = "held-out accuracy" if len(result.entities) == 1 else "mean held-out accuracy"
    before, after = percent(result.start_accuracy), percent(result.mean_accuracy)
    if result.rounds == 1:
        return f"{done}; {accuracy} is {after}."
    if before == after:
        return f"{done}; {accuracy} stayed at {after}."
    verb = "rose" if result.mean_accuracy > result.start_accuracy else "fell"
    return f"{done}; {accuracy} {verb} from {before} to {after}."


def _means(recalls: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The mean of each class over the entities of which it is known."""
    known = [[value for value in values if value is not None] for values in zip_longest(*recalls)]
    return [fmean(values) if values else None for values in known]


def _count(number: int, one: str, many: str) -> str:
    return f"{_number(number)} {one if number == 1 else many}"


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"

"""The report of a run: one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kuber.domain.evaluation import mean_recalls
from kuber.experiment.reports.html import page
from kuber.views.deployed_models import deployed_sentence
from kuber.views.exchange import exchanges
from kuber.views.formatting import natural, percent
from kuber.views.groups import groups_of
from kuber.views.result import RunResult
from kuber.views.run import RunView

TEMPLATE = "report.html.j2"
MAX_CLASSES = 20  # with more, the table of classes is left out
MAX_LABEL_CHARACTERS = 70  # of all class names together; longer ones are set vertically
MAX_GRID_ENTITIES = 20  # with more, the table of teachers and students is a list
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def write_report(
    path: Path,
    result: RunResult,
    view: RunView,
    plots: Mapping[str, bytes],
    settings: Mapping[str, Any],
    labels: Sequence[str],
) -> None:
    """Write the report of a complete run to `path`.

    `plots` holds the PNG images `accuracy`, `own_accuracy` (unless the result is older), `partition`, `lineage` and,
    if the run has a world, `world`; `labels` are the class names.
    """
    taught = view.taught
    html = page(
        TEMPLATE,
        images=plots,
        settings=settings,
        result=result,
        headline=headline(result),
        own=result.of_own_mixtures,
        deployed=deployed_sentence(result.deployed),
        deliveries=view.deliveries,
        reasons=any(delivery.reason for delivery in view.deliveries),
        taught=taught,
        pairs=sorted(taught, key=lambda pair: (natural(pair[0]), natural(pair[1]))),
        teachers=sorted({*view.entities, *(teacher for teacher, _ in taught)}, key=natural),
        as_list=len(view.entities) > MAX_GRID_ENTITIES,
        exchanges=exchanges(view),
        entities=view.entities.values(),
        groups=groups_of(result.entities, rounds=result.rounds),
        labels=labels,
        upright=sum(map(len, labels)) > MAX_LABEL_CHARACTERS,
        max_classes=MAX_CLASSES,
        means=mean_recalls(entity.recalls for entity in view.entities.values()),
        name_of=view.name_of,
    )
    path.write_text(html, encoding="utf-8")


def headline(result: RunResult) -> str:
    """Summarise the run in one sentence."""
    entities = _count(len(result.entities), "entity", "entities").capitalize()
    rounds = _count(result.rounds, "round", "rounds")
    published = sum(entity.published for entity in result.entities)
    absorbed = sum(entity.absorbed for entity in result.entities)
    if published or absorbed:
        pieces = "one piece" if absorbed == 1 else f"{_number(absorbed)} pieces"
        done = f"{entities} published {_count(published, 'model', 'models')} and absorbed {pieces} of knowledge"
        done += f" in {rounds}"
    else:
        each = "learned" if len(result.entities) == 1 else "each learned"
        done = f"{entities} {each} alone for {rounds}"
    accuracy = "held-out accuracy" if len(result.entities) == 1 else "mean held-out accuracy"
    own = result.own_accuracy
    if own is None:
        return f"{done}; {accuracy} {_change(result)}."
    # Without the first round's: there is no personal head before the last one.
    return f"{done}; {accuracy}: general {_change(result)}, own is {percent(own)}."


def _change(result: RunResult) -> str:
    """Say how the mean accuracy has changed since the first round."""
    before, after = percent(result.start_accuracy), percent(result.mean_accuracy)
    if result.rounds == 1:
        return f"is {after}"
    if before == after:
        return f"stayed at {after}"
    return f"{'rose' if result.mean_accuracy > result.start_accuracy else 'fell'} from {before} to {after}"


def _count(number: int, singular: str, plural: str) -> str:
    return f"{_number(number)} {singular if number == 1 else plural}"


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"

"""The report of a run: one HTML page that needs nothing beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kuber.experiment.page import page
from kuber.views import RunResult, RunView, natural, percent

TEMPLATE = "report.html.j2"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def write_report(
    path: Path, result: RunResult, view: RunView, plots: Mapping[str, bytes], settings: Mapping[str, Any]
) -> None:
    """Write the report of a run that is complete to `path`.

    `plots` holds the PNG images `accuracy`, `partition` and `lineage`, `settings` what the run was told.
    """
    html = page(
        TEMPLATE,
        images=plots,
        settings=settings,
        result=result,
        headline=headline(result),
        deliveries=view.deliveries,
        taught=sorted(view.taught.items(), key=lambda item: (natural(item[0][0]), natural(item[0][1]))),
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


def _count(number: int, one: str, many: str) -> str:
    return f"{_number(number)} {one if number == 1 else many}"


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"

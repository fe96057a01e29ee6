"""The report of a comparison: one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from pathlib import Path

from kuber.experiment.page import page
from kuber.experiment.tables import sections
from kuber.experiment.tally import FLOOR, Row, Summary
from kuber.settings import Settings
from kuber.views import percent

TEMPLATE = "comparison.html.j2"


def write_comparison_report(
    path: Path, *, settings: Settings, rows: Sequence[Row], summary: Sequence[Summary], plot: bytes
) -> None:
    """Write the report of a comparison that is complete to `path`; `plot` is its picture as PNG."""
    html = page(
        TEMPLATE,
        images={"comparison": plot},
        settings=settings.model_dump(mode="json", exclude={"strategy", "seed"}),
        headline=_headline(settings, summary),
        folder=path.parent,
        dataset=Path(settings.dataset).stem,
        architecture=settings.architecture,
        entities=settings.num_entities,
        seeds=list(dict.fromkeys(one.seed for one in rows)),
        methods=[one.strategy for one in summary],
        sections=sections(settings, summary),
        summary=summary,
        rows=rows,
        floor={one.seed: one for one in rows if one.strategy == FLOOR},
    )
    path.write_text(html, encoding="utf-8")


def _headline(settings: Settings, summary: Sequence[Summary]) -> str:
    """What came out, in one sentence; a longer `local` stands in the tables only."""
    told = ", ".join(
        f"{one.strategy} {percent(one.mean_accuracy.mean)}"
        for one in summary
        if not one.strategy.startswith(f"{FLOOR}@")
    )
    return (
        f"Mean held-out accuracy after {settings.num_rounds} round{'' if settings.num_rounds == 1 else 's'}: {told}."
    )

"""The report of a comparison: one HTML page that needs nothing beside it."""

from pathlib import Path

from kuber.experiment.reports.html import page
from kuber.views import FLOOR, ComparisonResult, percent

TEMPLATE = "comparison.html.j2"


def write_comparison_report(path: Path, done: ComparisonResult, plot: bytes) -> None:
    """Write the report of a comparison to `path`; `plot` is its picture as PNG."""
    settings = {name: value for name, value in done.settings.items() if name not in ("strategy", "seed")}
    html = page(
        TEMPLATE,
        images={"comparison": plot},
        settings=settings,
        headline=_headline(done),
        folder=path.parent,
        dataset=Path(settings["dataset"]).stem,
        architecture=settings["architecture"],
        entities=settings["num_entities"],
        seeds=done.seeds,
        methods=[one.strategy for one in done.summary],
        sections=done.sections,
        summary=done.summary,
        rows=done.rows,
        floor={one.seed: one for one in done.rows if one.strategy == FLOOR},
    )
    path.write_text(html, encoding="utf-8")


def _headline(done: ComparisonResult) -> str:
    """What came out, in one sentence; a longer `local` stands in the tables only."""
    told = ", ".join(
        f"{one.strategy} {percent(one.mean_accuracy.mean)}"
        for one in done.summary
        if not one.strategy.startswith(f"{FLOOR}@")
    )
    return f"Mean held-out accuracy after {done.rounds} round{'' if done.rounds == 1 else 's'}: {told}."

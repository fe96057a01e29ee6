"""The report of a comparison: one self-contained HTML page."""

from pathlib import Path

from kuber.experiment.reports.html import page
from kuber.views.comparison import FLOOR, ComparisonResult, Summary
from kuber.views.formatting import percent

TEMPLATE = "comparison.html.j2"


def write_comparison_report(path: Path, result: ComparisonResult, plot: bytes) -> None:
    """Write the report of a comparison to `path`; `plot` is its plot as PNG."""
    settings = {name: value for name, value in result.settings.items() if name not in ("strategy", "seed")}
    html = page(
        TEMPLATE,
        images={"comparison": plot},
        settings=settings,
        headline=_headline(result),
        folder=path.parent,
        dataset=Path(settings["dataset"]).stem,
        architecture=settings["architecture"],
        entities=settings["num_entities"],
        seeds=result.seeds,
        methods=[summary.strategy for summary in result.summary],
        sections=result.sections,
        summary=result.summary,
        rows=result.rows,
        floor={row.seed: row for row in result.rows if row.strategy == FLOOR},
    )
    path.write_text(html, encoding="utf-8")


def _headline(result: ComparisonResult) -> str:
    """Summarise the result in one sentence; a longer `local` is left to the tables."""
    accuracies = ", ".join(
        f"{summary.strategy} {percent(summary.mean_accuracy.mean)}{_own(summary)}"
        for summary in result.summary
        if not summary.strategy.startswith(f"{FLOOR}@")
    )
    after = f"after {result.rounds} round{'' if result.rounds == 1 else 's'}"
    return f"Mean held-out accuracy {after}, general (own): {accuracies}."


def _own(summary: Summary) -> str:
    return "" if summary.own_accuracy is None else f" ({percent(summary.own_accuracy.mean)})"

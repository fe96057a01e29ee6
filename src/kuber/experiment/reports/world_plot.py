"""Plot of accuracy over virtual time, by group of a simulated world."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kuber.experiment.reports.plots import COLOURS, DASHES, DOTS_PER_INCH, GRID, INK, as_png, plain_frame
from kuber.views.groups import groups_of
from kuber.views.result import EntityResult, RunResult

MAX_SINGLE_LINES = 30  # in larger groups, entities have no line of their own


def world_plot(result: RunResult) -> bytes:
    """Plot the mean of each group over its entities that have completed a round by then; PNG."""
    figure = Figure(figsize=(9.0, 4.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for number, group in enumerate(groups_of(result.entities, rounds=result.rounds)):
        members = [entity for entity in result.entities if entity.group == group.name]
        colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        if len(members) <= MAX_SINGLE_LINES:
            for entity in members:
                axes.step(entity.ends, entity.accuracies, where="post", color=colour, linewidth=0.7, alpha=0.35)
        times, means = _mean_over_time(members)
        label = f"{group.name} ({group.entities})"
        axes.step(times, means, where="post", color=colour, linestyle=dashes, linewidth=2.2, label=label)
    axes.set_title("Held-out accuracy over virtual time, mean of each group", loc="left", color=INK)
    axes.set_xlabel("virtual seconds (first and last round: all held-out samples; others: a fixed subset)")
    axes.set_ylabel("held-out accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(axis="y", color=GRID)
    plain_frame(axes)
    axes.legend(loc="lower right", frameon=False)
    return as_png(figure)


def _mean_over_time(members: Sequence[EntityResult]) -> tuple[list[float], list[float]]:
    """Return the times at which rounds ended, and the mean of the latest accuracies from each time on."""
    ends = sorted(
        (time, number, accuracy)
        for number, entity in enumerate(members)
        for time, accuracy in zip(entity.ends, entity.accuracies, strict=True)
    )
    latest: dict[int, float] = {}
    sum_of_latest, times, means = 0.0, [], []
    for time, number, accuracy in ends:
        sum_of_latest += accuracy - latest.get(number, 0.0)
        latest[number] = accuracy
        times.append(time)
        means.append(sum_of_latest / len(latest))
    return times, means

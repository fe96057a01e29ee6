"""Accuracy over virtual time, by group of a world: what a straggler, a crowd or a cut does, and to whom; PNG."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kuber.experiment.reports.plots import COLOURS, DASHES, DOTS_PER_INCH, INK, as_png, plain_frame
from kuber.views import EntityResult, RunResult, groups_of

FAINT = 30  # entities of a group up to which each has a line of its own


def world_plot(result: RunResult) -> bytes:
    """The mean of each group at each moment, over its entities that have ended a round by then."""
    figure = Figure(figsize=(9.0, 4.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for number, group in enumerate(groups_of(result.entities, rounds=result.rounds)):
        members = [entity for entity in result.entities if entity.group == group.name]
        colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        if len(members) <= FAINT:
            for entity in members:
                axes.step(entity.ends, entity.accuracies, where="post", color=colour, linewidth=0.7, alpha=0.35)
        times, means = _mean_over_time(members)
        label = f"{group.name} ({group.entities})"
        axes.step(times, means, where="post", color=colour, linestyle=dashes, linewidth=2.2, label=label)
    axes.set_title("Held-out accuracy over virtual time: the mean of each group", loc="left", color=INK)
    axes.set_xlabel("virtual seconds (between the first and the last round: on a part of the held-out samples)")
    axes.set_ylabel("held-out accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(axis="y", color="#E4E4E4")
    plain_frame(axes)
    axes.legend(loc="lower right", frameon=False)
    return as_png(figure)


def _mean_over_time(members: Sequence[EntityResult]) -> tuple[list[float], list[float]]:
    """The times at which a round ended, and from each on the mean of the latest accuracies."""
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

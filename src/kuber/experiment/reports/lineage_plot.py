"""The picture of who taught whom, over the rounds of everybody."""

from collections.abc import Sequence

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kuber.domain.strategy import Method
from kuber.experiment.reports.plots import COLOURS, DOTS_PER_INCH, INK, PALE, as_png, plain_frame
from kuber.views import DeliveryView, RunView

_LOWEST, _HIGHEST = 2.4, 14.0  # inches
_KEPT, _DECLINED = COLOURS[0], PALE
_BESIDE = 0.38  # rounds between what a round publishes and what it absorbs
_CROWD = 12  # with more entities, thinner lines


def lineage_plot(view: RunView) -> bytes:
    """A line for each delivery, from the teacher when it published to the student when it absorbed; PNG.

    A row is an entity. What was kept is drawn dark, what was not pale. Knowledge of somebody whose events are not in
    the view is left out.
    """
    rows = {name: number for number, name in enumerate(view.entities)}
    published = {
        knowledge: (round, rows[name])
        for name, entity in view.entities.items()
        for knowledge, round in entity.records.items()
    }
    height = min(_HIGHEST, max(_LOWEST, 1.3 + 0.45 * len(rows)))
    figure = Figure(figsize=(9.0, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    thin = len(rows) > _CROWD
    for kept, colour in ((False, _DECLINED), (True, _KEPT)):
        lines = [
            (published[knowledge], (_when(one), rows[one.student]))
            for one in view.deliveries
            if one.kept is kept
            for knowledge in one.teachers
            if knowledge in published
        ]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.5 if thin else 1.1, alpha=0.55))
        size = 10 if thin else 26
        axes.scatter(*_across([end for _, end in lines]), s=size, facecolors="white", edgecolors=colour, zorder=3)
    axes.scatter(*_across(list(published.values())), s=6 if thin else 16, color=INK, zorder=4)
    axes.set(xlim=(-0.3, view.rounds + 0.6), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [f"entity {name}" for name in rows], fontsize=6 if thin else 9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round of the entity")
    axes.set_title("Who taught whom", loc="left", color=INK)
    plain_frame(axes)
    axes.grid(axis="y", color="#E4E4E4")
    axes.set_axisbelow(True)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
    return as_png(figure)


def _when(delivery: DeliveryView) -> float:
    """Where a delivery stands in its round: heard in the local phase it precedes what the round publishes."""
    return delivery.round + (-_BESIDE if delivery.method == Method.GUIDE else _BESIDE)


def _across(places: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in places], [y for _, y in places]


def _legend() -> list[Line2D]:
    ring = {"marker": "o", "markerfacecolor": "white", "markersize": 5.0}
    return [
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=4.0, label="published"),
        Line2D([], [], color=_KEPT, label="absorbed and kept", **ring),  # type: ignore[arg-type]
        Line2D([], [], color=_DECLINED, label="absorbed and undone", **ring),  # type: ignore[arg-type]
    ]

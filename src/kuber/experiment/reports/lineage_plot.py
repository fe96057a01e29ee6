"""Plot of deliveries between entities, over their rounds."""

from collections.abc import Sequence

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kuber.domain.strategy import Method
from kuber.experiment.reports.plots import COLOURS, DOTS_PER_INCH, GRID, INK, PALE, as_png, plain_frame
from kuber.views.delivery import DeliveryView
from kuber.views.run import RunView

_MIN_HEIGHT, _MAX_HEIGHT = 2.4, 14.0  # inches
_KEPT, _DECLINED = COLOURS[0], PALE
_OFFSET = 0.38  # rounds between the publication and the delivery of a round
_MAX_THICK = 12  # entities; with more, lines are thinner


def lineage_plot(view: RunView) -> bytes:
    """Plot a line for each delivery, from the teacher's publication to the student; PNG.

    Each entity has a row. Kept deliveries are dark, others pale. Teachers whose events are not in the view are left
    out.
    """
    rows = {name: number for number, name in enumerate(view.entities)}
    published = {
        knowledge: (round, rows[name])
        for name, entity in view.entities.items()
        for knowledge, round in entity.records.items()
    }
    height = min(_MAX_HEIGHT, max(_MIN_HEIGHT, 1.3 + 0.45 * len(rows)))
    figure = Figure(figsize=(9.0, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    thin = len(rows) > _MAX_THICK
    for kept, colour in ((False, _DECLINED), (True, _KEPT)):
        lines = [
            (published[knowledge], (_position(delivery), rows[delivery.student]))
            for delivery in view.deliveries
            if delivery.kept is kept
            for knowledge in delivery.teachers
            if knowledge in published
        ]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.5 if thin else 1.1, alpha=0.55))
        size = 10 if thin else 26
        axes.scatter(*_xy([end for _, end in lines]), s=size, facecolors="white", edgecolors=colour, zorder=3)
    axes.scatter(*_xy(list(published.values())), s=6 if thin else 16, color=INK, zorder=4)
    axes.set(xlim=(-0.3, view.rounds + 0.6), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [f"entity {name}" for name in rows], fontsize=6 if thin else 9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round of the entity")
    axes.set_title("Who taught whom", loc="left", color=INK)
    plain_frame(axes)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
    return as_png(figure)


def _position(delivery: DeliveryView) -> float:
    """Return the position on the axis of rounds. Guidance happens in the local phase, before the publication."""
    return delivery.round + (-_OFFSET if delivery.method == Method.GUIDE else _OFFSET)


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _legend() -> list[Line2D]:
    ring = {"marker": "o", "markerfacecolor": "white", "markersize": 5.0}
    return [
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=4.0, label="published"),
        Line2D([], [], color=_KEPT, label="absorbed and kept", **ring),  # type: ignore[arg-type]
        Line2D([], [], color=_DECLINED, label="absorbed, not kept", **ring),  # type: ignore[arg-type]
    ]

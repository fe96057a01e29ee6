"""Plot of a comparison: accuracy against compute and against bytes transferred."""

from collections.abc import Callable, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter, SymmetricalLogLocator

from kuber.experiment.reports.plots import COLOURS, DASHES, DOTS_PER_INCH, GRID, INK, as_png, plain_frame
from kuber.views.comparison import Point, ResultRow

MARKS = ("o", "s", "^", "D", "v", "P", "X")


def comparison_plot(rows: Sequence[ResultRow]) -> bytes:
    """Plot the mean held-out accuracy of each method over all seeds, round by round; PNG.

    Above: general. Below: own, unless rows of earlier versions lack it. Left: against compute (samples trained plus a
    third of the samples run forward only). Right: against bytes sent and received.
    """
    has_own = all(point.own_accuracy is not None for row in rows for point in row.curve)
    figure = Figure(figsize=(11.0, 9.0 if has_own else 5.0), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(2 if has_own else 1, 2, sharex="col", sharey="row", squeeze=False)
    _panels(panels[0, 0], panels[0, 1], rows, lambda point: point.accuracy)
    panels[0, 0].set_ylabel("mean held-out accuracy, general")
    if has_own:
        _panels(panels[1, 0], panels[1, 1], rows, lambda point: point.own_accuracy or 0.0)
        panels[1, 0].set_ylabel("mean held-out accuracy, own")
    left, right = panels[-1]
    left.set_xlabel("compute of all entities (millions of samples trained)")
    right.set_xlabel("sent and received by all entities (MB)")
    seeds = len({row.seed for row in rows})
    title = f"Held-out accuracy, mean of {seeds} seed{'' if seeds == 1 else 's'}; one mark per round"
    panels[0, 0].set_title(title, loc="left", color=INK)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    return as_png(figure)


def _panels(left: Axes, right: Axes, rows: Sequence[ResultRow], accuracy: Callable[[Point], float]) -> None:
    """Plot one kind of accuracy against compute and against bytes."""
    methods = [name for name in dict.fromkeys(row.strategy for row in rows) if "@" not in name]
    longest = _longest_local(rows)
    for number, name in enumerate(methods):
        mine = longest if name == "local" and longest else [row for row in rows if row.strategy == name]
        _draw(left, mine, number, name, lambda point: point.compute / 1e6, accuracy)
        _draw(right, mine, number, name, lambda point: point.bytes / 1e6, accuracy)
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.grid(color=GRID)
        plain_frame(axes)
    right.set_xscale("symlog", linthresh=1.0)
    right.set_xlim(left=-0.1)
    steps = (1, 2, 5) if right.get_xlim()[1] < 100 else (1,)  # over more decades, tick labels would overlap
    right.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1.0, subs=steps))
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_major_locator(MaxNLocator(6))


def _draw(
    axes: Axes,
    rows: Sequence[ResultRow],
    number: int,
    name: str,
    along: Callable[[Point], float],
    accuracy: Callable[[Point], float],
) -> None:
    rounds = min(len(row.curve) for row in rows)  # those of a longer `local` may depend on the seed
    xs = [fmean(along(row.curve[at]) for row in rows) for at in range(rounds)]
    ys = [fmean(accuracy(row.curve[at]) for row in rows) for at in range(rounds)]
    colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    axes.plot(xs, ys, color=colour, linestyle=dashes, marker=MARKS[number % len(MARKS)], markersize=4, label=name)


def _longest_local(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return the rows of the longest `local` that exists for every seed; none if there is no such one."""
    longer = {row.strategy for row in rows if row.strategy.startswith("local@")}
    seeds = {row.seed for row in rows}
    sets = [[row for row in rows if row.strategy == name] for name in sorted(longer)]
    whole = [found for found in sets if {row.seed for row in found} == seeds]
    return max(whole, key=lambda found: sum(row.compute for row in found), default=[])

"""Plots of a run as PNG: accuracy over rounds, and the partition. Equal values give equal bytes."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kuber.views.palette import LIGHT
from kuber.views.result import EntityResult, RunResult, mean_by_round
from kuber.views.run import RunView

COLOURS, PALE, INK, GRID = LIGHT.colours, LIGHT.pale, LIGHT.ink, LIGHT.grid
DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (1, 1)))
DOTS_PER_INCH = 150
# Marker, size in points, whether it is filled, legend. A triangle fits into a ring.
MARKS = {"delivery": ("o", 10.0, False, "absorbed knowledge"), "published": ("^", 5.0, True, "published its model")}
MAX_NAMED_LINES = 10  # with more entities, only the best, the worst and the mean are highlighted
MAX_LABEL = 18  # characters of a class name
MAX_SLANTED_LABELS = 30  # with more classes, names that do not fit are vertical
MAX_WRITTEN_COUNTS = 20  # with more classes, the circles hold no numbers


def accuracy_plot(result: RunResult, view: RunView, *, mixture: str = "mixture of all") -> bytes:
    """Plot the held-out accuracy of every entity over its rounds, with publications and deliveries marked; PNG.

    `mixture` names the classes that the accuracies in `result` are on.
    """
    figure = Figure(figsize=(9.0, 5.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    named = len(result.entities) <= MAX_NAMED_LINES
    labels = _named_lines(axes, result) if named else _highlighted_lines(axes, result)
    for number, entity in enumerate(result.entities):
        colour = COLOURS[number % len(COLOURS)] if named else PALE
        _draw_marks(axes, entity, view, colour=colour, scale=1.0 if named else 0.6)
    axes.set_title(f"Held-out accuracy, {mixture}: {result.strategy} on {_dataset(result)}", loc="left", color=INK)
    axes.set_xlabel("round of the entity (first and last: all held-out samples; others: a fixed subset)")
    axes.set_ylabel("held-out accuracy")
    last = max(len(entity.accuracies) for entity in result.entities)
    margin = 0.02 * max(last - 1, 5)
    axes.set_xlim(1 - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    low, high = axes.get_ylim()
    if high - low < 0.05:  # do not magnify noise of a flat line
        middle = (low + high) / 2
        axes.set_ylim(max(0.0, middle - 0.025), max(0.05, middle + 0.025))
    plain_frame(axes)
    axes.grid(axis="y", color=GRID)
    _name_lines(axes, labels)
    kinds = {mark.kind for entity in view.entities.values() for mark in entity.marks}
    handles = [_markers(kind, [], [], INK) for kind in MARKS if kind in kinds]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)
    return as_png(figure)


def partition_plot(labels: Sequence[str], counts: Mapping[str, Sequence[int]]) -> bytes:
    """Plot the number of private samples of each entity and class as the area of a circle; PNG.

    `labels` are the class names, `counts` maps an entity's name to its count of each class.
    """
    rows, columns = len(counts), len(labels)
    names = [f"entity {name}" for name in counts]
    classes = [label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…" for label in labels]
    cell_width = max(min(0.78, max(0.14, 9.0 / columns)), 3.0 / columns)  # all lengths in inches
    cell_height = min(0.62, max(0.24, 7.0 / rows))
    written = columns <= MAX_WRITTEN_COUNTS
    widest = max(map(len, classes)) * 0.075
    turn = 0 if widest <= cell_width else 40 if columns <= MAX_SLANTED_LABELS else 90
    largest = max(count for row in counts.values() for count in row)
    title = f"Private training samples of each class{'' if written else f'; largest circle: {largest:,}'}"

    left, above = 0.3 + 0.085 * max(map(len, names)), 0.3 + widest * {0: 0.0, 40: 0.75, 90: 0.85}[turn]
    width, height = columns * cell_width, rows * cell_height
    figure = Figure(figsize=(left + width + 1.0, height + above + 0.6), dpi=DOTS_PER_INCH)
    box = (left, 0.15, width, height)
    scale = [*figure.get_size_inches()] * 2
    axes = figure.add_axes(tuple(length / whole for length, whole in zip(box, scale, strict=True)))

    cells = [(x, y, count) for y, row in enumerate(counts.values()) for x, count in enumerate(row) if count]
    across = 72 * 0.94 * min(cell_width, cell_height)  # points across the largest circle
    areas = [across**2 * count / max(largest, 1) for _, _, count in cells]
    axes.scatter([x for x, _, _ in cells], [y for _, y, _ in cells], s=areas, color="#8FBEDD", linewidths=0)
    if written:
        for x, y, count in cells:
            axes.text(x, y, f"{count:,}", ha="center", va="center", fontsize=8 if cell_height > 0.3 else 7)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.set_yticks(range(rows), names)
    axes.set_xticks(range(columns), classes, fontsize=7 if turn == 90 else 9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for tick in axes.get_xticklabels():
        tick.set(rotation=turn, horizontalalignment="left" if turn == 40 else "center")
        tick.set_rotation_mode("anchor" if turn == 40 else "default")
    for y, row in enumerate(counts.values()):
        axes.text(columns - 0.5, y, f"  {sum(row):,}", ha="left", va="center", fontsize=9, color=INK)
    axes.text(columns - 0.5, -0.5, "  total", ha="left", va="bottom", fontsize=9, color=INK)
    for side in axes.spines.values():
        side.set_color("#CCCCCC")
    figure.suptitle(title, x=0.15 / scale[0], y=1 - 0.12 / scale[1], ha="left", va="top", fontsize=11, color=INK)
    return as_png(figure)


def _named_lines(axes: Axes, result: RunResult) -> list[tuple[float, str, str]]:
    """Draw each entity in a style of its own; return (end of the line, name, colour) of each."""
    ends = []
    for number, entity in enumerate(result.entities):
        colour = COLOURS[number % len(COLOURS)]
        rounds = range(1, len(entity.accuracies) + 1)
        axes.plot(rounds, entity.accuracies, color=colour, linestyle=DASHES[number % len(DASHES)], linewidth=1.8)
        axes.plot(rounds, entity.accuracies, color=colour, linestyle="none", marker=".", markersize=4)
        ends.append((entity.final_accuracy, f"entity {entity.entity}  {entity.final_accuracy:.1%}", colour))
    return ends


def _highlighted_lines(axes: Axes, result: RunResult) -> list[tuple[float, str, str]]:
    """Draw many entities pale, and highlight the best, the worst and the mean; return as `_named_lines`."""
    for entity in result.entities:
        axes.plot(range(1, len(entity.accuracies) + 1), entity.accuracies, color=PALE, linewidth=0.8)
    best = max(result.entities, key=lambda entity: entity.final_accuracy)
    lines = [
        (f"best: entity {best.entity}", best.accuracies, COLOURS[0], DASHES[1]),
        (f"mean of {len(result.entities)}", mean_by_round(result.entities), COLOURS[4], DASHES[0]),
        (f"worst: entity {result.worst.entity}", result.worst.accuracies, COLOURS[1], DASHES[2]),
    ]
    for _, accuracies, colour, dashes in lines:
        rounds = range(1, len(accuracies) + 1)
        marker = "." if len(accuracies) == 1 else None
        axes.plot(rounds, accuracies, color=colour, linestyle=dashes, linewidth=2.2, marker=marker, zorder=4)
    return [(values[-1], f"{name}  {values[-1]:.1%}", colour) for name, values, colour, _ in lines]


def _draw_marks(axes: Axes, entity: EntityResult, view: RunView, *, colour: str, scale: float) -> None:
    if entity.entity not in view.entities:
        return
    for kind in MARKS:
        rounds = [mark.round for mark in view.entities[entity.entity].marks if mark.kind == kind]
        rounds = [round for round in rounds if 1 <= round <= len(entity.accuracies)]
        axes.add_line(_markers(kind, rounds, [entity.accuracies[round - 1] for round in rounds], colour, scale=scale))


def _markers(kind: str, x: Sequence[float], y: Sequence[float], colour: str, *, scale: float = 1.0) -> Line2D:
    marker, size, filled, meaning = MARKS[kind]
    line = Line2D(x, y, linestyle="none", marker=marker, color=colour, markerfacecolor=colour if filled else "white")
    line.set(markersize=size * scale, label=meaning, zorder=5)
    return line


def _name_lines(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write each line's name beside its end, moved apart where names would overlap."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.055  # height of one name
    ordered = sorted(labels)
    heights = spread([end for end, _, _ in ordered], step)
    overhang = max(0.0, heights[-1] - high)
    for (_, text, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            text,
            xy=(1.0, height - overhang),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def spread(positions: Sequence[float], step: float) -> list[float]:
    """Return ascending positions, moved as little as possible, with neighbours at least `step` apart."""
    groups: list[list[float]] = []  # [sum of the first positions its members prefer, members]
    for position in positions:
        groups.append([position, 1])
        while len(groups) > 1 and _start(groups[-2]) + groups[-2][1] * step > _start(groups[-1]):
            total, members = groups.pop()
            # A member of rank r prefers that the group starts r steps before its own position.
            groups[-1][0] += total - members * groups[-1][1] * step
            groups[-1][1] += members
    return [_start(group) + rank * step for group in groups for rank in range(int(group[1]))]


def _start(group: Sequence[float]) -> float:
    return group[0] / group[1]


def plain_frame(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(color=INK, labelcolor=INK)
    axes.set_axisbelow(True)


def _dataset(result: RunResult) -> str:
    return result.dataset.replace("\\", "/").rsplit("/", maxsplit=1)[-1]


def as_png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    # Without the version of matplotlib, equal plots are equal bytes.
    figure.savefig(file, format="png", facecolor="white", metadata={"Software": None})
    return file.getvalue()

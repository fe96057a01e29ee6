"""Pictures of a run as PNG: accuracy over rounds, and the partition. The same values give the same bytes."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kuber.views import EntityResult, RunResult, RunView, mean_by_round

# Okabe & Ito's colours (jfly.uni-koeln.de/color) that are dark enough on white; told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B35C8C", "#000000", "#4FA3D1", "#B8860B")
DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (1, 1)))
PALE = "#9DB4C6"
INK = "#333333"
DOTS_PER_INCH = 150
# What a round is marked with: sign, size in points, whether it is filled, meaning. A triangle fits into a ring.
MARKS = {
    "retrieve": ("o", 10.0, False, "absorbed another's model"),
    "share": ("^", 5.0, True, "shared its model"),
}
MOST_NAMED_LINES = 10  # with more entities only the best, the worst and the mean are named
LONGEST_NAME = 18  # of a class, in characters
MOST_SLANTED_NAMES = 30  # with more classes, names that do not fit stand upright
MOST_WRITTEN_COUNTS = 20  # with more classes the circles hold no numbers


def accuracy_plot(result: RunResult, view: RunView) -> bytes:
    """Held-out accuracy of every entity over its rounds, with shares and retrievals marked; PNG."""
    figure = Figure(figsize=(9.0, 5.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    named = len(result.entities) <= MOST_NAMED_LINES
    labels = _named_lines(axes, result) if named else _crowd(axes, result)
    for number, entity in enumerate(result.entities):
        colour = COLOURS[number % len(COLOURS)] if named else PALE
        _mark(axes, entity, view, colour=colour, scale=1.0 if named else 0.6)
    axes.set_title(f"Held-out accuracy: {result.strategy} on {_dataset(result)}", loc="left", color=INK)
    axes.set_xlabel("round of the entity (between the first and the last: on a part of the held-out samples)")
    axes.set_ylabel("held-out accuracy")
    last = max(len(entity.accuracies) for entity in result.entities)
    margin = 0.02 * max(last - 1, 5)
    axes.set_xlim(1 - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    low, high = axes.get_ylim()
    if high - low < 0.05:  # a flat line is not a mountain range
        middle = (low + high) / 2
        axes.set_ylim(max(0.0, middle - 0.025), max(0.05, middle + 0.025))
    plain_frame(axes)
    axes.grid(axis="y", color="#E4E4E4")
    _name_lines(axes, labels)
    _explain_marks(figure, view)
    return as_png(figure)


def partition_plot(labels: Sequence[str], counts: Mapping[str, Sequence[int]]) -> bytes:
    """How many private samples of each class every entity has: circles whose area is the count; PNG.

    `labels` are the class names, `counts` maps an entity's name to its count of every class.
    """
    rows, columns = len(counts), len(labels)
    names = [f"entity {name}" for name in counts]
    classes = [_short(label) for label in labels]
    cell_width = max(min(0.78, max(0.14, 9.0 / columns)), 3.0 / columns)  # all lengths in inches
    cell_height = min(0.62, max(0.24, 7.0 / rows))
    written = columns <= MOST_WRITTEN_COUNTS
    widest = max(map(len, classes)) * 0.075
    turn = 0 if widest <= cell_width else 40 if columns <= MOST_SLANTED_NAMES else 90
    largest = max(count for row in counts.values() for count in row)
    title = f"Private training samples of each class{'' if written else f'; the largest circle is {largest:,}'}"

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
    axes.text(columns - 0.5, -0.5, "  in all", ha="left", va="bottom", fontsize=9, color=INK)
    for side in axes.spines.values():
        side.set_color("#CCCCCC")
    figure.suptitle(title, x=0.15 / scale[0], y=1 - 0.12 / scale[1], ha="left", va="top", fontsize=11, color=INK)
    return as_png(figure)


def _named_lines(axes: Axes, result: RunResult) -> list[tuple[float, str, str]]:
    """One line of its own look for each entity; returns (where it ends, name, colour) of each."""
    ends = []
    for number, entity in enumerate(result.entities):
        colour = COLOURS[number % len(COLOURS)]
        rounds = range(1, len(entity.accuracies) + 1)
        axes.plot(rounds, entity.accuracies, color=colour, linestyle=DASHES[number % len(DASHES)], linewidth=1.8)
        axes.plot(rounds, entity.accuracies, color=colour, linestyle="none", marker=".", markersize=4)
        ends.append((entity.final_accuracy, f"entity {entity.entity}  {entity.final_accuracy:.1%}", colour))
    return ends


def _crowd(axes: Axes, result: RunResult) -> list[tuple[float, str, str]]:
    """Many entities: all pale, with the best, the worst and the mean drawn out."""
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


def _mark(axes: Axes, entity: EntityResult, view: RunView, *, colour: str, scale: float) -> None:
    if entity.entity not in view.entities:
        return
    for kind in MARKS:
        rounds = [mark.round for mark in view.entities[entity.entity].marks if mark.kind == kind]
        rounds = [round for round in rounds if 1 <= round <= len(entity.accuracies)]
        axes.add_line(_signs(kind, rounds, [entity.accuracies[round - 1] for round in rounds], colour, scale=scale))


def _explain_marks(figure: Figure, view: RunView) -> None:
    kinds = {mark.kind for entity in view.entities.values() for mark in entity.marks}
    handles = [_signs(kind, [], [], INK) for kind in MARKS if kind in kinds]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)


def _signs(kind: str, x: Sequence[float], y: Sequence[float], colour: str, *, scale: float = 1.0) -> Line2D:
    sign, size, filled, meaning = MARKS[kind]
    look = Line2D(x, y, linestyle="none", marker=sign, color=colour, markerfacecolor=colour if filled else "white")
    look.set(markersize=size * scale, label=meaning, zorder=5)
    return look


def _name_lines(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write each line's name beside its end, moved apart where they would overlap."""
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
    """Ascending positions moved as little as a sweep can so that neighbours are at least `step` apart."""
    groups: list[list[float]] = []  # [sum of wished-for first positions, members]
    for position in positions:
        groups.append([position, 1])
        while len(groups) > 1 and _start(groups[-2]) + groups[-2][1] * step > _start(groups[-1]):
            total, members = groups.pop()
            # Seen from the group's first member, each further one wishes to start its rank lower.
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


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_NAME else f"{label[: LONGEST_NAME - 1]}…"


def as_png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    # No version of matplotlib in the file: the same picture is the same bytes.
    figure.savefig(file, format="png", facecolor="white", metadata={"Software": None})
    return file.getvalue()

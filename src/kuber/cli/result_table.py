"""The result of a run, as a table or as plain lines."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kuber.views.deployed_models import deployed_sentence
from kuber.views.formatting import duration, percent, points, printable, size
from kuber.views.groups import groups_of
from kuber.views.result import RunResult


def result_table(result: RunResult) -> Table:
    """Return the result as a table for a terminal of 80 columns."""
    title = f"Held-out accuracy after {result.rounds} round{'' if result.rounds == 1 else 's'}"
    caption = (
        "General: on the mixture of all. Own: on the entity's own classes.\n"
        f"Gain: general, points since its first round. Run time: {duration(result.wall_seconds)}."
    )
    sentence = deployed_sentence(result.deployed)
    caption = caption if sentence is None else f"{caption}\n{sentence}"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    _compact(table)
    table.add_column("entity", no_wrap=True)
    for column in _COLUMNS[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    *entities, mean, worst = _rows(result)
    for number, row in enumerate(entities, start=1):
        table.add_row(*row, end_section=number == len(entities))
    table.add_row(*mean, style="bold")
    table.add_row(*worst)
    return table


def groups_table(result: RunResult) -> Table | None:
    """Return a table of the groups of a world, or None without groups."""
    rows = _group_rows(result)
    if not rows:
        return None
    table = Table(title="By group", title_justify="left", title_style="bold")
    _compact(table)
    table.add_column(_GROUP_COLUMNS[0], overflow="fold")
    for column in _GROUP_COLUMNS[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


_COLUMNS = ("entity", "general", "gain", "own", "published", "absorbed", "sent", "received")
_GROUP_COLUMNS = ("group", "entities", "done", "rounds", "general", "worst", "own", "last end")


def _compact(table: Table) -> None:
    """Leave out the frame, so that the columns fit."""
    table.box, table.show_edge, table.pad_edge, table.padding = SIMPLE_HEAD, False, False, (0, 1, 0, 0)


def summary_lines(result: RunResult) -> list[str]:
    """Return the same tables as aligned plain lines."""
    groups, sentence = _group_rows(result), deployed_sentence(result.deployed)
    lines = aligned([_COLUMNS, *_rows(result)]) + ([] if sentence is None else [sentence])
    return lines + (aligned([_GROUP_COLUMNS, *groups]) if groups else [])


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the rows as lines: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _group_rows(result: RunResult) -> list[tuple[str, ...]]:
    return [
        (
            printable(group.name),
            str(group.entities),
            str(group.done),
            f"{group.rounds:.1f}",
            percent(group.accuracy),
            percent(group.worst),
            _known(group.own),
            f"{group.end:,.1f} s",
        )
        for group in groups_of(result.entities, rounds=result.rounds)
    ]


def _rows(result: RunResult) -> list[tuple[str, ...]]:
    """Return the cells of the result: each entity, the mean, the worst."""
    rows: list[tuple[str, ...]] = [
        (
            printable(entity.entity),
            percent(entity.final_accuracy),
            points(entity.gain),
            _known(entity.own_accuracy),
            str(entity.published),
            str(entity.absorbed),
            size(entity.bytes_up),
            size(entity.bytes_down),
        )
        for entity in result.entities
    ]
    gain = points(result.mean_accuracy - result.start_accuracy)
    rows.append(("mean", percent(result.mean_accuracy), gain, _known(result.own_accuracy), "", "", "", ""))
    worst_own = _known(result.worst_own_accuracy)
    rows.append(("worst", percent(result.worst_accuracy), "", worst_own, "", "", "", ""))
    return rows


def _known(accuracy: float | None) -> str:
    return "-" if accuracy is None else percent(accuracy)

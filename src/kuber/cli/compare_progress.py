"""A comparison on the terminal: its progress, and its tables."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import Self

from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kuber.cli.console import Console
from kuber.cli.result_table import aligned
from kuber.experiment.comparison.compare import ComparisonTask
from kuber.views.comparison import ComparisonResult, ResultRow, Section
from kuber.views.formatting import percent


def progress(console: Console) -> "ComparisonPrinter":
    """Return a bar for a terminal, plain lines for anything else."""
    return LiveBar(console) if console.is_terminal and not console.is_dumb_terminal else ComparisonPrinter(console)


class ComparisonPrinter(AbstractContextManager["ComparisonPrinter"]):
    """Prints a line for each finished method and seed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = Lock()  # tasks report from threads of their own
        self._done = self._total = 0

    def __exit__(self, *_: object) -> None: ...

    def echo(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def on_tasks(self, tasks: Sequence[ComparisonTask], entities: int) -> None:
        self._total += len(tasks)

    def on_round(self, task: ComparisonTask) -> None: ...

    def on_row(self, task: ComparisonTask, row: ResultRow) -> None:
        with self._lock:
            self._done += 1
            own = "" if row.own_accuracy is None else f", own {percent(row.own_accuracy)}"
            self.echo(
                f"{self._done}/{self._total}  {task.label}, seed {task.seed}: general {percent(row.mean_accuracy)}, "
                f"worst {percent(row.worst_accuracy)}{own}"
            )


class LiveBar(ComparisonPrinter):
    """Prints the same lines above a progress bar of all rounds of all entities."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Progress(
            TextColumn("comparing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._all = self._bar.add_task("rounds", total=None)
        self._reported: dict[ComparisonTask, int] = {}  # rounds
        self._entities = 0
        self._rounds = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_tasks(self, tasks: Sequence[ComparisonTask], entities: int) -> None:
        super().on_tasks(tasks, entities)
        self._entities = entities
        self._rounds += sum(task.rounds for task in tasks) * entities
        self._bar.update(self._all, total=self._rounds)

    def on_round(self, task: ComparisonTask) -> None:
        with self._lock:
            self._reported[task] = self._reported.get(task, 0) + 1
        self._bar.advance(self._all)

    def on_row(self, task: ComparisonTask, row: ResultRow) -> None:
        super().on_row(task, row)
        # A task that an earlier session finished reports no rounds.
        self._bar.advance(self._all, task.rounds * self._entities - self._reported.get(task, 0))


def comparison_lines(done: ComparisonResult) -> list[str]:
    """Return the tables as aligned plain lines."""
    lines: list[str] = []
    for section in done.sections:
        lines += [section.title, *aligned([section.header, *section.rows]), ""]
    return lines


def section_table(section: Section) -> Group:
    """Return a title, which may be wider than its table, and a table for a terminal of 80 columns."""
    table = Table(header_style="dim")
    table.box, table.padding, table.pad_edge = None, (0, 2, 0, 0), False
    table.add_column(section.header[0], no_wrap=True)
    for column in section.header[1:]:
        table.add_column(column, justify="right")
    for cells in section.rows:
        table.add_row(*cells)
    return Group(Text(section.title, style="bold"), table)

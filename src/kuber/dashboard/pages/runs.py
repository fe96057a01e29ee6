"""Runs and comparisons of a folder, side by side."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.charts import rounds_chart
from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, document, link, milliseconds, share
from kuber.dashboard.elements.text import anchor, fact, facts, section, text_element
from kuber.dashboard.session import TabSession
from kuber.errors import KUberError
from kuber.views import (
    ComparisonResult,
    RunResult,
    StoredRun,
    curves,
    diff_runs,
    duration,
    percent,
    points,
    read_runs,
    size,
)

REPORT = "report.html"
MOST = 6  # runs side by side
LOOK_SECONDS = 3.0  # between two looks into the folder
TONES = {"running": "good", "completed": "good", "interrupted": "soft", "failed": "bad", "unreadable": "bad"}
_OF_THE_MACHINE = {"cache_dir", "data_dir", "runs_dir", "host", "registry_port", "vault_port"}

COLUMNS = (
    Column(name="name", label="Run"),
    Column(name="kind", label="Kind", wide=True),
    Column(name="started", label="Started", kind="time", wide=True),
    Column(name="status", label="Status", kind="state"),
    Column(name="strategy", label="Strategy", wide=True),
    Column(name="dataset", label="Data set", wide=True),
    Column(name="accuracy", label="Mean accuracy", kind="share"),
    Column(name="report", label="Report", wide=True),
    Column(name="beside", label="Side by side"),
)


class Runs:
    """The page as one reader sees it."""

    def __init__(self, visit: TabSession, chosen: Sequence[str]) -> None:
        self.visit = visit
        wanted = list(dict.fromkeys(chosen))
        self.chosen = wanted[:MOST]
        self._refused = len(wanted) > MOST
        self._shown: list[StoredRun] = []

    def build(self) -> None:
        """The empty table, and a place for what is chosen."""
        text_element("h1", "Runs")
        folder = self.visit.site.runs
        with Element("p").classes("k-soft"):
            text_element("span", "In the folder ")
            text_element("code", str(folder.resolve()))
            text_element("span", ". Accuracies are on the held-out test set, after the last round.")
        self._fault = text_element("p", "").classes("k-fault").props("role=alert")
        self._table = DataTable("Runs", COLUMNS, nothing="No run yet. `kuber run` makes one.")
        self._beside = Element("div")

    async def look(self) -> None:
        """Read the folder, and show what has changed in it."""
        try:
            runs = await asyncio.to_thread(read_runs, self.visit.site.runs)
        except KUberError as error:
            self._fault.set_text(error.message)
            return
        known = {run.name for run in runs}
        gone = [name for name in self.chosen if name not in known]
        told = [f"There is no run {name[:100]} in this folder." for name in gone]
        if self._refused:
            told.append(f"{MOST} runs stand side by side at most; take one away first.")
        self._fault.set_text(" ".join(told))
        self._table.show([self._row(run) for run in runs])
        by_name = {run.name: run for run in runs}
        shown = [by_name[name] for name in self.chosen if name in by_name]
        if shown != self._shown:
            self._shown = shown
            self.draw()

    def draw(self) -> None:
        """Show what is chosen, side by side."""
        self._beside.clear()
        if not self._shown:
            return
        with self._beside:
            with section("Side by side"):
                anchor("Choose none", "/runs")
                table = side_by_side(self._shown)
                columns = [
                    Column(name="what", label=""),
                    *(Column(name=run.name, label=labels(self._shown)[run.name]) for run in self._shown),
                ]
                DataTable("Runs side by side", columns).show(table)
                _common(self._shown)
            lines = {_line(self._shown, one.run, one.method): one.means for one in curves(self._shown)}
            if lines:
                with section("Held-out accuracy, mean over entities"), Element("div").classes("k-chart"):
                    told = "Mean held-out accuracy after each round."
                    ui.echart(rounds_chart(lines, self.visit.palette, told=told))
            for run in self._shown:
                if isinstance(run.outcome, ComparisonResult):
                    _comparison(run.name, run.outcome)

    def _row(self, run: StoredRun) -> TableRow:
        told = run.all_settings
        methods = str(told.get("strategy", "–")) if run.plan is None else ", ".join(run.plan.strategies)
        mean = run.outcome.mean_accuracy if isinstance(run.outcome, RunResult) else None
        among = run.name in self.chosen
        others = [name for name in self.chosen if name != run.name]
        names = others if among else [*others, run.name]
        address = f"/runs?{urlencode([('run', name) for name in names])}" if names else "/runs"
        return TableRow(
            key=run.name,
            chosen=among,
            muted=run.status in ("failed", "unreadable"),
            cells=(
                link(run.name, f"/runs?run={quote(run.name)}"),
                run.kind,
                None if run.started is None else milliseconds(run.started),
                {
                    "text": run.status if run.message is None else f"{run.status}: {run.message}",
                    "tone": TONES[run.status],
                },
                methods,
                Path(str(told["dataset"])).stem if told else "–",
                share(mean),
                document("report", f"/report/{quote(run.name)}") if os.path.isfile(run.path / REPORT) else None,
                link("take away" if among else "add", address),
            ),
        )


def labels(runs: Sequence[StoredRun]) -> dict[str, str]:
    """What each run is called beside the others: what its name ends with, where that tells them apart."""
    ends = [run.name.partition("-")[2].partition("-")[2] or run.name for run in runs]
    return {run.name: run.name if ends.count(end) > 1 else end for run, end in zip(runs, ends, strict=True)}


def side_by_side(runs: Sequence[StoredRun]) -> list[TableRow]:
    """What became of each run, then the settings in which they differ."""
    found = [TableRow(key=f"told {name}", cells=(name, *cells)) for name, cells in _figures(runs) if any(cells)]
    differing = diff_runs(runs).differing
    return found + [
        TableRow(key=f"setting {name}", cells=(f"setting {name}", *(_value(value) for value in values)))
        for name, values in differing.items()
        if name not in _OF_THE_MACHINE
    ]


def _figures(runs: Sequence[StoredRun]) -> list[tuple[str, list[str | None]]]:
    told = [_told(run) for run in runs]
    names = list(dict.fromkeys(name for figures in told for name in figures))
    return [(name, [figures.get(name) for figures in told]) for name in names]


def _told(run: StoredRun) -> dict[str, str]:
    figures: dict[str, str] = {"status": run.status}
    one = run.outcome
    if isinstance(one, RunResult):
        figures |= {
            "mean accuracy": percent(one.mean_accuracy),
            "worst entity": percent(one.worst_accuracy),
            "after the first round": percent(one.start_accuracy),
            "gain": points(one.mean_accuracy - one.start_accuracy),
            "entities": str(len(one.entities)),
            "rounds": str(one.rounds),
            "published": str(sum(entity.published for entity in one.entities)),
            "absorbed": str(sum(entity.absorbed for entity in one.entities)),
            "sent": size(sum(entity.bytes_up for entity in one.entities)),
            "received": size(sum(entity.bytes_down for entity in one.entities)),
            "samples trained": f"{one.samples_trained:,}",
        }
    if isinstance(one, ComparisonResult):
        figures["methods"] = ", ".join(one.strategies)
        figures["rounds"] = str(one.rounds)
    if run.wall_seconds is not None:
        figures["at work"] = duration(run.wall_seconds)
    return figures


def _value(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _common(runs: Sequence[StoredRun]) -> None:
    """The settings that are the same in all, folded away."""
    with Element("details"):
        text_element("summary", "Settings that they have in common" if len(runs) > 1 else "Settings")
        with facts():
            for name, value in diff_runs(runs).common.items():
                with fact(name):
                    text_element("span", _value(value) or "not given")


def _line(runs: Sequence[StoredRun], name: str, method: str) -> str:
    """What a line is called: its method; with several runs, the run too."""
    run = next(run for run in runs if run.name == name)
    if len(runs) == 1:
        return method
    called = labels(runs)[name]
    return called if isinstance(run.outcome, RunResult) else f"{called}: {method}"


def _comparison(name: str, outcome: ComparisonResult) -> None:
    """The tables of a comparison."""
    with section(f"Comparison {name}"):
        for table in outcome.sections:
            text_element("h3", table.title)
            columns = [
                Column(name=head, label=head, kind="text" if place == 0 else "number")
                for place, head in enumerate(table.header)
            ]
            DataTable(table.title, columns).show([TableRow(key=row[0], cells=row) for row in table.rows])


async def page(visit: TabSession, arguments: PageArguments) -> None:
    """The runs of the folder."""
    ui.page_title("Runs · KUber")
    runs = Runs(visit, arguments.query_parameters.getlist("run"))
    runs.build()
    await visit.drawn()
    await runs.look()
    visit.on_scheme.append(runs.draw)
    ui.timer(LOOK_SECONDS, runs.look, immediate=False)

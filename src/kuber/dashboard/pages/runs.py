"""Page of the runs and comparisons in a folder."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.charts import rounds_chart
from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, document, link, milliseconds
from kuber.dashboard.elements.text import anchor, fact, facts, section, text_element
from kuber.dashboard.session import TabSession
from kuber.errors import KUberError
from kuber.views.comparison import ComparisonResult
from kuber.views.deployed_models import deployed_phrase
from kuber.views.formatting import duration, percent, points, size
from kuber.views.result import RunResult
from kuber.views.run_diff import curves, diff_runs
from kuber.views.run_index import StoredRun, read_runs

REPORT = "report.html"
MAX_RUNS = 6  # side by side
POLL_SECONDS = 3.0  # between two reads of the folder
TONES = {"running": "good", "completed": "good", "interrupted": "soft", "failed": "bad", "unreadable": "bad"}
_MACHINE_SETTINGS = {"cache_dir", "data_dir", "runs_dir", "host", "registry_port", "vault_port"}

COLUMNS = (
    Column(name="name", label="Run"),
    Column(name="kind", label="Kind", wide=True),
    Column(name="started", label="Started", kind="time", wide=True),
    Column(name="status", label="Status", kind="state"),
    Column(name="strategy", label="Strategy", wide=True),
    Column(name="dataset", label="Data set", wide=True),
    Column(name="accuracy", label="General", kind="number"),
    Column(name="own", label="Own", kind="number"),
    Column(name="report", label="Report", wide=True),
    Column(name="beside", label="Side by side"),
)


class RunsPage:
    """The page in one tab."""

    def __init__(self, session: TabSession, chosen: Sequence[str]) -> None:
        self.session = session
        names = list(dict.fromkeys(chosen))
        self.chosen = names[:MAX_RUNS]
        self._too_many = len(names) > MAX_RUNS
        self._shown: list[StoredRun] = []

    def build(self) -> None:
        """Build the empty table, and a place for the chosen runs."""
        text_element("h1", "Runs")
        folder = self.session.context.runs
        with Element("p").classes("k-soft"):
            text_element("span", "Runs in the folder ")
            text_element("code", str(folder.resolve()))
            text_element("span", ". Mean accuracies on the held-out test set after the last round: ")
            text_element("span", "general, on the mixture of all; own, on each entity's own mixture of classes.")
        self._fault = text_element("p", "").classes("k-fault").props("role=alert")
        self._table = DataTable("Runs", COLUMNS, empty="No runs yet. Start one with `kuber run`.")
        self._comparison = Element("div")

    async def update(self) -> None:
        """Read the folder and show what has changed."""
        try:
            runs = await asyncio.to_thread(read_runs, self.session.context.runs)
        except KUberError as error:
            self._fault.set_text(error.message)
            return
        known = {run.name for run in runs}
        faults = [f"There is no run {name[:100]} in this folder." for name in self.chosen if name not in known]
        if self._too_many:
            faults.append(f"At most {MAX_RUNS} runs can be shown side by side; remove one first.")
        self._fault.set_text(" ".join(faults))
        self._table.show([self._row(run) for run in runs])
        by_name = {run.name: run for run in runs}
        shown = [by_name[name] for name in self.chosen if name in by_name]
        if shown != self._shown:
            self._shown = shown
            self.draw()

    def draw(self) -> None:
        """Show the chosen runs side by side."""
        self._comparison.clear()
        if not self._shown:
            return
        with self._comparison:
            with section("Side by side"):
                anchor("Clear selection", "/runs")
                table = side_by_side(self._shown)
                columns = [
                    Column(name="what", label=""),
                    *(Column(name=run.name, label=labels(self._shown)[run.name]) for run in self._shown),
                ]
                DataTable("Runs side by side", columns).show(table)
                _common(self._shown)
            found = {_line_name(self._shown, curve.run, curve.method): curve for curve in curves(self._shown)}
            self._draw_lines("General held-out accuracy", {name: curve.means for name, curve in found.items()})
            own = {name: curve.own for name, curve in found.items() if curve.own}
            self._draw_lines("Own held-out accuracy", own)
            for run in self._shown:
                if isinstance(run.outcome, ComparisonResult):
                    _comparison(run.name, run.outcome)

    def _draw_lines(self, what: str, lines: Mapping[str, tuple[float, ...]]) -> None:
        if lines:
            with section(f"{what}, mean over entities"), Element("div").classes("k-chart"):
                description = f"{what} after each round, mean over entities."
                ui.echart(rounds_chart(lines, self.session.palette, description=description))

    def _row(self, run: StoredRun) -> TableRow:
        settings = run.all_settings
        methods = str(settings.get("strategy", "–")) if run.plan is None else ", ".join(run.plan.strategies)
        mean = run.outcome.mean_accuracy if isinstance(run.outcome, RunResult) else None
        own = run.outcome.own_accuracy if isinstance(run.outcome, RunResult) else None
        chosen = run.name in self.chosen
        others = [name for name in self.chosen if name != run.name]
        names = others if chosen else [*others, run.name]
        address = f"/runs?{urlencode([('run', name) for name in names])}" if names else "/runs"
        return TableRow(
            key=run.name,
            chosen=chosen,
            muted=run.status in ("failed", "unreadable"),
            cells=(
                link(run.name, f"/runs?run={quote(run.name)}"),
                run.kind,
                None if run.started is None else milliseconds(run.started),
                {"text": ": ".join(filter(None, [run.status, run.message])), "tone": TONES[run.status]},
                methods,
                Path(str(settings["dataset"])).stem if settings else "–",
                None if mean is None else percent(mean),
                None if own is None else percent(own),
                document("report", f"/report/{quote(run.name)}") if os.path.isfile(run.path / REPORT) else None,
                link("remove" if chosen else "add", address),
            ),
        )


def labels(runs: Sequence[StoredRun]) -> dict[str, str]:
    """Return a short label for each run: the end of its name, if that is unique, else its name."""
    ends = [run.name.partition("-")[2].partition("-")[2] or run.name for run in runs]
    return {run.name: run.name if ends.count(end) > 1 else end for run, end in zip(runs, ends, strict=True)}


def side_by_side(runs: Sequence[StoredRun]) -> list[TableRow]:
    """Return the rows: results of the runs, then the settings in which they differ."""
    figures = [_figures_of(run) for run in runs]
    results = [
        TableRow(key=f"result {name}", cells=(name, *(each.get(name) for each in figures)))
        for name in dict.fromkeys(name for each in figures for name in each)
    ]
    differing = diff_runs(runs).differing
    return results + [
        TableRow(key=f"setting {name}", cells=(f"setting {name}", *(_value(value) for value in values)))
        for name, values in differing.items()
        if name not in _MACHINE_SETTINGS
    ]


def _figures_of(run: StoredRun) -> dict[str, str]:
    figures: dict[str, str] = {"status": run.status}
    outcome = run.outcome
    if isinstance(outcome, RunResult):
        figures |= {
            "general": percent(outcome.mean_accuracy),
            "general, worst entity": percent(outcome.worst_accuracy),
            "own": _known(outcome.own_accuracy),
            "own, worst entity": _known(outcome.worst_own_accuracy),
            "general after round 1": percent(outcome.start_accuracy),
            "general gain": points(outcome.mean_accuracy - outcome.start_accuracy),
            "deployed models": deployed_phrase(outcome.deployed) or "–",
            "entities": str(len(outcome.entities)),
            "rounds": str(outcome.rounds),
            "published": str(sum(entity.published for entity in outcome.entities)),
            "absorbed": str(sum(entity.absorbed for entity in outcome.entities)),
            "sent": size(sum(entity.bytes_up for entity in outcome.entities)),
            "received": size(sum(entity.bytes_down for entity in outcome.entities)),
            "samples trained": f"{outcome.samples_trained:,}",
        }
    if isinstance(outcome, ComparisonResult):
        figures["methods"] = ", ".join(outcome.strategies)
        figures["rounds"] = str(outcome.rounds)
    if run.wall_seconds is not None:
        figures["run time"] = duration(run.wall_seconds)
    return figures


def _known(accuracy: float | None) -> str:
    return "–" if accuracy is None else percent(accuracy)


def _value(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _common(runs: Sequence[StoredRun]) -> None:
    """Add the settings that all runs share, collapsed."""
    with Element("details"):
        text_element("summary", "Common settings" if len(runs) > 1 else "Settings")
        with facts():
            for name, value in diff_runs(runs).common.items():
                with fact(name):
                    text_element("span", _value(value) or "not set")


def _line_name(runs: Sequence[StoredRun], name: str, method: str) -> str:
    """Return the name of a line: its method, and its run if there are several."""
    run = next(run for run in runs if run.name == name)
    if len(runs) == 1:
        return method
    label = labels(runs)[name]
    return label if isinstance(run.outcome, RunResult) else f"{label}: {method}"


def _comparison(name: str, outcome: ComparisonResult) -> None:
    """Add the tables of a comparison."""
    with section(f"Comparison {name}"):
        for table in outcome.sections:
            text_element("h3", table.title)
            columns = [
                Column(name=head, label=head, kind="text" if place == 0 else "number")
                for place, head in enumerate(table.header)
            ]
            DataTable(table.title, columns).show([TableRow(key=row[0], cells=row) for row in table.rows])


async def page(session: TabSession, arguments: PageArguments) -> None:
    """Build the page and keep it up to date."""
    ui.page_title("Runs · KUber")
    runs = RunsPage(session, arguments.query_parameters.getlist("run"))
    runs.build()
    await session.ready()
    await runs.update()
    session.on_scheme.append(runs.draw)
    ui.timer(POLL_SECONDS, runs.update, immediate=False)

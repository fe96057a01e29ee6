"""Page of all records, to search, filter and sort."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.elements.controls import Pager, SearchField, SelectField
from kuber.dashboard.elements.data_table import DataTable
from kuber.dashboard.elements.record_table import record_columns, record_row
from kuber.dashboard.elements.text import text_element
from kuber.dashboard.session import TabSession, parse_number, update_address
from kuber.views.evaluation_set import comparison_note
from kuber.views.formatting import natural
from kuber.views.hub import HubView
from kuber.views.record_table import COLUMNS, STATES, RecordFilter, filter_records

STATE_OPTIONS = {
    "discoverable": "discoverable",
    "pending": "not verified",
    "verified": "verified",
    "unverifiable": "unverifiable",
    "quarantined": "quarantined",
    "withdrawn": "withdrawn",
    "all": "all",
}


class KnowledgePage:
    """The page in one tab."""

    def __init__(self, session: TabSession, arguments: PageArguments) -> None:
        self.session = session
        self._arguments = arguments
        self.filter = filter_from(arguments.query_parameters)

    def build(self) -> None:
        """Build the controls and the empty table."""
        text_element("h1", "Knowledge")
        with Element("div").classes("k-tools"):
            SearchField(
                "Search",
                self.filter.text,
                lambda text: self._change(text=text, page=1),
                hint="id, entity, task, architecture",
            )
            self._tasks = SelectField(
                "Task", {"": "all"}, self.filter.task or "", lambda task: self._change(task=task or None, page=1)
            )
            self._publishers = SelectField(
                "Entity",
                {"": "all"},
                self.filter.publisher or "",
                lambda id: self._change(publisher=id or None, page=1),
            )
            SelectField("Show", STATE_OPTIONS, self.filter.state, lambda state: self._change(state=state, page=1))
        columns = record_columns(sortable=True)
        self._table = DataTable("Knowledge", columns, empty="No record matches.", on_sort=self._sort_by)
        self._note = text_element("p", "").classes("k-empty")
        self._hint = text_element("p", "No knowledge has been published yet.").classes("k-empty")
        self._pager = Pager(lambda page: self._change(page=page))

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the current records."""
        tasks = sorted({record.task for record in view.records.values()}, key=natural)
        self._tasks.set_options({"": "all"} | {task: task for task in tasks})
        self._publishers.set_options({"": "all"} | view.names)
        found = filter_records(view.records.values(), self.filter)
        self._hint.set_visibility(not view.records and self.session.context.feed.caught_up)
        self._table.set_visibility(bool(view.records))
        self._table.show(
            [record_row(record) for record in found.rows], sort=self.filter.sort, descending=self.filter.descending
        )
        ranked = self.filter.sort == "claimed"
        note = comparison_note(f"{record.task} {record.test_set}" for record in found.rows) if ranked else ""
        self._note.set_text(note)
        self._note.set_visibility(bool(note))
        self._pager.show(found, count=f"{found.total:,} of {len(view.records):,} records")

    def _sort_by(self, column: str) -> None:
        descending = (
            not self.filter.descending
            if column == self.filter.sort
            else column not in ("name", "task", "architecture")
        )
        self._change(sort=column, descending=descending)

    def _change(self, **changes: Any) -> None:
        self.filter = replace(self.filter, **changes)
        update_address(self._arguments, query_of(self.filter))
        with self.session.context.feed.reading() as view:
            self.draw(view, datetime.now(UTC))


def filter_from(query: Mapping[str, str]) -> RecordFilter:
    """Return the filter of an address; invalid parameters are ignored."""
    default = RecordFilter()
    return RecordFilter(
        text=query.get("q", ""),
        task=query.get("task") or None,
        publisher=query.get("entity") or None,
        state=next((state for state in STATES if state == query.get("show")), default.state),
        sort=next((column for column in COLUMNS if column == query.get("sort")), default.sort),
        descending=query.get("up") != "1",
        page=parse_number(query.get("page", ""), 1),
    )


def query_of(filter: RecordFilter) -> dict[str, str]:
    """Return the query parameters of a filter."""
    default = RecordFilter()
    return {
        "q": filter.text,
        "task": filter.task or "",
        "entity": filter.publisher or "",
        "show": filter.state if filter.state != default.state else "",
        "sort": filter.sort if filter.sort != default.sort else "",
        "up": "" if filter.descending else "1",
        "page": str(filter.page) if filter.page > 1 else "",
    }


def page(session: TabSession, arguments: PageArguments) -> None:
    """Build the page and keep it up to date."""
    ui.page_title("Knowledge · KUber")
    records = KnowledgePage(session, arguments)
    records.build()
    session.follow(records.draw)

"""Every record of the hub, to search, sort and filter."""

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
from kuber.dashboard.session import TabSession, number, remember
from kuber.views import HubView, natural
from kuber.views.record_table import COLUMNS, STATES, RecordFilter, filter_records

_WHICH = {
    "discoverable": "discoverable",
    "pending": "not looked at",
    "verified": "verified",
    "unverifiable": "unverifiable",
    "quarantined": "quarantined",
    "withdrawn": "withdrawn",
    "all": "all",
}


class KnowledgePage:
    """The page as one reader sees it."""

    def __init__(self, visit: TabSession, arguments: PageArguments) -> None:
        self.visit = visit
        self._arguments = arguments
        self.wanted = wanted(arguments.query_parameters)

    def build(self) -> None:
        """The controls and the empty table."""
        text_element("h1", "Knowledge")
        with Element("div").classes("k-tools"):
            SearchField(
                "Search",
                self.wanted.text,
                lambda text: self._want(text=text, page=1),
                hint="id, entity, task, architecture",
            )
            self._tasks = SelectField(
                "Task", {"": "all"}, self.wanted.task or "", lambda task: self._want(task=task or None, page=1)
            )
            self._publishers = SelectField(
                "Entity",
                {"": "all"},
                self.wanted.publisher or "",
                lambda id: self._want(publisher=id or None, page=1),
            )
            SelectField("Show", _WHICH, self.wanted.state, lambda state: self._want(state=state, page=1))
        self._table = DataTable(
            "Knowledge",
            record_columns(sortable=True),
            nothing="No record answers this search.",
            on_sort=self._sort_by,
        )
        self._hint = text_element("p", "Nothing has been published yet.").classes("k-empty")
        self._pager = Pager(lambda page: self._want(page=page))

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the shelf as it is now."""
        tasks = sorted({one.task for one in view.records.values()}, key=natural)
        self._tasks.offer({"": "all"} | {task: task for task in tasks})
        self._publishers.offer({"": "all"} | view.names)
        found = filter_records(view.records.values(), self.wanted)
        self._hint.set_visibility(not view.records and self.visit.site.feed.caught_up)
        self._table.set_visibility(bool(view.records))
        self._table.show(
            [record_row(one) for one in found.rows], sort=self.wanted.sort, descending=self.wanted.descending
        )
        self._pager.show(found, told=f"{found.total:,} of {len(view.records):,} records")

    def _sort_by(self, column: str) -> None:
        down = (
            not self.wanted.descending
            if column == self.wanted.sort
            else column not in ("name", "task", "architecture")
        )
        self._want(sort=column, descending=down)

    def _want(self, **changes: Any) -> None:
        self.wanted = replace(self.wanted, **changes)
        remember(self._arguments, query(self.wanted))
        with self.visit.site.feed.reading() as view:
            self.draw(view, datetime.now(UTC))


def wanted(asked: Mapping[str, str]) -> RecordFilter:
    """What an address asks for; what makes no sense is passed over."""
    usual = RecordFilter()
    return RecordFilter(
        text=asked.get("q", ""),
        task=asked.get("task") or None,
        publisher=asked.get("entity") or None,
        state=next((state for state in STATES if state == asked.get("show")), usual.state),
        sort=next((one for one in COLUMNS if one == asked.get("sort")), usual.sort),
        descending=asked.get("up") != "1",
        page=number(asked.get("page", ""), 1),
    )


def query(one: RecordFilter) -> dict[str, str]:
    """The address that asks for this."""
    usual = RecordFilter()
    return {
        "q": one.text,
        "task": one.task or "",
        "entity": one.publisher or "",
        "show": one.state if one.state != usual.state else "",
        "sort": one.sort if one.sort != usual.sort else "",
        "up": "" if one.descending else "1",
        "page": str(one.page) if one.page > 1 else "",
    }


def page(visit: TabSession, arguments: PageArguments) -> None:
    """The table of knowledge."""
    ui.page_title("Knowledge · KUber")
    records = KnowledgePage(visit, arguments)
    records.build()
    visit.follow(records.draw)

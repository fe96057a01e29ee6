"""Controls of the browser's own, with their labels: to search, to choose, to turn pages, to act."""

from collections.abc import Callable, Mapping
from typing import Any

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from kuber.dashboard.elements.text import text_element
from kuber.views.pagination import RowPage


class SelectField(Element, component="choice.js"):
    """One of several: value -> text."""

    def __init__(self, label: str, options: Mapping[str, str], value: str, on_choose: Callable[[str], None]) -> None:
        super().__init__()
        self._props["label"] = label
        self._props["value"] = value
        self.offer(options)

        def choose(chosen: str) -> None:
            self._props["value"] = chosen
            on_choose(chosen)

        self.on("choose", lambda event: choose(str(event.args)))

    def offer(self, options: Mapping[str, str]) -> None:
        """Offer these; nothing is sent when they are offered already."""
        told = [{"value": value, "text": text} for value, text in options.items()]
        if told != self._props.get("options"):
            self._props["options"] = told
            self.update()


class SearchField(Element, component="search.js"):
    """A field for words to search."""

    def __init__(self, label: str, start: str, on_search: Callable[[str], None], *, hint: str = "") -> None:
        super().__init__()
        self._props["label"] = label
        self._props["hint"] = hint
        self._props["start"] = start
        self.on("search", lambda event: on_search(str(event.args)))


class Pager(Element):
    """Where the reader is among the pages of a table, and the way to the others."""

    def __init__(self, on_turn: Callable[[int], None]) -> None:
        super().__init__("nav")
        self.classes("k-pager").props('aria-label="Pages of the table"')
        with self:
            self._back = button("Previous", lambda: on_turn(self._page - 1))
            self._told = text_element("span", "")
            self._forward = button("Next", lambda: on_turn(self._page + 1))
        self._page = 1

    def show(self, shown: RowPage[Any], *, told: str) -> None:
        """Show where this page is among the others; `told` says what is counted."""
        self._page = shown.page
        several = shown.pages > 1
        self._told.set_text(f"{told}, page {shown.page} of {shown.pages}" if several else told)
        for one, dead in ((self._back, shown.page <= 1), (self._forward, shown.page >= shown.pages)):
            one.set_visibility(several)
            one.props["disabled"] = dead


def button(text: str, on_click: Callable[[], object], *, kind: str = "") -> TextElement:
    """A button of the browser's own; `kind` is a class of style.css."""
    made = text_element("button", text).classes(f"k-button {kind}").props("type=button")
    made.on("click", lambda: on_click())
    return made

"""Native controls with labels: select, search, pager and button."""

from collections.abc import Callable, Mapping
from typing import Any

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from kuber.dashboard.elements.text import text_element
from kuber.views.pagination import RowPage


class SelectField(Element, component="choice.js"):
    """Native select; `options` maps values to texts."""

    def __init__(self, label: str, options: Mapping[str, str], value: str, on_choose: Callable[[str], None]) -> None:
        super().__init__()
        self._props["label"] = label
        self._props["value"] = value
        self.set_options(options)

        def choose(chosen: str) -> None:
            self._props["value"] = chosen
            on_choose(chosen)

        self.on("choose", lambda event: choose(str(event.args)))

    def set_options(self, options: Mapping[str, str]) -> None:
        """Offer these options; sends nothing if they have not changed."""
        items = [{"value": value, "text": text} for value, text in options.items()]
        if items != self._props.get("options"):
            self._props["options"] = items
            self.update()


class SearchField(Element, component="search.js"):
    """Native search field; calls `on_search` when the user pauses."""

    def __init__(self, label: str, start: str, on_search: Callable[[str], None], *, hint: str = "") -> None:
        super().__init__()
        self._props["label"] = label
        self._props["hint"] = hint
        self._props["start"] = start
        self.on("search", lambda event: on_search(str(event.args)))


class Pager(Element):
    """Position in a paginated table, with buttons to the neighbouring pages."""

    def __init__(self, on_page: Callable[[int], None]) -> None:
        super().__init__("nav")
        self.classes("k-pager").props('aria-label="Pages of the table"')
        with self:
            self._back = button("Previous", lambda: on_page(self._page - 1))
            self._position = text_element("span", "")
            self._forward = button("Next", lambda: on_page(self._page + 1))
        self._page = 1

    def show(self, page: RowPage[Any], *, count: str) -> None:
        """Show the position of this page. `count` is a phrase for the number of rows, such as "12 records"."""
        self._page = page.page
        several = page.pages > 1
        self._position.set_text(f"{count}, page {page.page} of {page.pages}" if several else count)
        for control, disabled in ((self._back, page.page <= 1), (self._forward, page.page >= page.pages)):
            control.set_visibility(several)
            control.props["disabled"] = disabled


def button(text: str, on_click: Callable[[], object], *, kind: str = "") -> TextElement:
    """Add a native button; `kind` is a class of style.css."""
    element = text_element("button", text).classes(f"k-button {kind}").props("type=button")
    element.on("click", lambda: on_click())
    return element

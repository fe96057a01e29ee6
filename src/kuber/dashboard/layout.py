"""Layout around every page: navigation, state of the hub, colour scheme, and the operator's sign-in."""

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.sub_pages import SubPages

from kuber.dashboard.context import PageContext
from kuber.dashboard.elements.confirm_dialog import ConfirmDialog
from kuber.dashboard.elements.controls import button
from kuber.dashboard.elements.text import Timestamp, anchor, text_element
from kuber.dashboard.pages import entity, knowledge, lineage, overview, record, runs
from kuber.dashboard.session import POLL_SECONDS, TabSession
from kuber.errors import KUberError

log = logging.getLogger(__name__)

NAVIGATION = {"/": "Overview", "/knowledge": "Knowledge", "/lineage": "Lineage", "/runs": "Runs"}
ROUTES: dict[str, Callable[..., Any]] = {
    "/": overview.page,
    "/knowledge": knowledge.page,
    "/knowledge/{id}": record.page,
    "/lineage": lineage.page,
    "/entity/{id}": entity.page,
    "/runs": runs.page,
}
OPERATOR_NOTE = (
    "The operator's token lets you withdraw and quarantine records. This tab keeps it until you close or reload it. "
    "The registry stores it in the file admin-token of its data folder."
)
# Reports each change between light and dark.
SCHEME = """
<script>
document.addEventListener("DOMContentLoaded", () => {
  let dark = null;
  const report = () => {
    const now = document.body.classList.contains("body--dark");
    if (dark !== null && now !== dark) emitEvent("scheme", now);
    dark = now;
  };
  new MutationObserver(report).observe(document.body, { attributes: true, attributeFilter: ["class"] });
});
</script>
"""


class PageRouter(SubPages):
    """Shows the page of an address, or one sentence if there is none or it fails."""

    def _render_404(self) -> None:
        ui.page_title("Page not found · KUber")
        text_element("h1", "Page not found")
        text_element("p", "There is no page at this address. Start at the overview.")
        anchor("Overview", "/")

    def _render_error(self, error: Exception) -> None:
        log.error("a page failed", exc_info=error)
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """Show the error in place of the page."""
        self.clear()
        with self:
            text_element("h1", "This page cannot be shown")
            message = "The dashboard failed; its log has the details."
            text_element("p", error.message if isinstance(error, KUberError) else message)


def frame(context: PageContext) -> None:
    """Build the layout, and the page at the current address."""
    session = TabSession(context)
    ui.add_head_html(SCHEME)
    ui.on("scheme", lambda event: session.set_scheme(bool(event.args)))
    dark = ui.dark_mode(None)
    layout, content = ui.context.client.layout, ui.context.client.content
    content.props("tabindex=-1")
    with layout, Element("div").classes("k-top") as top:
        # Handled by a script, as following the address would rebuild the page.
        skip = anchor("Skip to main content", f"#{content.html_id}").classes("k-skip")
        skip.on("click", js_handler=f"(event) => {{ event.preventDefault(); getHtmlElement({content.id}).focus(); }}")
        with Element("header").classes("k-header"):
            anchor("KUber", "/").classes("k-name")
            with Element("nav").props('aria-label="Pages"'):
                links = {path: anchor(name, path) for path, name in NAVIGATION.items()}
            with Element("div").classes("k-tools"):
                _operator(session)
                _scheme(dark)
        _hub(context)
    top.move(target_index=0)
    pages = PageRouter(ROUTES, data={"session": session})
    ui.on_exception(pages.fail)  # errors after a page was built
    router = ui.context.client.sub_pages_router

    def on_path(path: str) -> None:
        session.drop_callbacks()
        _mark_current(links, path)
        pages.refresh()  # needed where update_address has changed the address since

    router.on_path_changed(on_path)
    _mark_current(links, router.current_path)


def _mark_current(links: dict[str, Any], path: str) -> None:
    """Mark the navigation link of the current page."""
    current = urlsplit(path).path
    for target, link in links.items():
        if current == target or (target != "/" and current.startswith(f"{target}/")):
            link.props["aria-current"] = "page"
        else:
            link.props.pop("aria-current", None)


def _hub(context: PageContext) -> None:
    """Show a line while the hub is unreachable or its history is being read."""
    with Element("div").classes("k-hub").props('role="status"') as line:
        pass
    shown: object = None

    def poll() -> None:
        nonlocal shown
        feed = context.feed
        offline = feed.offline
        missed = feed.view.missed_until
        state: object = offline or ((missed,) if feed.caught_up else feed.view.last)
        if state == shown:
            return
        shown = state
        line.clear()
        line.classes(replace="k-hub" if offline is None else "k-hub offline")
        with line:
            if offline is not None:
                problem = "The hub rejects the dashboard." if offline.refused else "The hub is unreachable."
                text_element("strong", problem)
                text_element("span", f"{offline.reason} This is its last known state. Retrying every second since")
                Timestamp(offline.since)
            elif not feed.caught_up:
                text_element("span", f"Reading the hub's history: {feed.view.last:,} events.")
            elif missed is not None:
                text_element("span", "The hub has removed reports and deliveries up to")
                Timestamp(missed)

    poll()
    ui.timer(POLL_SECONDS, poll, immediate=False)


def _scheme(dark: Any) -> None:
    """Add the button that switches between the system's colours, light and dark."""
    names = {None: "Auto", False: "Light", True: "Dark"}
    following = {None: False, False: True, True: None}

    def change() -> None:
        dark.value = following[dark.value]
        show()

    def show() -> None:
        switch.set_text(names[dark.value])
        switch.props["aria-label"] = f"Colours: {names[dark.value]}"

    switch = button(names[None], change, kind="quiet")
    show()


def _operator(session: TabSession) -> None:
    """Add the button that asks for the operator's token, which withdrawing and quarantining need."""

    def check(token: str) -> None:
        with session.context.reader.operator(token) as operator:
            operator.check_token()

    def act_with(token: str | None) -> None:
        switch.set_text("Read-only" if token is None else "Stop acting as operator")
        session.authorize(token)

    title = "Act as operator"
    dialog = ConfirmDialog(
        title, OPERATOR_NOTE, label=title, action=check, on_done=act_with, field="Operator's token", type="password"
    )

    def press() -> None:
        if session.token is None:
            dialog.open()
        else:
            act_with(None)

    switch = button("Read-only", press, kind="quiet").props('aria-haspopup="dialog"')

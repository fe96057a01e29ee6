"""What stands around every page: name, ways, the state of the hub, and who the reader acts for."""

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
from kuber.dashboard.session import LOOK_SECONDS, TabSession
from kuber.errors import KUberError

log = logging.getLogger(__name__)

PLACES = {"/": "Overview", "/knowledge": "Knowledge", "/lineage": "Lineage", "/runs": "Runs"}
ROUTES: dict[str, Callable[..., Any]] = {
    "/": overview.page,
    "/knowledge": knowledge.page,
    "/knowledge/{id}": record.page,
    "/lineage": lineage.page,
    "/entity/{id}": entity.page,
    "/runs": runs.page,
}
ACTING = (
    "Whoever has the operator's token may withdraw and quarantine. It stays in this tab until you leave or load it "
    "again. The registry keeps it in its folder, in the file admin-token."
)
# Tells whether the browser draws dark, now and whenever that changes.
SCHEME = """
<script>
document.addEventListener("DOMContentLoaded", () => {
  let dark = null;
  const tell = () => {
    const now = document.body.classList.contains("body--dark");
    if (dark !== null && now !== dark) emitEvent("scheme", now);
    dark = now;
  };
  new MutationObserver(tell).observe(document.body, { attributes: true, attributeFilter: ["class"] });
});
</script>
"""


class Ways(SubPages):
    """The pages, found by their addresses; what has none, or fails, is said in a sentence."""

    def _render_404(self) -> None:
        ui.page_title("No such page · KUber")
        text_element("h1", "There is no such page")
        text_element("p", "The address leads nowhere. Begin at the overview.")
        anchor("Overview", "/")

    def _render_error(self, error: Exception) -> None:
        log.error("a page failed", exc_info=error)
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """Say that the page cannot be shown, in its place."""
        self.clear()
        with self:
            self._say(error)

    def _say(self, error: Exception) -> None:
        text_element("h1", "This page cannot be shown")
        text_element(
            "p", error.message if isinstance(error, KUberError) else "The dashboard failed; its log says why."
        )


def frame(site: PageContext) -> None:
    """Build what is around the pages, and the page that the address names."""
    visit = TabSession(site)
    ui.add_head_html(SCHEME)
    ui.on("scheme", lambda event: visit.scheme(bool(event.args)))
    dark = ui.dark_mode(None)
    layout, content = ui.context.client.layout, ui.context.client.content
    content.props("tabindex=-1")
    with layout, Element("div").classes("k-top") as top:
        # Not followed as an address: that would build the page anew.
        skip = anchor("Skip to main content", f"#{content.html_id}").classes("k-skip")
        skip.on("click", js_handler=f"(event) => {{ event.preventDefault(); getHtmlElement({content.id}).focus(); }}")
        with Element("header").classes("k-header"):
            anchor("KUber", "/").classes("k-name")
            with Element("nav").props('aria-label="Pages"'):
                ways = {path: anchor(name, path) for path, name in PLACES.items()}
            with Element("div").classes("k-tools"):
                _operator(visit)
                _scheme(dark)
        _hub(site)
    top.move(target_index=0)
    pages = Ways(ROUTES, data={"visit": visit})
    ui.on_exception(pages.fail)  # of what goes on after a page was built
    router = ui.context.client.sub_pages_router

    def on_path(path: str) -> None:
        visit.leave()
        _mark(ways, path)
        pages.refresh()  # the address may be that of before, when what the reader chose has changed it since

    router.on_path_changed(on_path)
    _mark(ways, router.current_path)


def _mark(ways: dict[str, Any], path: str) -> None:
    """Tell which way the reader is on."""
    here = urlsplit(path).path
    for way, link in ways.items():
        on_it = here == way or (way != "/" and here.startswith(f"{way}/"))
        if on_it:
            link.props["aria-current"] = "page"
        else:
            link.props.pop("aria-current", None)


def _hub(site: PageContext) -> None:
    """A line about the hub, whenever there is something to say of it."""
    with Element("div").classes("k-hub").props('role="status"') as place:
        pass
    told: object = None

    def look() -> None:
        nonlocal told
        feed = site.feed
        now: object = feed.away or (None if feed.caught_up else feed.view.last)
        if now == told:
            return
        told = now
        place.clear()
        place.classes(replace="k-hub" if feed.away is None else "k-hub away")
        with place:
            if feed.away is not None:
                text_element("strong", "The hub refuses the dashboard." if feed.away.refused else "The hub is away.")
                text_element(
                    "span", f"{feed.away.reason} What you see is of before; it is asked again every second. Since"
                )
                Timestamp(feed.away.since)
            elif not feed.caught_up:
                text_element("span", f"Reading what happened so far: {feed.view.last:,} events.")

    look()
    ui.timer(LOOK_SECONDS, look, immediate=False)


def _scheme(dark: Any) -> None:
    """The choice of light and dark: as the system, light, dark, and again."""
    names = {None: "Auto", False: "Light", True: "Dark"}
    turn = {None: False, False: True, True: None}

    def change() -> None:
        dark.value = turn[dark.value]
        show()

    def show() -> None:
        made.set_text(names[dark.value])
        made.props["aria-label"] = f"Colours: {names[dark.value]}"

    made = button(names[None], change, kind="quiet")
    show()


def _operator(visit: TabSession) -> None:
    """The way to show the operator's token, which withdrawing and quarantining need."""

    def check(token: str) -> None:
        with visit.site.source.operator(token) as operator:
            operator.check_token()

    def act_for(token: str | None) -> None:
        made.set_text("Read only" if token is None else "Operator: stop acting")
        visit.authorize(token)

    name = "Act as the operator"
    question = ConfirmDialog(
        name, ACTING, does=name, act=check, done=act_for, field="Operator's token", type="password"
    )

    def press() -> None:
        if visit.token is None:
            question.open()
        else:
            act_for(None)

    made = button("Read only", press, kind="quiet").props('aria-haspopup="dialog"')

"""State of a browser tab: colour scheme, updates, and whether it acts as the operator."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from nicegui import ui
from nicegui.page_arguments import PageArguments

from kuber.dashboard.context import PageContext
from kuber.views.hub import HubView
from kuber.views.palette import DARK, LIGHT, Palette

POLL_SECONDS = 0.1  # between two checks for new events
CHART_SECONDS = 1.0  # between two updates of a chart, which takes browsers longer than a table
BROWSER_TIMEOUT = 60.0  # seconds
IDLE_POLLS = 50  # polls without events after which a page is drawn again: a silent entity goes offline


class TabSession:
    """State of a tab, kept until it is closed or reloaded."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.token: str | None = None  # the operator's, once the user has entered it
        self.compared = ""  # id of the entity that records are compared with
        self.dark: bool | None = None  # None until the browser has reported its scheme
        self.on_scheme: list[Callable[[], None]] = []  # callbacks of the open page
        self.on_token: list[Callable[[], None]] = []

    @property
    def palette(self) -> Palette:
        """Colours of this tab's charts."""
        return DARK if self.dark else LIGHT

    def drop_callbacks(self) -> None:
        """Forget the callbacks of the page that is left."""
        self.on_scheme.clear()
        self.on_token.clear()

    def set_scheme(self, dark: bool) -> None:
        """Note the browser's colour scheme, and redraw if it changed."""
        changed = self.dark is not None and self.dark is not dark
        self.dark = dark
        if changed:
            for redraw in list(self.on_scheme):
                redraw()

    def authorize(self, token: str | None) -> None:
        """Act as the operator with this token, or read-only without one."""
        self.token = token
        for redraw in list(self.on_token):
            redraw()

    async def ready(self) -> None:
        """Wait until the browser is connected and has reported its colour scheme."""
        await ui.context.client.connected()
        if self.dark is None:
            script = "return document.body.classList.contains('body--dark')"
            self.dark = bool(await ui.run_javascript(script, timeout=BROWSER_TIMEOUT))

    def follow(self, draw: Callable[[HubView, datetime], None]) -> None:
        """Draw now, and again after each event of the hub, while the page is open."""
        feed = self.context.feed
        seen, polls = -1, 0

        def poll() -> None:
            nonlocal seen, polls
            polls += 1
            version = feed.version
            if version == seen and polls < IDLE_POLLS:
                return
            seen, polls = version, 0
            with feed.reading() as view:
                draw(view, datetime.now(UTC))

        poll()
        ui.timer(POLL_SECONDS, poll, immediate=False)


def parse_number(text: str, default: int) -> int:
    """Return the number in a query parameter, or the default for anything else."""
    return int(text) if text.isdecimal() and len(text) < 10 else default


def update_address(arguments: PageArguments, query: Mapping[str, str]) -> None:
    """Put the page's choices into its address, so that it can be bookmarked; empty values are left out."""
    encoded = urlencode({name: value for name, value in query.items() if value})
    address = f"{arguments.path}?{encoded}" if encoded else arguments.path
    ui.context.client.sub_pages_router.current_path = address
    ui.navigate.history.replace(address)

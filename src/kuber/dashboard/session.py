"""One reader's browser tab: how it is drawn, what it follows, and whether it acts for the operator."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from nicegui import ui
from nicegui.page_arguments import PageArguments

from kuber.dashboard.context import PageContext
from kuber.views import HubView
from kuber.views.palette import DARK, LIGHT, Palette

LOOK_SECONDS = 0.1  # between two looks at whether there is something new
PICTURE_SECONDS = 1.0  # between two drawings of a picture: browsers take longer for one than for a table
BROWSER_SECONDS = 60.0  # for which a busy browser is waited for
IDLE_LOOKS = 50  # after so many without news a page is drawn all the same: who is silent goes offline


class TabSession:
    """What a tab knows of its reader; kept until the tab is closed or loaded again."""

    def __init__(self, site: PageContext) -> None:
        self.site = site
        self.token: str | None = None  # the operator's, when the reader has shown it
        self.beside = ""  # id of the entity that records are shown beside
        self.dark: bool | None = None  # as the browser draws; None before it has told
        self.on_scheme: list[Callable[[], None]] = []  # of the page that is open
        self.on_token: list[Callable[[], None]] = []

    @property
    def palette(self) -> Palette:
        """The colours of this tab's pictures."""
        return DARK if self.dark else LIGHT

    def leave(self) -> None:
        """Another page is opened: what the one before waited for is of no use any more."""
        self.on_scheme.clear()
        self.on_token.clear()

    def scheme(self, dark: bool) -> None:
        """The browser draws light, or dark."""
        changed = self.dark is not None and self.dark is not dark
        self.dark = dark
        if changed:
            for act in list(self.on_scheme):
                act()

    def authorize(self, token: str | None) -> None:
        """The reader showed the operator's token, or puts it away."""
        self.token = token
        for act in list(self.on_token):
            act()

    async def drawn(self) -> None:
        """Wait until the browser is there and has told how it draws."""
        await ui.context.client.connected()
        if self.dark is None:
            told = await ui.run_javascript(
                "return document.body.classList.contains('body--dark')", timeout=BROWSER_SECONDS
            )
            self.dark = bool(told)

    def follow(self, draw: Callable[[HubView, datetime], None]) -> None:
        """Draw now, and again whenever something happened at the hub, for as long as the page is open."""
        feed = self.site.feed
        seen, looks = -1, 0

        def look() -> None:
            nonlocal seen, looks
            looks += 1
            version = feed.version
            if version == seen and looks < IDLE_LOOKS:
                return
            seen, looks = version, 0
            with feed.reading() as view:
                draw(view, datetime.now(UTC))

        look()
        ui.timer(LOOK_SECONDS, look, immediate=False)


def number(text: str, usual: int) -> int:
    """The number in a part of an address; the usual one where there is none that makes sense."""
    return int(text) if text.isdecimal() and len(text) < 10 else usual


def remember(arguments: PageArguments, query: Mapping[str, str]) -> None:
    """Put what the reader chose into the address, so that it can be sent to others; empty values are left out."""
    told = urlencode({name: value for name, value in query.items() if value})
    address = f"{arguments.path}?{told}" if told else arguments.path
    ui.context.client.sub_pages_router.current_path = address
    ui.navigate.history.replace(address)

"""A real browser, and tabs that record errors and requests."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.fixtures.waiting import LIMIT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The browser itself makes no requests to the internet.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(process: None) -> Iterator[Browser]:
    """A real, headless browser."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, "The dashboard is tested in a real browser: `make browser` installs Debian's Chromium."
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


class Visit:
    """A tab that records its errors, and its requests to other hosts."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(1000 * LIMIT)
        self.url = url
        self.faults: list[str] = []
        self.foreign: list[str] = []  # URLs
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._on_request)

    def go(self, path: str) -> Page:
        """Open a page of the dashboard; wait for its heading and its connection."""
        self.page.goto(f"{self.url}{path}")
        self.page.wait_for_selector("main h1")
        self.page.wait_for_function("window.did_handshake")
        return self.page

    def check(self) -> None:
        """Assert that there were no errors, and no requests to other hosts."""
        assert self.faults == []
        assert self.foreign == []

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not re.match(rf"(ws|http){re.escape(self.url.removeprefix('http'))}/|data:|blob:", request.url):
            self.foreign.append(request.url)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens a tab with the options of a browser context; all tabs are checked at the end."""
    with ExitStack() as stack:
        visits: list[Visit] = []

        def open_tab(url: str, **options: object) -> Visit:
            context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))  # type: ignore[arg-type]
            stack.callback(context.close)
            visits.append(Visit(context, url))
            return visits[-1]

        yield open_tab
        for tab in visits:
            tab.check()

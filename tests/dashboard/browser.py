"""A real browser, and tabs that remember what went wrong in them."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# No part of the browser's own asks anybody on the net.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real, headless browser."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, "The dashboard is tested in a real browser: `make browser` installs Debian's Chromium."
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


class Visit:
    """A tab of a reader, that remembers what went wrong in it and whom it asked."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.url = url
        self.faults: list[str] = []
        self.strangers: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._watch)

    def go(self, path: str) -> Page:
        """Open a page of the dashboard, and wait for its heading, and until it hears what the reader does."""
        self.page.goto(f"{self.url}{path}")
        self.page.wait_for_selector("main h1")
        self.page.wait_for_function("window.did_handshake")
        return self.page

    def check(self) -> None:
        """That the browser complained of nothing, and asked nobody else."""
        assert self.faults == []
        assert self.strangers == []

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _watch(self, request: Request) -> None:
        if not re.match(rf"(ws|http){re.escape(self.url.removeprefix('http'))}/|data:|blob:", request.url):
            self.strangers.append(request.url)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a tab on a dashboard's address, with the options of a browser context; at the end all are checked."""
    with ExitStack() as stack:
        visits: list[Visit] = []

        def open_tab(url: str, **options: object) -> Visit:
            context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))  # type: ignore[arg-type]
            stack.callback(context.close)
            visits.append(Visit(context, url))
            return visits[-1]

        yield open_tab
        for one in visits:
            one.check()

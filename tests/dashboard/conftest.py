"""A hub with real entities, the dashboard as a process, and a real browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from kuber.domain.auth import OPERATOR_TOKEN_FILE

from ..conftest import Hub, running

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# No part of the browser's own asks anybody on the net.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Quick learners: nobody absorbs a model that is no better than chance.
LEARNING = ("--dataset", "digits", "--architecture", "mlp", "--num-entities", "3", "--num-rounds", "3")
LEARNING += ("--local-epochs", "2", "--learning-rate", "0.1", "--batch-size", "16")


@dataclass(frozen=True)
class World:
    """A hub, and the dashboard that shows it."""

    hub: Hub
    url: str  # of the dashboard
    folder: Path


def learn(hub: Hub, folder: Path, entities: int) -> None:
    """Real entities, side by side, from their first round to their last."""
    command = [sys.executable, "-m", "kuber", "entity", *LEARNING, "--runs-dir", str(folder / "entities")]
    command += ["--registry", hub.registry, "--vault", hub.vault]
    told = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, str(index)], **told) for index in range(entities)]  # type: ignore[call-overload]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@contextmanager
def dashboard(folder: Path, *options: str) -> Iterator[str]:
    """The address of a dashboard that runs for as long as this is open."""
    command = [sys.executable, "-m", "kuber", "dashboard", "--port", "0", "--stop-with-stdin", *options]
    log = folder / "dashboard.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        words = process.stdout.readline().split()
        assert words, f"the dashboard did not start: {log.read_text(encoding='utf-8')}"
        yield words[-1]
    finally:
        process.stdin.close()
        assert process.wait(20) == 0, log.read_text(encoding="utf-8")
        process.stdout.close()
    failed = [line for line in log.read_text(encoding="utf-8").splitlines() if '"level": "error"' in line]
    assert not failed


def shows(hub: Hub, folder: Path) -> tuple[str, ...]:
    """The options that show this hub, whose data lie in the folder."""
    token = folder / "registry" / OPERATOR_TOKEN_FILE
    return ("--registry", hub.registry, "--vault", hub.vault, "--admin-token", str(token))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub with two entities that learnt from each other. Tests share it: add to it, and take nothing away."""
    folder = tmp_path_factory.mktemp("dashboard")
    with running(folder, "--open-enrolment", "--requests-per-minute", "0") as hub:
        learn(hub, folder, 2)
        with dashboard(folder, *shows(hub, folder)) as url:
            yield World(hub=hub, url=url, folder=folder)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub in which nobody has learnt yet."""
    folder = tmp_path_factory.mktemp("quiet")
    with running(folder, "--open-enrolment") as hub, dashboard(folder, *shows(hub, folder)) as url:
        yield World(hub=hub, url=url, folder=folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real, headless browser."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, "The dashboard is tested in a real browser: `make browser` installs Debian's Chromium."
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture
def free_port(new_port: Callable[[], int]) -> int:
    """A port that nobody listens on."""
    return new_port()


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

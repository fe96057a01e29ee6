"""Latency of the dashboard with 200 entities and 20,000 events: to first paint, and from an event to the screen.

Needs Playwright and Debian's Chromium (`make browser`), as the tests do. Every visit begins with an empty cache. The
page measures the time from the start of the navigation to the frame after the first row of entities appeared, and to
the frame after the chart was drawn; and from the registry's response to a report to the frame after its accuracy
appeared in the entity's row, while the hub sends other events.

    python benchmarks/dashboard.py
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dashboard_entity import Entity
from dashboard_hub import Live, fill
from hub_site import hub, report
from playwright.sync_api import Browser, Page, sync_playwright

from kuber.domain.auth import OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Records when an element first appears, in the frame after.
WATCH = """
window.seen = {};
const note = (name, selector, done) => {
  if (window.seen[name] === undefined && done(document.querySelector(selector))) {
    window.seen[name] = null;
    requestAnimationFrame(() => requestAnimationFrame(() => (window.seen[name] = performance.now())));
  }
};
new MutationObserver(() => {
  note("rows", "tbody tr[data-key] th", (found) => found !== null);
  note("picture", "main canvas", (found) => found !== null);
}).observe(document, { childList: true, subtree: true });
"""
# Records when the row of an entity shows the awaited accuracy.
AWAIT = """([entity, wanted]) => {
  window.arrived = null;
  const cell = () => document.querySelector(`tr[data-key="${entity}"] [data-column=accuracy]`);
  const look = () => {
    if (window.arrived === null && cell()?.innerText.includes(wanted)) {
      window.arrived = 0;
      observer.disconnect();
      requestAnimationFrame(() => requestAnimationFrame(() => (window.arrived = Date.now())));
    }
  };
  const observer = new MutationObserver(look);
  observer.observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


@contextmanager
def dashboard(folder: Path, registry: str, vault: str) -> Iterator[str]:
    """Run a dashboard of this hub; yield its address."""
    token = folder / "registry" / OPERATOR_TOKEN_FILE
    command = [sys.executable, "-m", "kuber", "dashboard", "--port", "0", "--stop-with-stdin", "--registry", registry]
    command += ["--vault", vault, "--admin-token", str(token)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.stdin.close()


def paints(browser: Browser, url: str, path: str, times: int, target: str) -> None:
    """Measure first paints of a page, each with an empty cache, after a warm-up visit."""
    found: dict[str, list[float]] = {"contentful": [], "rows": [], "picture": []}
    for turn in range(times + 1):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(f"{url}{path}")
        page.wait_for_function("window.seen.rows && window.seen.picture")
        if turn:
            contentful = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            seen = page.evaluate("window.seen")
            found["contentful"].append(contentful)
            for name in ("rows", "picture"):
                found[name].append(seen[name])
        context.close()
    figures = {f"{name}_{kind}": round(of(values)) for name, values in found.items() for kind, of in KINDS.items()}
    report(f"milliseconds to first paint of {path}", target, visits=times, **figures)


KINDS = {"median": statistics.median, "max": max}


def delays(page: Page, entities: list[Entity], live: Live, times: int, rate: float) -> None:
    """Measure the time from the registry's response to the screen, for reports of one entity."""
    shown = {row.get_attribute("data-key") for row in page.locator("tbody tr[data-key]").all()}
    # An entity that sends no more reports: its next one would replace ours before it is drawn.
    entity = next(entity for entity in entities if entity.id in shown and entity.round >= entity.last)
    waits = []
    for _ in range(times):
        # The accuracy is known beforehand, so the observer is ready before the report is sent.
        page.evaluate(AWAIT, [entity.id, f"{live.next_beat:.1%}"])
        event = live.beat(entity)
        page.wait_for_function("window.arrived", polling=10)
        waits.append(page.evaluate("window.arrived") - 1000 * event.at)
        page.wait_for_timeout(137)  # out of phase with periodic refreshes
    waits.sort()
    report(
        "milliseconds from the registry's response to the screen",
        "< 1000",
        reports=times,
        other_events_a_second=rate,
        median=round(statistics.median(waits)),
        p95=round(waits[int(0.95 * len(waits)) - 1]),
        max=round(waits[-1]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=200)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--reports", type=int, default=40)
    parser.add_argument("--rate", type=float, default=20.0, help="other events per second during measurements")
    arguments = parser.parse_args()
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("Chromium is not installed; install it with `make browser`.")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary) / "hub"
        registry, vault = stack.enter_context(hub(folder))
        operator, verifier = (
            (folder / "registry" / name).read_text() for name in (OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE)
        )
        counts = {"entities": arguments.entities, "events": arguments.events}
        world = stack.enter_context(fill(registry, vault, **counts, verifier=verifier, operator=operator))
        url = stack.enter_context(dashboard(folder, registry, vault))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.get_by_text(f"of {arguments.entities} entities").wait_for(timeout=120_000)
        page.get_by_text("Reading the hub's history").wait_for(state="detached", timeout=120_000)
        for place in ("/", "/lineage"):
            paints(browser, url, place, arguments.visits, "< 1500")
        live = Live(world, rate=arguments.rate)
        page.goto(f"{url}/")
        page.wait_for_selector("main canvas")
        ended = threading.Event()

        def others() -> None:
            for _ in live.events():
                if ended.is_set():
                    return

        sender = threading.Thread(target=others, daemon=True)
        sender.start()
        delays(page, world.entities, live, arguments.reports, arguments.rate)
        ended.set()
        sender.join(30)


if __name__ == "__main__":
    main()

"""How quick the dashboard is on 200 entities and 20,000 events: first paint, and from an event to the screen.

Needs Playwright and Debian's Chromium (`make browser`), as the tests do. Every visit begins with an empty cache. What
is measured is the page's own time: from the start of the navigation to the frame after the first row of entities was
there (meaningful), and to the frame after the picture was drawn; and from the moment that the registry had answered a
report to the frame after its accuracy was in the entity's row, while the hub goes on telling other events.

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
from hub_site import hub, tell
from playwright.sync_api import Browser, Page, sync_playwright

from kuber.domain.auth import OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Notes when something is first there, in the frame after.
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
# Notes when the accuracy of an entity becomes what it is waited for.
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
    """The address of a dashboard on this hub, once it has read all events."""
    token = folder / "registry" / OPERATOR_TOKEN_FILE
    command = [sys.executable, "-m", "kuber", "dashboard", "--port", "0", "--stop-with-stdin", "--registry", registry]
    command += ["--vault", vault, "--admin-token", str(token)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.stdin.close()


def paints(browser: Browser, url: str, path: str, times: int, target: str) -> None:
    """First paints of a page, each with an empty cache, after one that does not count."""
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
    tell(f"milliseconds to first paint of {path}", target, visits=times, **figures)


KINDS = {"median": statistics.median, "max": max}


def delays(page: Page, entities: list[Entity], live: Live, times: int, rate: float) -> None:
    """From the registry's answer to the screen, of reports of one entity."""
    shown = {row.get_attribute("data-key") for row in page.locator("tbody tr[data-key]").all()}
    # One that has fallen silent: its own next report would take the place of ours before it is drawn.
    entity = next(one for one in entities if one.id in shown and one.round >= one.last)
    waits = []
    for _ in range(times):
        # What is coming is known beforehand, so that nothing is missed.
        page.evaluate(AWAIT, [entity.id, f"{live.next_beat:.1%}"])
        told = live.beat(entity)
        page.wait_for_function("window.arrived", polling=10)
        waits.append(page.evaluate("window.arrived") - 1000 * told.at)
        page.wait_for_timeout(137)  # not in step with anybody's clock
    waits.sort()
    tell(
        "milliseconds from the registry's answer to the screen",
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
    parser.add_argument("--rate", type=float, default=20.0, help="Other events a second while delays are measured.")
    arguments = parser.parse_args()
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("There is no Chromium here: `make browser` installs it.")
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

        talker = threading.Thread(target=others, daemon=True)
        talker.start()
        delays(page, world.entities, live, arguments.reports, arguments.rate)
        ended.set()
        talker.join(30)


if __name__ == "__main__":
    main()

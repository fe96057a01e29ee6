"""Take the screenshots of docs/dashboard.md: `make pictures`.

Starts a hub, six entities that learn the digits with two architectures, the hub's verifier and the dashboard, and
photographs each page with Debian's Chromium.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from kuber.client.credentials import Credentials
from kuber.client.event_stream import EventReader
from kuber.client.registry import HttpRegistry
from kuber.domain.auth import OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE
from kuber.views.hub import HubView

HERE = Path(__file__).parent
ENTITIES = 6
LEARNING = ("--dataset", "digits", "--num-entities", str(ENTITIES), "--num-rounds", "10", "--local-epochs", "2")
LEARNING += ("--architecture", "mlp,cnn", "--alpha", "0.3", "--learning-rate", "0.05", "--batch-size", "16")
RUNS = (("kuber",), ("local",), ("kuber", "--seed", "1"))
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SCREEN = {"width": 1200, "height": 860}
PHONE = {"width": 390, "height": 780}


def kuber(*words: str) -> list[str]:
    return [sys.executable, "-m", "kuber", *words]


@contextmanager
def serving(command: str, *options: str) -> Iterator[str]:
    """Start a service; yield its address, and stop it at the end."""
    words = kuber(command, "--stop-with-stdin", *options)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.stdin.close()


@contextmanager
def world(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a registry and a dashboard, after the entities have learned and the verifier has run."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with ExitStack() as stack:
        secret = ("--secret", str(folder / "secret"))
        options = ("--port", "0", "--data", str(folder / "vault"), "--registry", f"http://127.0.0.1:{port}", *secret)
        vault = stack.enter_context(serving("vault", *options))
        options = ("--port", port, "--data", str(folder / "registry"), "--vault", vault, "--open-enrolment", *secret)
        registry = stack.enter_context(serving("registry", *options))
        hub = ("--registry", registry, "--vault", vault)
        runs = ("--runs-dir", str(folder / "runs"))
        learners = [
            subprocess.Popen(
                kuber("entity", str(index), *LEARNING, *hub, "--runs-dir", str(folder / "entities")),
                cwd=folder,
                stderr=subprocess.PIPE,
            )
            for index in range(ENTITIES)
        ]
        for learner in learners:
            _, errors = learner.communicate()
            assert learner.returncode == 0, errors.decode()
        token = str(folder / "registry" / VERIFIER_TOKEN_FILE)
        subprocess.run(kuber("hub", "verifier", "--dataset", "digits", "--once", "--token", token, *hub), check=True)
        for strategy, *more in RUNS:
            subprocess.run(kuber("simulate", *LEARNING, "--strategy", strategy, *more, *runs), check=True)
        operator = str(folder / "registry" / OPERATOR_TOKEN_FILE)
        yield (
            registry,
            stack.enter_context(serving("dashboard", "--port", "0", *hub, *runs, "--admin-token", operator)),
        )


def view_of(registry: str, token: str) -> HubView:
    view = HubView()
    with HttpRegistry(registry, credentials=Credentials(token=token)) as records:
        EventReader(records, view.apply).read()
    return view


def take(page: Page, url: str, name: str, *, ready: str = "main canvas", whole: bool = False) -> None:
    page.goto(url)
    page.wait_for_selector(ready)
    page.wait_for_timeout(1500)
    page.screenshot(path=HERE / f"dashboard-{name}.png", full_page=whole)


def main() -> None:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("There is no Chromium here: `make browser` installs it.")
    with tempfile.TemporaryDirectory() as temporary, world(Path(temporary)) as (registry, url):
        view = view_of(registry, (Path(temporary) / "registry" / OPERATOR_TOKEN_FILE).read_text().strip())
        best = max(view.entities.values(), key=lambda entity: entity.gained)
        record = max(view.records.values(), key=lambda record: (record.found or 0.0, record.id))
        guided = [entry for entry in view.deliveries if entry.method == "guide" and entry.kept] or list(
            view.deliveries
        )
        runs = sorted(folder.name for folder in (Path(temporary) / "runs").iterdir())
        chosen = "&".join(f"run={name}" for name in runs)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
            page = browser.new_page(viewport=SCREEN)
            take(page, url, "overview", whole=True)
            take(page, f"{url}/knowledge?sort=found", "knowledge", ready="tbody a")
            take(page, f"{url}/knowledge/{record.id}?entity={best.id}", "record")
            take(page, f"{url}/entity/{best.id}", "entity")
            take(page, f"{url}/runs?{chosen}", "runs")
            dark = browser.new_page(viewport=SCREEN, color_scheme="dark")
            take(dark, f"{url}/lineage?delivery={guided[-1].number}", "lineage")
            small = browser.new_page(viewport=PHONE, color_scheme="dark", device_scale_factor=2, is_mobile=True)
            take(small, url, "phone")
            browser.close()


if __name__ == "__main__":
    main()

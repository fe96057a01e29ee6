"""Pages follow the hub without a reload, also after the hub was killed and restarted."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from tests.fixtures.commands import Command
from tests.fixtures.hub import SigningRegistry, running_hub, running_service, unused_port
from tests.fixtures.samples import Samples

from .browser import Visit
from .site import World, dashboard, shows

TEST_SET = Digest.of(b"live")


def evaluation(correct: int) -> Evaluation:
    return Evaluation(test_set=TEST_SET, correct=(correct, correct), total=(1000, 1000))


def test_a_new_entity_and_its_reports_appear_on_the_open_page(quiet: World, visit: Callable[..., Visit]) -> None:
    page = visit(quiet.url).go("/")
    page.evaluate("window.same = true")  # lost if the page is reloaded
    with HttpRegistry(quiet.hub.registry) as registry:
        member = registry.register("late ward")
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="late ward"))
        row.wait_for()
        for correct in (123, 456, 789):
            registry.report(member.id, round=1, evaluation=evaluation(correct))
            row.get_by_text(f"{correct / 1000:.1%}").wait_for()  # benchmarks/dashboard.py measures the delay
    assert page.evaluate("window.same") is True


def test_focus_survives_a_change_of_the_table(quiet: World, visit: Callable[..., Visit]) -> None:
    page = visit(quiet.url).go("/")
    with HttpRegistry(quiet.hub.registry) as registry:
        member = registry.register("focused ward")
        link = page.get_by_role("link", name="focused ward")
        link.focus()
        registry.report(member.id, round=7, evaluation=evaluation(333))
        page.get_by_text("33.3%").first.wait_for()
    assert page.evaluate("document.activeElement.innerText") == "focused ward"


def test_an_empty_hub_says_how_to_begin_and_fills(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    with running_hub(tmp_path, "--open-enrolment") as hub, dashboard(tmp_path, *shows(hub, tmp_path)) as url:
        page = visit(url).go("/")
        page.get_by_text("Start one with `kuber entity 0`").wait_for()
        assert page.get_by_role("table", name="Entities").is_hidden()
        with HttpRegistry(hub.registry) as registry:
            registry.register("first")
        page.get_by_role("table", name="Entities").get_by_role("link", name="first").wait_for()
        page.get_by_role("link", name="Knowledge").click()
        page.get_by_text("No knowledge has been published yet.").wait_for()


def test_an_event_of_another_version_is_ignored(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    with running_hub(tmp_path, "--open-enrolment") as hub, dashboard(tmp_path, *shows(hub, tmp_path)) as url:
        with HttpRegistry(hub.registry) as registry:
            id = registry.register("first").id
            base = sqlite3.connect(tmp_path / "registry" / "registry.sqlite", timeout=10)
            line = "INSERT INTO audit (time, actor, act, subject, detail) VALUES (?, ?, ?, ?, ?)"
            with base:
                for act, detail in (("deliver", '{"teachers": ["k"]}'), ("report", '{"round": 1, "total": [5]}')):
                    base.execute(line, ("2026-01-01 00:00:00.000000", id, act, id, detail))
            base.close()
            registry.register("second")
        visit(url).go("/").get_by_role("link", name="second").wait_for()


@contextmanager
def mortal_registry(folder: Path, port: int, vault: str, secret: Path) -> Iterator[Command]:
    arguments = [
        "registry",
        "--port",
        str(port),
        "--vault",
        vault,
        "--secret",
        str(secret),
    ]
    arguments += ["--data", str(folder / "registry"), "--open-enrolment"]
    process = Command(*arguments, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert "is up at" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.close()


def test_a_killed_hub_is_reported_and_reconnected(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    secret = tmp_path / "secret"
    port = unused_port()
    registry_url = f"http://127.0.0.1:{port}"
    with (
        running_service("vault", tmp_path, "--registry", registry_url, "--secret", str(secret)) as vault,
        mortal_registry(tmp_path, port, vault, secret) as first,
    ):
        samples, me = Samples(), Credentials()
        with SigningRegistry(registry_url, credentials=me) as registry, HttpVault(vault, credentials=me) as blobs:
            member = registry.register("before")
            record = registry.publish(samples.draft(member.id, blobs.put(samples.weights())), key="one")
        token = str(tmp_path / "registry" / "admin-token")
        options = ("--registry", registry_url, "--vault", vault, "--admin-token", token)
        with dashboard(tmp_path, *options) as url:
            page = visit(url).go("/")
            page.get_by_role("link", name="before").wait_for()
            os.kill(first.pid, signal.SIGKILL)
            banner = page.get_by_role("status").filter(has_text="The hub is unreachable.")
            banner.wait_for()
            assert page.get_by_role("link", name="before").is_visible()  # the last known state stays
            page.get_by_role("link", name="Knowledge").click()
            page.get_by_role("link", name=record.id[-12:]).click()
            page.get_by_role("alert").filter(has_text="No answer from the registry").wait_for()
            with mortal_registry(tmp_path, port, vault, secret):
                banner.wait_for(state="hidden")
                page.get_by_text("Ed25519").wait_for()  # the record that was opened in the meantime
                with HttpRegistry(registry_url) as registry:
                    registry.register("after")
                page.get_by_role("link", name="Overview").click()
                page.get_by_role("link", name="after").wait_for()
                assert page.get_by_role("link", name="before").is_visible()


def test_a_hub_that_never_answered_is_reported(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 43)
    with dashboard(tmp_path, "--registry", f"http://127.0.0.1:{unused_port()}", "--admin-token", str(token)) as url:
        page = visit(url).go("/")
        page.get_by_role("status").filter(has_text="The hub is unreachable.").wait_for()
        page.get_by_role("link", name="Runs").click()
        page.get_by_role("heading", name="Runs", exact=True).wait_for()

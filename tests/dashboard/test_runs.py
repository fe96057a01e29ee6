"""The runs of a folder in a real browser: listed, side by side, damaged ones included."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kuber.views.comparison import ComparisonResult
from kuber.views.deployed_models import deployed_phrase
from kuber.views.result import RunResult
from kuber.views.run_index import read_runs
from tests.fixtures.commands import Command

from .browser import Visit
from .site import dashboard

TINY = (
    "--dataset",
    "digits",
    "--architecture",
    "mlp",
    "--num-entities",
    "2",
    "--num-rounds",
    "2",
    "--local-epochs",
    "1",
)


@pytest.fixture(scope="module")
def place(process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL of a dashboard without a hub, and its folder: two simulations, a comparison, a damaged run."""
    folder = tmp_path_factory.mktemp("runs")
    started = [
        Command(*words, "--workers", "0", "--runs-dir", str(folder / "runs"), folder=folder)
        for words in (
            ("simulate", *TINY),
            ("simulate", *TINY, "--seed", "1", "--strategy", "local"),
            ("compare", *TINY, "--strategies", "local,kuber", "--seeds", "1"),
        )
    ]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    damaged = folder / "runs" / "20260101-000000-digits-kuber-seed7"
    damaged.mkdir()
    (damaged / "settings.json").write_text('{"seed": 7')
    (folder / "token").write_text("t" * 43)
    options = ("--registry", "http://127.0.0.1:9", "--admin-token", "token", "--runs-dir", "runs")
    with dashboard(folder, *options) as url:
        yield url, folder / "runs"


def test_every_run_is_listed_with_its_state(place: tuple[str, Path], visit: Callable[..., Visit]) -> None:
    url, folder = place
    page = visit(url).go("/runs")
    page.get_by_role("link", name="20260101-000000-digits-kuber-seed7").wait_for()
    rows = page.get_by_role("table", name="Runs", exact=True).locator("tbody tr")
    assert rows.count() == 4
    assert "unreadable: settings.json is not valid JSON" in rows.last.inner_text()
    for run in read_runs(folder):
        if isinstance(run.outcome, RunResult):
            assert f"{run.outcome.mean_accuracy:.1%}" in page.locator(f"tr[data-key='{run.name}']").inner_text()


def test_runs_are_shown_side_by_side_also_by_address(place: tuple[str, Path], visit: Callable[..., Visit]) -> None:
    url, folder = place
    page = visit(url).go("/runs")
    simulated = [run for run in read_runs(folder) if run.kind == "simulation"]
    for run in simulated:
        page.locator(f"tr[data-key='{run.name}']").get_by_role("link", name="add").click()
        page.locator(f"tr.chosen[data-key='{run.name}']").wait_for()
    table = page.get_by_role("table", name="Runs side by side")
    table.wait_for()
    page.wait_for_selector("main canvas")
    strategies = table.locator("tr[data-key='setting strategy'] td").all_inner_texts()
    assert sorted(strategies) == ["kuber", "local"]
    assert table.locator("tr[data-key='setting num_rounds']").count() == 0  # the same in both
    again = visit(url)
    again.page.goto(page.url)
    again.page.get_by_role("table", name="Runs side by side").wait_for()
    page.locator("tr.chosen").first.get_by_role("link", name="remove").click()
    page.wait_for_function("document.querySelectorAll('tr.chosen').length === 1")


def test_a_run_names_its_deployed_models(place: tuple[str, Path], visit: Callable[..., Visit]) -> None:
    url, folder = place
    run = next(run for run in read_runs(folder) if isinstance(run.outcome, RunResult))
    assert isinstance(run.outcome, RunResult)
    phrase = deployed_phrase(run.outcome.deployed)
    assert phrase is not None
    page = visit(url).go(f"/runs?run={run.name}")
    row = page.get_by_role("table", name="Runs side by side").locator("tr[data-key='result deployed models']")
    assert phrase in row.inner_text()


def test_a_comparison_shows_the_tables_of_the_terminal(place: tuple[str, Path], visit: Callable[..., Visit]) -> None:
    url, folder = place
    run = next(run for run in read_runs(folder) if run.kind == "comparison")
    assert isinstance(run.outcome, ComparisonResult)
    page = visit(url).go(f"/runs?run={run.name}")
    for section in run.outcome.sections:
        table = page.get_by_role("table", name=section.title)
        table.wait_for()
        for number, row in enumerate(section.rows):
            cells = table.locator("tbody tr").nth(number).locator("th, td").all_inner_texts()
            assert tuple(cells) == row


def test_a_report_opens_and_no_other_file(place: tuple[str, Path], visit: Callable[..., Visit]) -> None:
    url, folder = place
    run = next(run for run in read_runs(folder) if isinstance(run.outcome, RunResult))
    tab = visit(url)
    tab.page.goto(f"{url}/report/{run.name}")
    tab.page.get_by_role("heading", name="Result").wait_for()
    for name in ("nothing", "%2E%2E", "..%2F..", "%2Fetc%2Fpasswd", "..%2Fruns%2F" + run.name):
        assert httpx.get(f"{url}/report/{name}").status_code == 404
    for name in ("%00", "x" * 300, run.name + "%00"):
        answer = httpx.get(f"{url}/report/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "knowledge-not-found")
    assert httpx.get(f"{url}/report/{run.name}").headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_new_run_appears_without_a_reload(place: tuple[str, Path], visit: Callable[..., Visit]) -> None:
    url, folder = place
    page = visit(url).go("/runs")
    page.get_by_role("link", name="20260101-000000-digits-kuber-seed7").wait_for()
    late = folder / "20270101-000000-digits-kuber-seed9"
    late.mkdir()
    (late / "settings.json").write_text('{"seed": 9}')
    try:
        page.get_by_role("link", name=late.name).wait_for()
    finally:
        (late / "settings.json").unlink()
        late.rmdir()

"""Each page in a real browser: content, accessibility, small screens, colours, keyboard."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import ViewportSize

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.dashboard.session import parse_number
from kuber.domain.event import Event
from kuber.domain.joining_report import JoiningReport, ReportRow
from kuber.domain.knowledge import Knowledge
from kuber.domain.query import Query
from kuber.wire.event import encode_event

from .browser import Visit
from .site import World

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
PHONE: ViewportSize = {"width": 390, "height": 844}
PAGES = {
    "overview": "/",
    "knowledge": "/knowledge",
    "record": "/knowledge/{record}",
    "lineage": "/lineage?delivery={delivery}",
    "entity": "/entity/{entity}",
    "runs": "/runs",
}


@pytest.fixture(scope="module")
def newest(world: World) -> Knowledge:
    """The latest record of the hub."""
    with HttpRegistry(world.hub.registry, credentials=Credentials(token=world.hub.operator)) as registry:
        return registry.discover(Query(order="newest", limit=1)).items[0]


@pytest.fixture(scope="module")
def delivery(world: World) -> int:
    """The event number of the latest delivery."""
    from kuber.client.event_stream import EventReader

    found: list[int] = []
    with HttpRegistry(world.hub.registry, credentials=Credentials(token=world.hub.operator)) as registry:
        EventReader(registry, lambda number, entry: found.append(number) if entry.act == "deliver" else None).read()
    return found[-1]


def address(name: str, newest: Knowledge, delivery: int) -> str:
    return PAGES[name].format(record=newest.id, entity=newest.entity, delivery=delivery)


def faults(visit: Visit) -> list[str]:
    """Return the serious violations that axe-core finds, with their elements."""
    visit.page.evaluate(AXE)
    found: dict[str, Any] = visit.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes'][:3]]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", PAGES)
def test_is_accessible(
    world: World, visit: Callable[..., Visit], newest: Knowledge, delivery: int, name: str
) -> None:
    tab = visit(world.url, color_scheme="light")
    page = tab.go(address(name, newest, delivery))
    if name in ("overview", "record", "lineage", "entity"):
        page.wait_for_selector("main canvas")
    assert faults(tab) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("body.body--dark")
    assert faults(tab) == []
    page.set_viewport_size(PHONE)
    page.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert faults(tab) == []


def test_the_overview_shows_entities_and_accuracies(world: World, visit: Callable[..., Visit]) -> None:
    page = visit(world.url).go("/")
    assert page.title() == "Overview · KUber"
    row = (
        page.get_by_role("table", name="Entities")
        .get_by_role("row")
        .filter(has=page.get_by_role("link", name="0", exact=True))
    )
    assert row.locator("[data-column=round]").inner_text() == "3"
    assert row.locator("[data-column=accuracy]").inner_text().strip().endswith("%")
    assert row.get_by_text("online").count() == 1
    totals = page.locator(".k-totals").inner_text()
    assert re.search(r"\d+ of \d+\s+Online", totals)


def test_a_record_shows_its_claim_and_signature(world: World, visit: Callable[..., Visit], newest: Knowledge) -> None:
    page = visit(world.url).go(f"/knowledge/{newest.id}")
    page.get_by_text("Ed25519").wait_for()
    facts = page.locator(".k-facts").first
    assert f"{newest.evaluation.accuracy:.1%} claimed" in facts.inner_text()
    assert "Prior of its logits\nuniform, equal class frequencies" in facts.inner_text()
    assert str(newest.artifacts["weights"].digest) in facts.inner_text()
    table = page.get_by_role("table", name="Accuracy by class")
    first = table.get_by_role("row").nth(1).inner_text()
    recall = newest.evaluation.recalls[0]
    assert recall is not None
    assert f"{recall:.1%}" in first


def test_a_record_is_compared_with_the_chosen_entity(
    world: World, visit: Callable[..., Visit], newest: Knowledge
) -> None:
    tab = visit(world.url)
    page = tab.go(f"/knowledge/{newest.id}")
    page.get_by_label("Compare with").select_option(label="0")
    page.get_by_role("columnheader", name="0 now").wait_for()
    page.wait_for_url("**entity=*")
    again = visit(world.url)
    again.page.goto(page.url)
    again.page.get_by_role("columnheader", name="0 now").wait_for()


def test_an_entity_shows_its_data_and_exchange(world: World, visit: Callable[..., Visit], newest: Knowledge) -> None:
    page = visit(world.url).go(f"/entity/{newest.entity}")
    page.wait_for_function("document.querySelectorAll('main canvas').length === 3")
    text = page.locator("main").inner_text()
    assert "Net benefit" in text
    assert re.search(r"Own accuracy\s+\d+\.\d% without its prior", text)
    assert page.get_by_role("table", name="Exchange with other entities").get_by_role("row").count() >= 2


def test_an_entity_on_this_machine_shows_its_deployed_model(
    world: World, visit: Callable[..., Visit], newest: Knowledge
) -> None:
    page = visit(world.url).go(f"/entity/{newest.entity}")
    page.get_by_text(re.compile(r"(that of round 3, the last|that of round \d, the best|up to \d); ")).wait_for()
    assert page.get_by_role("heading", name="Alone and with KUber").count() == 0  # a managed entity has no twin


def test_an_entity_on_this_machine_shows_its_report_on_joining(world: World, visit: Callable[..., Visit]) -> None:
    with HttpRegistry(world.hub.registry, credentials=Credentials()) as records:
        member = records.register("mine")
    page = visit(world.url).go(f"/entity/{member.id}")
    page.get_by_role("heading", name="Accuracy over time").wait_for()
    assert not page.get_by_role("heading", name="Alone and with KUber").is_visible()
    better = ReportRow(label="a", samples=1200, alone=0.5, joined=0.75, low=0.05, high=0.45)
    worse = replace(better, label="<b>", samples=8, joined=0.25, low=-0.4, high=-0.1)
    noise = replace(better, low=-0.1)
    report = JoiningReport(rounds=8, accuracy=better, balanced=noise, classes=(noise, worse))
    log = world.folder / "entities" / "mine" / "events.jsonl"  # of the folder in which the dashboard was started
    log.parent.mkdir(exist_ok=True)
    lines = [
        encode_event(
            Event(time=datetime.now(UTC), entity="mine", seq=0, round=0, kind="joined", detail={"id": member.id})
        ),
        encode_event(
            Event(time=datetime.now(UTC), entity="mine", seq=1, round=8, kind="compared", detail=report.as_dict())
        ),
    ]
    log.write_text("\n".join([*lines, ""]), encoding="utf-8")
    table = page.get_by_role("table", name="Alone and with KUber")
    table.wait_for()
    assert "After 8 rounds, on 1,200 samples of its own; compared" in page.locator("main").inner_text()
    rows = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    assert rows == [
        ["accuracy", "1,200", "50.0%", "75.0%", "+25.0", "+5.0 to +45.0", "better"],
        ["balanced accuracy", "1,200", "50.0%", "75.0%", "+25.0", "-10.0 to +45.0", "within noise"],
        ["class a", "1,200", "50.0%", "75.0%", "+25.0", "-10.0 to +45.0", "within noise"],
        ["class <b>", "8", "50.0%", "25.0%", "-25.0", "-40.0 to -10.0", "worse"],
    ]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/entity/nobody", "The hub has no entity nobody."),
        ("/knowledge/nothing", "The registry has no knowledge 'nothing'."),
        ("/lineage?delivery=99999999", "The hub has no delivery 99999999."),
    ],
)
def test_something_missing_is_reported_in_one_sentence(
    world: World, visit: Callable[..., Visit], path: str, sentence: str
) -> None:
    visit(world.url).go(path).get_by_text(sentence).wait_for()


@pytest.mark.parametrize("path", ["/?page=", "/lineage?delivery="])
def test_an_invalid_number_is_ignored(world: World, visit: Callable[..., Visit], path: str) -> None:
    visit(world.url).go(f"{path}{'9' * 5000}").get_by_role("table").first.wait_for()


@pytest.mark.parametrize(("text", "found"), [("7", 7), ("9" * 5000, 1), ("²", 1), ("-1", 1), ("x", 1), ("", 1)])
def test_a_number_in_an_address_is_parsed_or_replaced_by_the_default(text: str, found: int) -> None:
    assert parse_number(text, 1) == found


def test_an_unknown_address_is_404_and_links_to_the_overview(world: World, visit: Callable[..., Visit]) -> None:
    tab = visit(world.url)
    answer = tab.page.goto(f"{world.url}/nowhere")
    assert answer is not None
    assert answer.status == 404
    tab.page.get_by_role("heading", name="Page not found").wait_for()
    tab.page.get_by_role("main").get_by_role("link", name="Overview").click()
    tab.page.get_by_role("table", name="Entities").wait_for()
    assert tab.faults  # the browser logs the 404
    tab.faults.clear()


def test_times_are_in_the_browsers_time_zone(world: World, visit: Callable[..., Visit], newest: Knowledge) -> None:
    times = []
    for zone in ("Asia/Tokyo", "America/New_York"):
        page = visit(world.url, timezone_id=zone, locale="en-GB").go(f"/knowledge/{newest.id}")
        time = page.locator("main time").first
        time.wait_for()
        times.append((time.get_attribute("datetime"), time.inner_text()))
    assert times[0][0] == times[1][0]
    assert times[0][1].endswith("GMT+9")
    assert times[1][1].endswith(("GMT-5", "GMT-4"))


def test_colours_follow_the_switch(world: World, visit: Callable[..., Visit]) -> None:
    page = visit(world.url).go("/")
    page.wait_for_selector("main canvas")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Colours: Auto").click()
    page.get_by_role("button", name="Colours: Light").click()
    page.get_by_role("button", name="Colours: Dark").wait_for()
    page.wait_for_function(f"{background} !== 'rgb(255, 255, 255)'")


def test_the_keyboard_suffices(world: World, visit: Callable[..., Visit]) -> None:
    page = visit(world.url).go("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to main content"
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.classList.contains('nicegui-content')")
    header = page.get_by_role("columnheader", name="Accuracy")
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('th[aria-sort=descending]')?.innerText.startsWith('Accuracy')")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"  # it stays where it was

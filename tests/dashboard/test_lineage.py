"""The lineage in a real browser: select a delivery in the chart, in the table, by keyboard, by address."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from kuber.client.credentials import Credentials
from kuber.client.event_stream import EventReader
from kuber.client.registry import HttpRegistry
from kuber.dashboard.lineage_chart import WINDOW
from kuber.domain.auth import AuditEntry
from kuber.domain.delivery import Delivery

from .browser import Visit
from .site import World


@pytest.fixture(scope="module")
def deliveries(world: World) -> dict[int, AuditEntry]:
    """The hub's deliveries, by event number."""
    found: dict[int, AuditEntry] = {}

    def take(number: int, entry: AuditEntry) -> None:
        if entry.act == "deliver":
            found[number] = entry

    with HttpRegistry(world.hub.registry, credentials=Credentials(token=world.hub.operator)) as registry:
        EventReader(registry, take).read()
    return found


def details(page: Page) -> str:
    return page.locator(".k-detail").inner_text()


def test_a_delivery_is_shown_with_all_details(
    world: World, visit: Callable[..., Visit], deliveries: dict[int, AuditEntry]
) -> None:
    number, entry = list(deliveries.items())[-1]
    page = visit(world.url).go(f"/lineage?delivery={number}")
    page.get_by_role("heading", name=f"Delivery {number}").wait_for()
    detail = entry.detail
    text = details(page)
    result = page.locator(".k-detail dt", has_text="Result").locator("xpath=following-sibling::dd").inner_text()
    assert result.startswith("kept" if detail["kept"] else "not kept")
    assert f"{detail['accuracy_before']:.1%} before, {detail['accuracy_after']:.1%} after" in text
    assert detail["method"] in text
    assert detail["reason"] in text
    assert page.locator(".k-detail a").count() == 1 + len(detail["teachers"])


def test_the_keyboard_selects_a_delivery_in_the_table(
    world: World, visit: Callable[..., Visit], deliveries: dict[int, AuditEntry]
) -> None:
    page = visit(world.url).go("/lineage")
    page.get_by_role("link", name="details").first.focus()
    page.keyboard.press("Enter")
    newest = max(deliveries)
    page.get_by_role("heading", name=f"Delivery {newest}").wait_for()
    page.wait_for_url(f"**delivery={newest}")
    chosen = page.locator("tr.chosen")
    assert chosen.get_attribute("data-key") == str(newest)


def test_a_click_in_the_chart_selects_a_delivery(
    world: World, visit: Callable[..., Visit], deliveries: dict[int, AuditEntry]
) -> None:
    page = visit(world.url).go("/lineage")
    page.wait_for_selector("main canvas")
    number, entry = next(iter(deliveries.items()))
    kind = "kept" if entry.detail["kept"] else "undone"
    # Ask the chart where it has drawn the delivery.
    place = page.evaluate(
        """([kind, number]) => {
            const box = document.querySelector(".nicegui-echart");
            const chart = getElement(Number(box.id.slice(1))).chart;
            const series = chart.getOption().series.findIndex((one) => one.id === kind);
            const point = chart.getOption().series[series].data.find((one) => one.value[2] === number);
            const [x, y] = chart.convertToPixel({ seriesIndex: series }, point.value.slice(0, 2));
            const { left, top } = box.getBoundingClientRect();
            return [left + x, top + y];
        }""",
        [kind, number],
    )
    page.mouse.click(*place)
    page.get_by_role("heading", name=f"Delivery {number}").wait_for()
    page.wait_for_url(f"**delivery={number}")


def test_filters_by_entity_and_result(
    world: World, visit: Callable[..., Visit], deliveries: dict[int, AuditEntry]
) -> None:
    kept = {number for number, entry in deliveries.items() if entry.detail["kept"]}
    page = visit(world.url).go("/lineage")
    page.get_by_text(f"{len(deliveries)} deliveries", exact=True).wait_for()
    page.get_by_label("Result").select_option("kept")
    page.get_by_text(f"{len(kept)} deliveries", exact=True).wait_for()
    assert {int(row.get_attribute("data-key") or 0) for row in page.locator("tr[data-key]").all()} <= kept
    page.get_by_label("Result").select_option("")
    with HttpRegistry(world.hub.registry) as registry:
        registry.register("a new ward")
    page.get_by_role("combobox", name="Entity").select_option(label="a new ward")
    page.get_by_text("0 deliveries", exact=True).wait_for()
    again = visit(world.url)
    again.page.goto(page.url)
    again.page.get_by_text("0 deliveries", exact=True).wait_for()
    again.page.get_by_text("No deliveries yet.").wait_for()


ZOOM = """() => {
    const box = document.querySelector(".nicegui-echart");
    const zoom = getElement(Number(box.id.slice(1))).chart.getOption().dataZoom[0];
    return zoom ? [Math.round(zoom.start), Math.round(zoom.end)] : [0, 0];
}"""


def test_the_zoom_stays_where_the_user_moved_it(
    world: World, visit: Callable[..., Visit], deliveries: dict[int, AuditEntry]
) -> None:
    teacher = next(iter(deliveries.values())).detail["teachers"][0]
    page = visit(world.url).go("/lineage")
    page.wait_for_selector("main canvas")
    with HttpRegistry(world.hub.registry) as registry:
        student = registry.register("late student").id
        detail = {"method": "merge", "accuracy_before": 0.1, "accuracy_after": 0.2, "kept": True}

        def learn(round: int) -> None:
            registry.record(
                Delivery(student=student, teachers=(teacher,), round=round, **detail), key=f"late {round}"
            )

        for round in range(WINDOW + 10):
            learn(round)
        page.wait_for_function(f"({ZOOM})()[1] > 0")  # where it begins depends on how many the first drawing had
        page.evaluate("""() => {
            const box = document.querySelector(".nicegui-echart");
            getElement(Number(box.id.slice(1))).chart.dispatchAction({ type: "dataZoom", start: 0, end: 50 });
        }""")
        learn(WINDOW + 11)
        page.get_by_text(f"{len(deliveries) + WINDOW + 11} deliveries, page").wait_for()
        page.wait_for_timeout(1500)  # the chart is updated once a second
    assert page.evaluate(ZOOM) == [0, 50]

"""The table of knowledge in a real browser: search, filters, sorting, pages, addresses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kuber.client.credentials import Credentials
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from tests.fixtures.hub import SigningRegistry, running_hub
from tests.fixtures.samples import Samples

from .browser import Visit
from .site import dashboard, shows

MANY = 30


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Knowledge]]]:
    """URL of a dashboard on a hub with MANY records of two entities, and the records, oldest first."""
    folder = tmp_path_factory.mktemp("many")
    samples = Samples()
    records = []
    with running_hub(folder, "--open-enrolment") as hub, dashboard(folder, *shows(hub, folder)) as url:
        for name in ("north", "south"):
            me = Credentials()
            with (
                SigningRegistry(hub.registry, credentials=me) as registry,
                HttpVault(hub.vault, credentials=me) as vault,
            ):
                member = registry.register(name)
                for number in range(MANY // 2):
                    evaluation = samples.evaluation(number, 40 if name == "north" else 80)
                    draft = samples.draft(member.id, vault.put(samples.weights()), evaluation=evaluation)
                    records.append(registry.publish(draft, key=f"{name}-{number}"))
        yield url, records


def rows(visit: Visit) -> list[str]:
    """Return the shortened ids that the table shows."""
    return visit.page.locator("tbody th[data-column=id]").all_inner_texts()


def short(records: list[Knowledge]) -> list[str]:
    return [record.id[-12:] for record in records]


def test_search_filters_sorting_and_pages(many: tuple[str, list[Knowledge]], visit: Callable[..., Visit]) -> None:
    url, records = many
    tab = visit(url)
    page = tab.go("/knowledge")
    page.get_by_text(f"{MANY} of {MANY} records, page 1 of 2").wait_for()
    assert rows(tab) == short(records[::-1][:25])
    page.get_by_role("button", name="Next").click()
    page.get_by_text("page 2 of 2").wait_for()
    assert rows(tab) == short(records[::-1][25:])

    page.get_by_role("combobox", name="Entity").select_option(label="north")
    page.get_by_text(f"{MANY // 2} of {MANY} records").wait_for()
    page.get_by_role("columnheader", name="Claimed").get_by_role("button").click()
    page.wait_for_selector("th[aria-sort=descending]:has-text('Claimed')")
    north = records[: MANY // 2]
    best = sorted(north, key=lambda record: record.evaluation.accuracy, reverse=True)
    assert rows(tab) == short(best)

    page.get_by_label("Search").fill(records[3].id[-12:])
    page.get_by_text(f"1 of {MANY} records").wait_for()
    assert rows(tab) == short([records[3]])
    page.get_by_label("Search").fill("no such thing")
    page.get_by_text("No record matches.").wait_for()


def test_the_address_restores_the_page(many: tuple[str, list[Knowledge]], visit: Callable[..., Visit]) -> None:
    url, _ = many
    first = visit(url)
    page = first.go("/knowledge")
    page.get_by_label("Search").fill("south")
    page.get_by_role("columnheader", name="Claimed").get_by_role("button").click()
    page.wait_for_url("**q=south*sort=claimed*")
    page.wait_for_selector("th[aria-sort=descending]:has-text('Claimed')")
    second = visit(url)
    second.go(page.url.removeprefix(url))
    second.page.get_by_text(f"{MANY // 2} of {MANY} records").wait_for()
    assert rows(second) == rows(first)
    assert second.page.get_by_label("Search").input_value() == "south"
    second.page.locator("tbody a").first.click()
    second.page.get_by_role("heading", name="Record").wait_for()
    second.page.wait_for_url("**/knowledge/*")  # set after the page was drawn
    second.page.go_back()
    second.page.get_by_text(f"{MANY // 2} of {MANY} records").wait_for()
    # The navigation link opens the page without the earlier choices.
    second.page.get_by_role("link", name="Knowledge").click()
    second.page.get_by_text(f"{MANY} of {MANY} records").wait_for()


def test_invalid_parts_of_an_address_are_ignored(
    many: tuple[str, list[Knowledge]], visit: Callable[..., Visit]
) -> None:
    url, _ = many
    page = visit(url).go("/knowledge?page=-3&sort=<script>&show=nothing&up=7&task=%22%3E")
    page.get_by_text("No record matches.").wait_for()


def test_names_are_never_parsed_as_html(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    evil = "<img src=x onerror=alert(1)>${alert(1)}{{ 7 * 7 }}`"
    me = Credentials()
    with running_hub(tmp_path, "--open-enrolment") as hub, dashboard(tmp_path, *shows(hub, tmp_path)) as url:
        with SigningRegistry(hub.registry, credentials=me) as registry:
            registry.register(evil)
        page = visit(url).go("/")
        page.get_by_role("link", name=evil).wait_for()
        assert page.locator("img").count() == 0
        page.get_by_role("link", name=evil).click()
        page.get_by_role("heading", name=evil).wait_for()
        page.go_back()
        page.get_by_role("link", name=evil).wait_for()
        assert page.locator("img").count() == 0

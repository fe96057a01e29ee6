"""Reading needs no token; withdrawing and quarantining need the operator's, and take effect at the hub."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page

from kuber.client.admin import AdminClient
from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Standing
from tests.fixtures.hub import Hub, SigningRegistry, running_hub
from tests.fixtures.samples import Samples

from .browser import Visit
from .site import dashboard, shows


@dataclass(frozen=True)
class Desk:
    """A dashboard, its hub, and a function that publishes another record."""

    url: str
    hub: Hub
    publish: Callable[[], Knowledge]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    samples, me = Samples(), Credentials()
    with (
        running_hub(folder, "--open-enrolment") as hub,
        dashboard(folder, *shows(hub, folder)) as url,
        SigningRegistry(hub.registry, credentials=me) as registry,
        HttpVault(hub.vault, credentials=me) as vault,
    ):
        member = registry.register("publisher")

        def publish() -> Knowledge:
            weights = vault.put(samples.weights())
            return registry.publish(samples.draft(member.id, weights), key=weights.digest.hex)

        yield Desk(url=url, hub=hub, publish=publish)


def found(desk: Desk, id: str) -> Knowledge:
    with HttpRegistry(desk.hub.registry, credentials=Credentials(token=desk.hub.operator)) as registry:
        return registry.knowledge(id)


def show_token(page: Page, token: str) -> None:
    page.get_by_role("button", name="Read-only").click()
    page.get_by_label("Operator's token").fill(token)
    page.get_by_role("button", name="Act as operator").click()


def open_record(page: Page, id: str) -> None:
    """Open a record without a reload, which would forget the token."""
    page.get_by_role("link", name="Knowledge").click()
    page.get_by_role("link", name=id[-12:]).click()
    page.get_by_role("heading", name=f"Record {id[-12:]}").wait_for()


def test_without_the_token_there_are_no_actions(desk: Desk, visit: Callable[..., Visit]) -> None:
    record = desk.publish()
    page = visit(desk.url).go(f"/knowledge/{record.id}")
    page.get_by_text("Ed25519").wait_for()
    for act in ("Quarantine", "Release", "Withdraw"):
        assert page.get_by_role("button", name=act).count() == 0


@pytest.mark.parametrize("token", ["wrong", "", "ümlaut"])
def test_a_wrong_token_is_refused_in_one_sentence(desk: Desk, visit: Callable[..., Visit], token: str) -> None:
    page = visit(desk.url).go("/")
    show_token(page, token)
    alert = page.get_by_role("alert").filter(has_text="token")
    alert.wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Read-only").wait_for()


def test_the_operator_quarantines_releases_and_withdraws(desk: Desk, visit: Callable[..., Visit]) -> None:
    record = desk.publish()
    page = visit(desk.url).go("/")
    show_token(page, desk.hub.operator)
    page.get_by_role("button", name="Stop acting as operator").wait_for()
    open_record(page, record.id)

    acts, dialog = page.get_by_role("group", name="Operator actions"), page.get_by_role("dialog")
    acts.get_by_role("button", name="Quarantine").click()
    dialog.get_by_role("button", name="Quarantine").click()
    dialog.get_by_role("alert").filter(has_text="Enter a reason").wait_for()
    assert found(desk, record.id).verification is None
    dialog.get_by_label("Reason, in one sentence").fill("It answers <b>oddly</b>.")
    dialog.get_by_role("button", name="Quarantine").click()
    page.get_by_text("It answers <b>oddly</b>.").wait_for()
    verification = found(desk, record.id).verification
    assert verification is not None
    assert verification.standing is Standing.QUARANTINED

    acts.get_by_role("button", name="Release").click()
    dialog.get_by_role("button", name="Release").click()
    page.get_by_text("not verified").wait_for()
    assert found(desk, record.id).verification is None

    acts.get_by_role("button", name="Withdraw").click()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="hidden")
    acts.get_by_role("button", name="Withdraw").click()
    dialog.get_by_role("button", name="Withdraw").click()
    page.locator("dd").get_by_text("withdrawn").wait_for()
    assert acts.count() == 0

    page.get_by_role("link", name="Knowledge").click()
    page.get_by_label("Show").select_option("withdrawn")
    page.get_by_role("link", name=record.id[-12:]).wait_for()


def test_an_open_page_follows_decisions_of_others(desk: Desk, visit: Callable[..., Visit]) -> None:
    record = desk.publish()
    page = visit(desk.url).go(f"/knowledge/{record.id}")
    page.get_by_text("not verified").wait_for()
    with AdminClient(desk.hub.registry, desk.hub.operator) as operator:
        for reason in ("It was found odd.", "It was found worse."):
            operator.quarantine(record.id, reason)
            page.get_by_text(reason).wait_for()


def test_signing_in_works_on_the_page_of_a_missing_record(desk: Desk, visit: Callable[..., Visit]) -> None:
    page = visit(desk.url).go("/knowledge/nothing")
    page.get_by_text("The registry has no knowledge 'nothing'.").wait_for()
    show_token(page, desk.hub.operator)
    page.get_by_role("button", name="Stop acting as operator").wait_for()


def test_the_token_is_forgotten_with_the_tab(desk: Desk, visit: Callable[..., Visit]) -> None:
    tab = visit(desk.url)
    page = tab.go("/")
    show_token(page, desk.hub.operator)
    page.get_by_role("button", name="Stop acting as operator").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    show_token(page, desk.hub.operator)
    page.get_by_role("button", name="Stop acting as operator").wait_for()
    page.reload()
    page.get_by_role("button", name="Read-only").wait_for()
    assert desk.hub.operator not in page.content()

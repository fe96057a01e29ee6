"""What the operator does to a record: quarantine it, release it, withdraw it; each is asked about once more."""

import asyncio
from collections.abc import Callable

from nicegui import ui
from nicegui.element import Element

from kuber.client.operator import Operator
from kuber.dashboard.elements.controls import SEND, button, form_field
from kuber.dashboard.elements.words import words
from kuber.dashboard.visit import Visit
from kuber.domain.knowledge import Knowledge
from kuber.errors import KUberError

Act = Callable[[Operator, str], None]  # with the reason that was given


def record_actions(visit: Visit, record: Knowledge, state: str) -> list[ui.dialog]:
    """The buttons that fit the record's state, and their dialogs; none for a reader who is not the operator."""
    if visit.token is None or state == "withdrawn":
        return []
    dialogs: list[ui.dialog] = []
    with Element("div").classes("k-row").props('role="group" aria-label="Acts of the operator"'):
        if state == "quarantined":
            sentence = "The record can be found again, and the verifier looks at it once more."
            dialogs += _act(visit, "Release", sentence, lambda operator, _: operator.release(record.id))
        else:
            sentence = "Nobody finds the record any more until it is released."
            dialogs += _act(
                visit, "Quarantine", sentence, lambda operator, why: operator.quarantine(record.id, why), asks=True
            )
        sentence = "Nobody finds the record any more, and its files are no longer kept for it. This cannot be undone."
        dialogs += _act(visit, "Withdraw", sentence, lambda operator, _: operator.withdraw(record.id))
    return dialogs


def _act(visit: Visit, name: str, sentence: str, act: Act, *, asks: bool = False) -> list[ui.dialog]:
    """A button, and the question behind it."""
    with ui.dialog() as dialog, Element("form").classes("k-dialog") as form:
        heading = words("h2", f"{name} this record?")
        dialog.props["aria-labelledby"] = heading.html_id
        words("p", sentence)
        if asks:
            form_field("Why, in a sentence", maxlength="200")
        fault = words("p", "").classes("k-fault").props("role=alert")
        with Element("div").classes("k-row"):
            send = words("button", name).classes("k-button danger").props("type=submit")
            button("Cancel", dialog.close, kind="quiet")

    async def send_it(told: str) -> None:
        if asks and not told:
            fault.set_text("Say why: whoever published it is told.")
            return
        send.props["disabled"] = True
        try:
            await asyncio.to_thread(_do, visit, act, told)
        except KUberError as error:
            fault.set_text(error.message)
            return
        finally:
            send.props["disabled"] = False
        dialog.close()

    form.on("submit", lambda event: send_it(str(event.args).strip()), js_handler=SEND)
    button(name, dialog.open, kind="danger").props('aria-haspopup="dialog"')
    return [dialog]


def _do(visit: Visit, act: Act, reason: str) -> None:
    assert visit.token is not None
    with visit.site.source.operator(visit.token) as operator:
        act(operator, reason)

"""The operator's actions on a record, each with a confirmation: quarantine, release, withdraw."""

from collections.abc import Callable

from nicegui.element import Element

from kuber.client.admin import AdminClient
from kuber.dashboard.elements.confirm_dialog import ConfirmDialog
from kuber.dashboard.elements.controls import button
from kuber.dashboard.session import TabSession
from kuber.domain.knowledge import Knowledge

Action = Callable[[AdminClient, str], None]  # called with the reason


def record_actions(session: TabSession, record: Knowledge, state: str) -> list[ConfirmDialog]:
    """Add the buttons that fit the record's state, if the session acts as the operator; return their dialogs."""
    if session.token is None or state == "withdrawn":
        return []
    token = session.token
    dialogs: list[ConfirmDialog] = []

    def offer(name: str, sentence: str, action: Action, *, needs_reason: bool = False) -> None:
        def run(reason: str) -> None:
            with session.context.reader.operator(token) as operator:
                action(operator, reason)

        dialog = ConfirmDialog(
            f"{name} this record?",
            sentence,
            label=name,
            action=run,
            field="Reason, in one sentence" if needs_reason else None,
            required="Enter a reason; the publisher can read it." if needs_reason else None,
            kind="danger",
            maxlength="200",
        )
        button(name, dialog.open, kind="danger").props('aria-haspopup="dialog"')
        dialogs.append(dialog)

    with Element("div").classes("k-row").props('role="group" aria-label="Operator actions"'):
        if state == "quarantined":
            sentence = "Discovery returns the record again, and the verifier evaluates it again."
            offer("Release", sentence, lambda operator, _: operator.release(record.id))
        else:
            sentence = "Discovery no longer returns the record until you release it."
            offer(
                "Quarantine",
                sentence,
                lambda operator, reason: operator.quarantine(record.id, reason),
                needs_reason=True,
            )
        sentence = "Discovery no longer returns the record, and its files may be deleted. This cannot be undone."
        offer("Withdraw", sentence, lambda operator, _: operator.withdraw(record.id))
    return dialogs

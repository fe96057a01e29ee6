"""What the operator does to a record: quarantine it, release it, withdraw it; each is asked about once more."""

from collections.abc import Callable

from nicegui.element import Element

from kuber.client.admin import AdminClient
from kuber.dashboard.elements.confirm_dialog import ConfirmDialog
from kuber.dashboard.elements.controls import button
from kuber.dashboard.session import TabSession
from kuber.domain.knowledge import Knowledge

Act = Callable[[AdminClient, str], None]  # with the reason that was given


def record_actions(visit: TabSession, record: Knowledge, state: str) -> list[ConfirmDialog]:
    """The buttons that fit the record's state, and their questions; none for a reader who is not the operator."""
    if visit.token is None or state == "withdrawn":
        return []
    token = visit.token
    questions: list[ConfirmDialog] = []

    def offer(name: str, sentence: str, act: Act, *, asks: bool = False) -> None:
        def do(reason: str) -> None:
            with visit.site.source.operator(token) as operator:
                act(operator, reason)

        question = ConfirmDialog(
            f"{name} this record?",
            sentence,
            does=name,
            act=do,
            field="Why, in a sentence" if asks else None,
            missing="Say why: whoever published it is told." if asks else None,
            kind="danger",
            maxlength="200",
        )
        button(name, question.open, kind="danger").props('aria-haspopup="dialog"')
        questions.append(question)

    with Element("div").classes("k-row").props('role="group" aria-label="Acts of the operator"'):
        if state == "quarantined":
            sentence = "The record can be found again, and the verifier looks at it once more."
            offer("Release", sentence, lambda operator, _: operator.release(record.id))
        else:
            sentence = "Nobody finds the record any more until it is released."
            offer("Quarantine", sentence, lambda operator, why: operator.quarantine(record.id, why), asks=True)
        sentence = "Nobody finds the record any more, and its files are no longer kept for it. This cannot be undone."
        offer("Withdraw", sentence, lambda operator, _: operator.withdraw(record.id))
    return questions

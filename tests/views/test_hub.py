"""The state of a hub after its events."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.domain.auth import AuditEntry
from kuber.views.formatting import ago, sparkline
from kuber.views.hub import HubView

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def entry(seconds: float, actor: str, act: str, subject: str, /, **detail: Any) -> AuditEntry:
    return AuditEntry(time=START + timedelta(seconds=seconds), actor=actor, act=act, subject=subject, detail=detail)


def delivery(
    seconds: float, student: str, teachers: list[str], before: float, after: float, *, kept: bool
) -> AuditEntry:
    detail = {"method": "guide", "round": 3, "accuracy_before": before, "accuracy_after": after, "kept": kept}
    return entry(seconds, student, "deliver", teachers[0], teachers=teachers, **detail)


def view_of(*entries: AuditEntry) -> HubView:
    view = HubView()
    for number, event in enumerate(entries, start=1):
        view.apply(number, event)
    return view


JOINED = [entry(0, "a", "enrol", "10"), entry(1, "b", "enrol", "9"), entry(2, "c", "enrol", "x")]


def test_a_report_sets_round_and_accuracy() -> None:
    reports = [entry(10 * n, "a", "report", "a", round=n, correct=[n, 1], total=[10, 10]) for n in (1, 2)]
    entity = view_of(*JOINED, *reports, entry(30, "a", "report", "a", round=3)).entities["a"]
    assert (entity.correct, entity.total) == ((2, 1), (10, 10))
    assert (entity.name, entity.round, entity.accuracy) == ("10", 3, pytest.approx(0.15))
    assert [(round, accuracy) for _, round, accuracy in entity.curve] == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.15)),
    ]
    assert entity.seen == START + timedelta(seconds=30)


def test_a_report_on_many_classes_leaves_only_the_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kuber.views.hub.MAX_CLASSES", 2)
    for counts, total in (([1, 1, 1], [2, 2, 2]), ([3], [6])):
        entity = view_of(*JOINED, entry(3, "a", "report", "a", round=1, correct=counts, total=total)).entities["a"]
        assert (entity.correct, entity.total, entity.accuracy) == ((), (), 0.5)
    omitted = view_of(*JOINED, entry(3, "a", "report", "a", omitted=5_000_000)).entities["a"]
    assert (omitted.round, omitted.accuracy) == (0, None)


def test_deliveries_of_many_teachers_are_kept_up_to_a_number_of_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kuber.views.hub.MAX_TEACHERS", 10)
    view = view_of(*JOINED, *(delivery(n, "a", ["x", "y", "z"], 0.1, 0.2, kept=True) for n in range(3, 9)))
    assert [found.number for found in view.deliveries] == [7, 8, 9]
    assert (view.kept, view.teachers) == (6, 9)


def test_the_gain_of_a_kept_delivery_is_shared_among_its_teachers() -> None:
    view = view_of(
        *JOINED,
        entry(3, "b", "publish", "kb", round=1, accuracy=0.5),
        entry(4, "c", "publish", "kc", round=2, accuracy=0.4),
        delivery(5, "a", ["kb", "kc", "unknown"], 0.2, 0.3, kept=True),
        delivery(6, "a", ["kb"], 0.3, 0.1, kept=False),
    )
    student, teacher = view.entities["a"], view.entities["b"]
    assert (student.absorbed, student.declined, student.taught) == (1, 1, 0)
    assert student.gained == pytest.approx(0.1)
    assert (teacher.published, teacher.taught, teacher.round) == (1, 1, 1)
    assert teacher.gave == pytest.approx(0.05)
    assert (view.delivered, view.kept, dict(view.taught)) == (2, 1, {("b", "a"): 1, ("c", "a"): 1})
    assert view.deliveries[0].publishers == ("b", "c")
    assert view.deliveries[0].teachers == ("kb", "kc", "unknown")
    assert [found.number for found in view.deliveries] == [6, 7]
    assert [(mark.kind, mark.accuracy) for mark in student.marks] == [("kept", 0.3), ("undone", 0.1)]


def test_withdrawn_and_quarantined_records_are_not_discoverable() -> None:
    published = [entry(3, "b", "publish", name) for name in ("k1", "k2", "k3")]
    view = view_of(*JOINED, *published)
    assert view.discoverable == 3
    view.apply(7, entry(4, "b", "withdraw", "k1"))
    view.apply(8, entry(5, "verifier", "quarantined", "k2"))
    view.apply(9, entry(6, "verifier", "verified", "k3"))
    assert view.discoverable == 1
    view.apply(10, entry(7, "verifier", "verified", "k2", accuracy=0.3))  # verified again
    assert view.discoverable == 2
    assert (view.records["k2"].found, view.records["k2"].state) == (0.3, "verified")


def test_a_released_record_has_its_former_standing() -> None:
    view = view_of(*JOINED, *(entry(3, "b", "publish", name) for name in ("k1", "k2")))
    view.apply(6, entry(4, "verifier", "verified", "k1", accuracy=0.5))
    for number, name in enumerate(("k1", "k2"), start=7):
        view.apply(number, entry(5, "admin", "quarantined", name, reason="It is odd."))
    assert view.discoverable == 0
    view.apply(9, entry(6, "admin", "released", "k1", standing="verified"))
    view.apply(10, entry(6, "admin", "released", "k2"))
    assert [record.state for record in view.records.values()] == ["verified", "pending"]
    assert view.records["k1"].found == 0.5
    view.apply(11, entry(7, "admin", "released", "unknown"))
    assert view.discoverable == 2
    view.apply(12, entry(8, "verifier", "quarantined", "k2", accuracy=0.1))
    view.apply(13, entry(9, "admin", "released", "k2"))  # the verifier's finding is withdrawn with its quarantine
    assert (view.records["k2"].state, view.records["k2"].found, view.records["k2"].judgements) == ("pending", None, 4)


def test_a_record_holds_the_details_of_its_publication() -> None:
    detail = {"round": 2, "accuracy": 0.25, "task": "ecg", "architecture": "cnn", "bytes": 1200}
    view = view_of(*JOINED, entry(3, "b", "publish", "k1", **detail), entry(4, "b", "publish", "k2", bytes=800))
    record = view.records["k1"]
    assert (record.publisher, record.name, record.round) == ("b", "9", 2)
    assert (record.claimed, record.task, record.bytes) == (0.25, "ecg", 1200)
    assert (view.bytes, view.entities["b"].newest) == (2000, "k2")
    marks = [(mark.kind, mark.accuracy) for mark in view.entities["b"].marks]
    assert marks == [("published", 0.25)]


def test_applying_an_event_again_changes_nothing() -> None:
    view = view_of(*JOINED, entry(3, "b", "publish", "k1"))
    view.apply(4, entry(3, "b", "publish", "k1"))
    view.apply(2, entry(1, "b", "enrol", "9"))
    assert (len(view.entities), view.entities["b"].published, view.discoverable, view.last) == (3, 1, 1, 4)


def test_a_delivery_without_details_is_counted() -> None:
    view = view_of(*JOINED, entry(3, "a", "deliver", "k1"), entry(4, "nobody", "deliver", "k1", teachers=["k1"]))
    assert (view.delivered, view.kept, len(view.deliveries)) == (2, 0, 0)


def test_names_are_sorted_naturally() -> None:
    assert list(view_of(*JOINED).names.items()) == [("b", "9"), ("a", "10"), ("c", "x")]


def test_offline_entities_come_last() -> None:
    view = view_of(*JOINED, entry(400, "a", "report", "a", round=1))
    now = START + timedelta(seconds=420)
    assert [entity.name for entity in view.ranked(now)] == ["10", "9", "x"]
    assert [entity.name for entity in view.ranked(START + timedelta(seconds=10))] == ["9", "10", "x"]
    assert [entity.online(now) for entity in view.ranked(now)] == [True, False, False]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "now"), (0.5, "now"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_an_age_has_one_unit(seconds: float, text: str) -> None:
    assert ago(seconds) == text


def test_a_sparkline_is_scaled_to_the_values_that_it_shows() -> None:
    assert sparkline([9, 0, 0.5, 1], width=3) == "▁▅█"
    assert sparkline([0.4, 0.4], width=5) == "▄▄"
    assert sparkline([], width=5) == ""

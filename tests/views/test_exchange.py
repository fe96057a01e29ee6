"""Totals of what entities gave each other: of a run, and between one entity of a hub and its partners."""

from datetime import UTC, datetime

import pytest

from kuber.domain.event import Event
from kuber.views.exchange import EntityExchange, exchanges, partners
from kuber.views.run import RunView

from .test_hub import JOINED, delivery, entry, view_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def joined(name: str) -> Event:
    detail = {"samples": 30, "class_counts": [10, 20], "architecture": "cnn", "device": "cpu", "precision": "float32"}
    return Event(time=NOW, entity=name, seq=0, round=0, kind="joined", detail={"id": f"id-{name}", **detail})


def absorbed(name: str, publishers: list[str], before: float, after: float, *, kept: bool = True) -> Event:
    detail = {"teachers": [f"of-{id}" for id in publishers], "publishers": publishers, "method": "merge"}
    figures = {"before": before, "after": after, "kept": kept, "samples": 0, "forward": 0, "seconds": 1.0}
    return Event(time=NOW, entity=name, seq=1, round=1, kind="absorbed", detail=detail | figures)


def exchanges_after(*events: Event) -> list[EntityExchange]:
    return exchanges(RunView.of([joined("0"), joined("1"), joined("2"), *events], rounds=1))


def test_a_gain_is_shared_equally_among_the_teachers() -> None:
    student, teacher, other = exchanges_after(absorbed("0", ["id-1", "id-2"], 0.2, 0.5))
    assert (student.gained, student.kept, student.gave, student.taught) == (pytest.approx(0.3), 1, 0, 0)
    for entity in (teacher, other):
        assert (entity.gave, entity.taught, entity.gained, entity.kept) == (pytest.approx(0.15), 1, 0, 0)


def test_two_models_of_one_teacher_count_as_one_teacher() -> None:
    _, teacher, other = exchanges_after(absorbed("0", ["id-1", "id-1", "id-2"], 0.2, 0.5))
    assert (teacher.gave, teacher.taught) == (pytest.approx(0.15), 1)
    assert (other.gave, other.taught) == (pytest.approx(0.15), 1)


def test_a_declined_delivery_gives_nothing() -> None:
    student, teacher, _ = exchanges_after(absorbed("0", ["id-1"], 0.2, 0.1, kept=False))
    assert (student.declined, student.kept, student.gained) == (1, 0, 0)
    assert (teacher.taught, teacher.gave) == (0, 0)


def test_a_kept_loss_counts_too() -> None:
    student, teacher, _ = exchanges_after(absorbed("0", ["id-1"], 0.2, 0.4), absorbed("0", ["id-1"], 0.4, 0.35))
    assert (student.gained, teacher.gave, teacher.taught) == (pytest.approx(0.15), pytest.approx(0.15), 2)


def test_a_teacher_that_is_not_in_the_view_takes_its_share() -> None:
    _, teacher, _ = exchanges_after(absorbed("0", ["id-1", "somebody"], 0.2, 0.4))
    assert teacher.gave == pytest.approx(0.1)


def test_entities_keep_their_order_and_publications_are_counted() -> None:
    published = Event(
        time=NOW, entity="2", seq=1, round=1, kind="published", detail={"knowledge": "k", "digest": "d", "bytes": 1}
    )
    evaluated = Event(
        time=NOW,
        entity="2",
        seq=0,
        round=1,
        kind="evaluated",
        detail={"stage": "trained", "correct": [1, 1], "total": [2, 2], "accuracy": 0.5, "seconds": 1.0},
    )
    found = exchanges_after(evaluated, published)
    assert [(exchange.entity, exchange.published) for exchange in found] == [("0", 0), ("1", 0), ("2", 1)]


def test_gains_are_counted_for_each_partner_and_shared_among_teachers() -> None:
    view = view_of(
        *JOINED,
        entry(3, "b", "publish", "kb", round=1),
        entry(4, "c", "publish", "kc", round=1),
        entry(4, "a", "publish", "ka", round=1),
        delivery(5, "a", ["kb", "kc"], 0.2, 0.3, kept=True),
        delivery(6, "a", ["kb"], 0.3, 0.1, kept=False),
        delivery(7, "b", ["ka"], 0.5, 0.7, kept=True),
        delivery(8, "c", ["kb"], 0.1, 0.9, kept=True),
    )
    nine, other = partners(view, "a")
    assert (nine.name, nine.took, nine.gave, nine.undone) == ("9", 1, 1, 1)
    assert (nine.gained, nine.helped) == (pytest.approx(0.05), pytest.approx(0.2))
    assert (other.name, other.took, other.gave, other.undone) == ("x", 1, 0, 0)
    assert other.gained == pytest.approx(0.05)


def test_an_entity_that_exchanged_nothing_has_no_partners() -> None:
    assert partners(view_of(*JOINED), "a") == []

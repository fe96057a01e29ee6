"""What entities gave each other and took."""

from datetime import UTC, datetime

import pytest

from kuber.domain.event import Event
from kuber.views import EntityExchange, RunView, exchanges

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def joined(name: str) -> Event:
    detail = {"samples": 30, "class_counts": [10, 20], "architecture": "cnn", "device": "cpu", "precision": "float32"}
    return Event(time=NOW, entity=name, seq=0, round=0, kind="joined", detail={"id": f"id-{name}", **detail})


def absorbed(name: str, publishers: list[str], before: float, after: float, *, kept: bool = True) -> Event:
    detail = {"teachers": [f"of-{one}" for one in publishers], "publishers": publishers, "method": "merge"}
    figures = {"before": before, "after": after, "kept": kept, "samples": 0, "forward": 0, "seconds": 1.0}
    return Event(time=NOW, entity=name, seq=1, round=1, kind="absorbed", detail=detail | figures)


def told(*events: Event) -> list[EntityExchange]:
    return exchanges(RunView.of([joined("0"), joined("1"), joined("2"), *events], rounds=1))


def test_what_a_delivery_brought_is_shared_equally_among_its_teachers() -> None:
    student, one, other = told(absorbed("0", ["id-1", "id-2"], 0.2, 0.5))
    assert (student.gained, student.kept, student.gave, student.taught) == (pytest.approx(0.3), 1, 0, 0)
    for teacher in (one, other):
        assert (teacher.gave, teacher.taught, teacher.gained, teacher.kept) == (pytest.approx(0.15), 1, 0, 0)


def test_two_models_of_one_teacher_are_one_share() -> None:
    _, one, other = told(absorbed("0", ["id-1", "id-1", "id-2"], 0.2, 0.5))
    assert (one.gave, one.taught) == (pytest.approx(0.15), 1)
    assert (other.gave, other.taught) == (pytest.approx(0.15), 1)


def test_what_was_declined_gave_nothing() -> None:
    student, one, _ = told(absorbed("0", ["id-1"], 0.2, 0.1, kept=False))
    assert (student.declined, student.kept, student.gained) == (1, 0, 0)
    assert (one.taught, one.gave) == (0, 0)


def test_what_was_kept_though_it_fell_counts_too() -> None:
    student, one, _ = told(absorbed("0", ["id-1"], 0.2, 0.4), absorbed("0", ["id-1"], 0.4, 0.35))
    assert (student.gained, one.gave, one.taught) == (pytest.approx(0.15), pytest.approx(0.15), 2)


def test_a_teacher_that_is_not_in_the_view_has_its_share_too() -> None:
    _, one, _ = told(absorbed("0", ["id-1", "somebody"], 0.2, 0.4))
    assert one.gave == pytest.approx(0.1)


def test_the_order_is_that_of_the_entities_and_shares_are_counted() -> None:
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
    found = told(evaluated, published)
    assert [(one.entity, one.shared) for one in found] == [("0", 0), ("1", 0), ("2", 1)]

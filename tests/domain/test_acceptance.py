"""Acceptance: by the owner's objective, and class by class beyond noise."""

import pytest

from kuber.domain.acceptance import AcceptancePolicy, ClassFall, fallen_classes, is_no_worse, objective_of
from kuber.domain.evaluation import Evaluation
from kuber.domain.strategies import Exchange, Merge

from .samples import COMMON, evaluation

POLICY = AcceptancePolicy(noise=1.0, class_tolerance=0.05)


def paired(before: tuple[int, ...], after: tuple[int, ...], total: tuple[int, ...]) -> tuple[Evaluation, Evaluation]:
    """Two evaluations whose right answers are the first ones of each class."""
    return tuple(  # type: ignore[return-value]
        Evaluation(test_set=COMMON, correct=counts, total=total, right=tuple((1 << n) - 1 for n in counts))
        for counts in (before, after)
    )


def test_rare_classes_that_are_destroyed_are_not_kept_although_accuracy_rises():
    """Recurrent nets on waveforms, two sites 90:10."""
    before, after = paired((160, 9, 178, 8, 153), (178, 2, 180, 2, 178), (180, 10, 180, 10, 180))
    assert after.accuracy > before.accuracy
    assert [fall.label for fall in fallen_classes(before, after, POLICY)] == [1, 3]
    assert not is_no_worse(before, after, POLICY)
    assert not is_no_worse(before, after, Exchange().acceptance)
    assert is_no_worse(before, after, AcceptancePolicy(noise=1.0, confidence=None))
    assert not is_no_worse(before, after, AcceptancePolicy(objective="balanced", confidence=None))


def test_the_deepest_fall_comes_first():
    before, after = paired((80, 80, 80), (60, 80, 30), (100, 100, 100))
    assert fallen_classes(before, after, POLICY) == (
        ClassFall(label=2, before=0.8, after=0.3),
        ClassFall(label=0, before=0.8, after=0.6),
    )


def test_a_few_flips_are_noise():
    assert is_no_worse(*paired((180, 9), (180, 8), (200, 10)), POLICY)
    assert is_no_worse(*paired((180, 1), (180, 0), (200, 1)), POLICY)
    assert not is_no_worse(*paired((180, 9), (180, 3), (200, 10)), POLICY)


def test_what_the_policy_tolerates_of_a_class_is_kept():
    before, after = paired((800, 400), (840, 370), (1000, 500))
    assert not is_no_worse(before, after, AcceptancePolicy(class_tolerance=0.05))
    assert is_no_worse(before, after, AcceptancePolicy(class_tolerance=0.1))


def test_a_model_that_begins_may_leave_the_class_that_it_answers_everything_with():
    assert is_no_worse(*paired((100, 0, 0), (50, 40, 40), (100, 100, 100)), POLICY), "at chance nothing is learned"
    assert fallen_classes(*paired((100, 0, 0), (50, 40, 40), (100, 100, 100)), POLICY) == ()


def test_a_class_that_falls_is_made_up_for_by_others():
    before, after = paired((95, 40, 60), (60, 80, 70), (100, 100, 100))
    assert [fall.label for fall in fallen_classes(before, after, POLICY)] == [0], "it is known all the same"
    assert is_no_worse(before, after, POLICY)
    assert not is_no_worse(*paired((95, 40, 60), (60, 62, 72), (100, 100, 100)), POLICY)


def test_without_paired_answers_intervals_decide():
    assert not is_no_worse(evaluation(90, 80), evaluation(95, 60), AcceptancePolicy(tolerance=0.1))
    assert is_no_worse(evaluation(90, 80), evaluation(95, 76), POLICY)


def test_the_objective_is_what_the_owner_cares_for():
    now = evaluation(90, 10)
    assert objective_of(now, AcceptancePolicy()) == 0.5
    assert objective_of(now, AcceptancePolicy(objective="own"), (300, 100)) == pytest.approx(0.7)
    assert objective_of(now, AcceptancePolicy(objective="own"), None) == 0.5
    assert objective_of(now, AcceptancePolicy(objective=lambda found: min(found.recalls))) == 0.1
    skewed = Evaluation(test_set=COMMON, correct=(90, 1, 0), total=(100, 10, 0))
    assert objective_of(skewed, AcceptancePolicy(objective="balanced")) == pytest.approx(0.5)
    assert objective_of(skewed, AcceptancePolicy(objective="own"), (1, 1, 98)) == pytest.approx(0.5)


def test_a_strategy_judges_by_its_objective_and_the_own_class_counts():
    keep = Exchange(acceptance=AcceptancePolicy(objective="own", confidence=None)).keep
    assert keep(evaluation(50, 50), evaluation(60, 30), class_counts=(90, 10))
    assert not keep(evaluation(50, 50), evaluation(60, 30), class_counts=(10, 90))
    assert not Merge().keep(evaluation(50, 50), evaluation(44, 44))


def test_noise_of_the_owners_few_samples_is_tolerated():
    assert is_no_worse(*paired((9,), (8,), (10,)), POLICY)
    assert not is_no_worse(*paired((9,), (6,), (10,)), POLICY)


@pytest.mark.parametrize("wrong", [{"objective": "worst"}, {"confidence": 1.0}, {"confidence": 0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"objective|confidence"):
        AcceptancePolicy(**wrong)

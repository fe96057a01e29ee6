"""Significance of a difference between two evaluations, paired and by counts."""

import pytest

from kuber.domain.evaluation import Evaluation
from kuber.domain.significance import (
    PairedCounts,
    accuracy_has_fallen,
    advantages,
    has_fallen,
    least_loss,
    paired_counts,
    sign_test,
    wilson_interval,
)

from .samples import COMMON, evaluation


def answers(*bits: int, total: int = 8) -> Evaluation:
    """An evaluation of `total` samples of each class, whose right answers are these bits."""
    correct = tuple(each.bit_count() for each in bits)
    return Evaluation(test_set=COMMON, correct=correct, total=(total,) * len(bits), right=bits)


def test_answers_are_paired_sample_by_sample():
    before, after = answers(0b11110000, 0b1), answers(0b00111100, 0b1)
    assert paired_counts(before, after) == (
        PairedCounts(total=8, lost=2, gained=2),
        PairedCounts(total=8, lost=0, gained=0),
    )
    assert paired_counts(before, evaluation(4, 1)) is None, "its answers are not known"
    assert paired_counts(answers(0b1, 0b1), answers(0b1, 0b1, total=9)) is None, "other samples"


@pytest.mark.parametrize(
    ("lost", "gained", "probability"),
    [(0, 0, 1.0), (1, 0, 0.5), (2, 0, 0.25), (5, 0, 1 / 32), (3, 1, 5 / 16), (1, 3, 15 / 16)],
)
def test_the_sign_test_is_exact(lost, gained, probability):
    assert sign_test(lost, gained) == probability


def test_the_sign_test_of_many_disagreements_is_close_to_the_exact_one():
    assert sign_test(560, 441) == pytest.approx(sign_test(559, 441), rel=0.15)
    assert sign_test(5000, 5000) == pytest.approx(0.5, abs=0.01)


def test_one_sample_that_flips_proves_nothing():
    assert not has_fallen(answers(1, total=1), answers(0, total=1), 0, confidence=0.95)
    assert not has_fallen(answers(0b1111), answers(0), 0, confidence=0.95)
    assert has_fallen(answers(0b11111), answers(0), 0, confidence=0.95), "five of five: 1 in 32"


def test_few_samples_suffice_where_answers_are_paired():
    before = Evaluation(test_set=COMMON, correct=(15,), total=(20,))
    after = Evaluation(test_set=COMMON, correct=(9,), total=(20,))
    assert not has_fallen(before, after, 0, confidence=0.99)
    paired = [Evaluation(test_set=COMMON, correct=(n,), total=(20,), right=((1 << n) - 1,)) for n in (15, 8)]
    assert has_fallen(*paired, 0, confidence=0.99)


def test_a_collapse_is_seen_in_counts():
    assert accuracy_has_fallen(evaluation(60, 59), evaluation(1, 1), confidence=0.999)
    assert not accuracy_has_fallen(evaluation(60, 59), evaluation(58, 57), confidence=0.95)
    assert not accuracy_has_fallen(evaluation(10, 10), evaluation(60, 60), confidence=0.95)


def test_advantages_are_measured_class_by_class():
    empty = Evaluation(test_set=COMMON, correct=(9, 2, 0), total=(10, 10, 0))
    assert advantages(evaluation(90, 10, 0), evaluation(40, 30, 0)) == (0.5, 0.0, 0.0)
    assert advantages(empty, empty) == (0.0, 0.0, 0.0)


def test_intervals_hold_for_few_samples():
    assert wilson_interval(0, 0, deviations=2.0) == (0.0, 1.0)
    low, high = wilson_interval(0, 10, deviations=1.96)
    assert (low, round(high, 3)) == (0.0, 0.278)
    low, high = wilson_interval(81, 263, deviations=1.96)  # Newcombe, 1998, table 1
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_the_interval_of_a_difference_is_newcombes():
    assert least_loss((56, 70), (48, 80), confidence=0.975) == pytest.approx(0.0524, abs=1e-4)
    assert least_loss((0, 0), (1, 10), confidence=0.95) < -1


@pytest.mark.parametrize("right", [(1,), (3, 0), (1, 1 << 9), (-1, 0)])
def test_right_answers_agree_with_the_counts(right):
    with pytest.raises(ValueError, match="right answers"):
        Evaluation(test_set=COMMON, correct=(1, 1), total=(8, 8), right=right)


def test_right_answers_are_no_part_of_what_is_compared_or_shown():
    assert answers(0b1) == answers(0b10)
    assert "right" not in repr(answers(0b1))

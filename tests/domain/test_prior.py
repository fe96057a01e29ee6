"""Priors: smoothed frequencies, mixtures of them, and the accuracy on a mixture of classes."""

import math

import pytest

from kuber.domain.prior import accuracy_on, carried_prior, frequencies, geometric_mean, mixture, uniform
from kuber.domain.strategy import LocalPhase


def test_frequencies_are_smoothed_shares_of_the_counts() -> None:
    assert frequencies([8, 0], smoothing=1.0) == pytest.approx((0.9, 0.1))
    assert frequencies([3, 1], smoothing=0.0) == pytest.approx((0.75, 0.25))
    assert frequencies([0, 0, 0]) == pytest.approx(uniform(3))


@pytest.mark.parametrize(("counts", "smoothing"), [((), 1.0), ((-1, 4), 2.0), ((0, 1), 0.0), ((1, math.inf), 1.0)])
def test_frequencies_that_are_not_positive_are_refused(counts: tuple[float, ...], smoothing: float) -> None:
    with pytest.raises(ValueError, match="at least 0 for each class"):
        frequencies(counts, smoothing=smoothing)


def test_a_mixture_is_the_weighted_mean() -> None:
    assert mixture([(0.9, 0.1), (0.3, 0.7)], [10, 30]) == pytest.approx((0.45, 0.55))
    with pytest.raises(ValueError, match="equally many classes"):
        mixture([(0.5, 0.5), (1.0,)], [1, 1])
    with pytest.raises(ValueError, match="not all 0"):
        mixture([(0.5, 0.5)], [0.0])


def test_the_mean_of_logits_carries_the_geometric_mean() -> None:
    # Logits (log 0.9, log 0.1) and (log 0.1, log 0.9) have the mean (log 0.3, log 0.3).
    assert geometric_mean([(0.9, 0.1), (0.1, 0.9)]) == pytest.approx((0.5, 0.5))
    assert geometric_mean([(0.8, 0.2)]) == pytest.approx((0.8, 0.2))


def test_balanced_softmax_carries_a_uniform_prior_and_cross_entropy_that_of_its_samples() -> None:
    assert carried_prior(LocalPhase(loss="balanced-softmax"), (9, 1)) == (0.5, 0.5)
    assert carried_prior(LocalPhase(), (9, 1)) == frequencies((9, 1))


def test_own_accuracy_weighs_each_class_as_the_entity_has_it() -> None:
    assert accuracy_on([30, 10], [1.0, 0.5]) == pytest.approx(0.875)
    assert accuracy_on([30, 10], [1.0, None]) == 1.0  # a class without test samples is left out
    assert accuracy_on([0, 5, 0], [0.4, None, 0.6]) == pytest.approx(0.5)  # none of its classes has any

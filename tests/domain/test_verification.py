"""Claims checked against an evaluation of the hub."""

from dataclasses import replace

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.verification import Standing, upper_bound, verdict

from .samples import evaluation, knowledge


def test_the_bound_is_wilsons():
    # By hand: p = 0.5, n = 100, z = 2.326 -> (0.5 + 0.02705 + 0.11946) / 1.05410
    assert upper_bound(evaluation(50)) == pytest.approx(0.61325, abs=1e-4)
    assert upper_bound(evaluation(100)) == 1.0
    assert 0.05 < upper_bound(evaluation(0)) < 0.06


@pytest.mark.parametrize(
    ("claimed", "standing"), [(40, Standing.VERIFIED), (61, Standing.VERIFIED), (62, Standing.QUARANTINED)]
)
def test_a_claim_beyond_the_bound_is_quarantined(claimed, standing):
    found = verdict(evaluation(claimed), evaluation(50))
    assert found.standing is standing
    assert found.evaluation == evaluation(50)


def test_a_verification_on_the_same_test_set_is_trusted_over_the_claim():
    assert knowledge("a", 70).trusted == evaluation(70)
    found = verdict(evaluation(70), evaluation(65))
    assert knowledge("a", 70, verification=found).trusted == evaluation(65)
    secret = verdict(evaluation(70), evaluation(65, test_set="the hub's own"))
    assert knowledge("a", 70, verification=secret).trusted == evaluation(70)


def test_a_claim_of_other_numbers_of_samples_is_quarantined():
    found = evaluation(50, 50)
    claim = Evaluation(test_set=found.test_set, correct=(1, 10**9), total=(1, 2 * 10**9))
    assert verdict(claim, found).standing is Standing.QUARANTINED
    elsewhere = replace(claim, test_set=Digest.of(b"another"))
    assert verdict(elsewhere, found).standing is Standing.VERIFIED

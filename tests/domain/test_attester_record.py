"""Attesters count by how well they have agreed with own findings."""

import pytest

from kuber.domain.attester_record import AttesterRecord, compared, is_doubted
from kuber.domain.verification import Attestation, Standing, Verification

from .samples import NOON, evaluation, knowledge

LIE = knowledge("lie", 90, 90)
TRUTH, SLANDER = evaluation(20, 20), evaluation(10, 10)


def attested(**evaluations):
    return [Attestation(entity=name, evaluation=found, at=NOON) for name, found in evaluations.items()]


def test_only_agreement_on_false_claims_counts():
    claims = attested(honest=TRUTH, copycat=LIE.evaluation)
    records = compared({}, claims, TRUTH, was_false=True)
    assert records == {"honest": AttesterRecord(agreed=1), "copycat": AttesterRecord(differed=1)}
    assert compared({}, attested(copycat=TRUTH, liar=SLANDER), TRUTH, was_false=False) == {
        "liar": AttesterRecord(differed=1)
    }


@pytest.mark.parametrize(
    ("agreed", "differed", "weight"), [(0, 0, 0), (1, 0, 0.5), (3, 0, 0.75), (3, 1, 0), (8, 1, 8 / 9), (8, 3, 0)]
)
def test_an_attester_who_differed_loses_its_weight(agreed, differed, weight):
    assert AttesterRecord(agreed=agreed, differed=differed).weight == pytest.approx(weight)


def test_a_claim_is_doubted_on_the_word_of_one_who_agreed_and_of_no_number_of_unknown_ones():
    known = {"honest": AttesterRecord(agreed=1), "friend": AttesterRecord(agreed=3)}
    assert is_doubted(LIE, attested(honest=TRUTH), known)
    assert not is_doubted(LIE, attested(**{f"new{number}": TRUTH for number in range(100)}), known)
    assert not is_doubted(LIE, attested(honest=TRUTH, friend=LIE.evaluation), known)
    assert is_doubted(LIE, attested(friend=TRUTH, **{f"new{n}": LIE.evaluation for n in range(2)}), known)
    assert not is_doubted(LIE, attested(honest=evaluation(90, 89)), known)


def test_what_the_hub_has_verified_is_not_doubted():
    verified = Verification(standing=Standing.VERIFIED, reason="It was measured.", evaluation=LIE.evaluation)
    record = knowledge("lie", 90, 90, verification=verified)
    assert not is_doubted(record, attested(honest=TRUTH), {"honest": AttesterRecord(agreed=9)})

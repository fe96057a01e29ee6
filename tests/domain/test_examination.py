"""Examination of candidates: who gets a place, and which claims are refused."""

from dataclasses import replace
from datetime import date

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import EvaluationSet
from kuber.domain.examination import (
    MAX_EXAMINED,
    MAX_FAILED,
    claims_taken,
    distinct_publishers,
    overclaim,
    places_for,
    present,
    to_examine,
    without_copies,
)
from kuber.domain.knowledge import Artifact
from kuber.domain.publisher_record import NEW, PublisherRecord, after_refusal, after_sound, after_useless

from .samples import COMMON, TASK, evaluation, knowledge

PRIVATE = EvaluationSet(since=date(2026, 1, 1))
PROVEN = PublisherRecord(sound=1)


def ids(candidates):
    return [record.id for record in candidates]


def test_each_publisher_has_one_place_and_copies_have_none():
    first = knowledge("first", 50, minutes=1, entity="honest")
    stolen = {"weights": Artifact(digest=Digest.of(b"first"), size=24)}
    copy = knowledge("copy", 50, minutes=2, entity="thief", artifacts=stolen)
    second = knowledge("second", 50, minutes=3, entity="honest")
    assert ids(without_copies([copy, first, second])) == ["first", "second"]
    assert ids(without_copies([copy])) == ["copy"]
    handed_over = [replace(first, copy_of="copy"), replace(copy, copy_of=None)]
    assert ids(without_copies(handed_over)) == ["copy"], "its owner published it later"
    assert ids(distinct_publishers([second, copy, first])) == ["second", "copy"]


def test_absences_grow_with_every_refusal_and_end():
    record, ends = NEW, []
    for _ in range(8):
        record = after_refusal(record, 10, false_claim=True)
        ends.append(record.until - 11)
    assert ends == [2, 4, 8, 16, 32, 64, 64, 64]
    record = after_refusal(NEW, 10, false_claim=True)
    assert [round for round in range(10, 16) if not record.is_absent(round)] == [13, 14, 15]
    assert not record.proven


def test_a_damaged_file_costs_nothing_once_and_no_model_of_use_nothing_at_first():
    record = after_refusal(NEW, 3, false_claim=False)
    assert not record.is_absent(4)
    assert after_refusal(record, 4, false_claim=False).is_absent(6)
    record = after_useless(NEW, 3)
    assert not record.is_absent(4)
    assert after_useless(record, 4).is_absent(5)
    assert not after_useless(record, 4).is_absent(6)


def test_refusals_are_forgiven_slowly():
    record = after_refusal(NEW, 1, false_claim=True)
    for _ in range(7):
        record = after_sound(record)
        assert (record.refused, record.proven) == (1, True)
    assert after_sound(record) == PublisherRecord(sound=1, until=4)


def test_absent_publishers_are_left_out():
    records = [knowledge("a", 50, entity="a"), knowledge("b", 50, entity="b")]
    publishers = {"a": PublisherRecord(refused=1, until=5)}
    assert ids(present(records, publishers, 4)) == ["b"]
    assert ids(present(records, publishers, 5)) == ["a", "b"]


def test_half_of_the_places_are_kept_for_proven_publishers():
    many = [knowledge(f"new {number}", 50, entity=f"{number}") for number in range(8)]
    known = [knowledge(f"known {number}", 50, entity=f"k{number}") for number in range(4)]
    publishers = {record.entity: PROVEN for record in known}
    assert ids(places_for([*many, *known], publishers, 6)) == [
        *("new 0", "new 1", "new 2"),
        *("known 0", "known 1", "known 2"),
    ]
    assert ids(places_for([*many[:1], *known], publishers, 6)) == ids([*many[:1], *known])
    assert len(places_for(many, publishers, 6)) == 6
    assert ids(places_for([*many, *known[:1]], publishers, 6))[-2:] == ["new 4", "known 0"]


def test_after_some_failures_only_proven_publishers_are_tried():
    records = [knowledge("new", 50, entity="new"), knowledge("known", 50, entity="known")]
    publishers = {"known": PROVEN}

    def left(tries, failed, publishers=publishers):
        return ids(to_examine(records, (), publishers, tries=tries, failed=failed))

    assert left(2, MAX_FAILED - 1) == ["new", "known"]
    assert left(3, MAX_FAILED) == ["known"]
    assert left(3, MAX_FAILED, {}) == ["new", "known"], "nobody is proven yet"
    assert left(MAX_EXAMINED, 0) == []
    assert ids(to_examine(records, {"new"}, publishers, tries=MAX_EXAMINED, failed=0)) == ["new"]


def test_claims_are_taken_but_for_some_that_nobody_can_foresee():
    records = [knowledge(f"record {place}", 50, 50, entity=f"entity {place}") for place in range(20)]
    publishers = {record.entity: PROVEN for record in records}
    drawn = []
    for reader in ("a", "b"):
        taken = claims_taken(records, publishers, evaluation(60, 60), checked=3, reader=reader)
        assert len(taken) == 17
        drawn.append({record.id for record in records} - taken)
        assert taken == claims_taken(records[::-1], publishers, evaluation(60, 60), checked=3, reader=reader)
    assert drawn[0] != drawn[1], "each reader draws its own"


def test_claims_of_liars_and_strangers_and_on_other_samples_are_not_taken():
    liar, new, sound = (knowledge(name, 50, 50, entity=name) for name in ("liar", "new", "sound"))
    private = replace(sound, id="private", task=replace(TASK, test_set=None), evaluation_set=PRIVATE)
    publishers = {"liar": PublisherRecord(sound=3, refused=1), "sound": PROVEN}

    def taken(own):
        return claims_taken([liar, new, private, sound], publishers, own, checked=0, reader="a")

    assert taken(evaluation(60, 60)) == {"sound"}
    assert taken(evaluation(60, 60, test_set="another")) == taken(evaluation(60)) == taken(None) == set()


@pytest.mark.parametrize(
    ("correct", "total", "refused"),
    [
        ((60, 40), (100, 100), None),
        ((63, 40), (100, 100), None),  # rounding
        ((70, 40), (100, 100), "an accuracy of 0.550"),
        ((40, 60), (100, 100), "20 correct answers"),  # the same accuracy, turned around
        ((1, 10**9), (1, 2 * 10**9), "other numbers of samples"),
        ((20, 10), (40, 20), "other numbers of samples"),
    ],
)
def test_a_claim_keeps_to_the_counts_of_the_common_test_set(correct, total, refused):
    claim = Evaluation(test_set=COMMON, correct=correct, total=total)
    reason = overclaim(claim, evaluation(60, 40), common=True)
    assert (reason is None) == (refused is None)
    assert refused is None or (reason and refused in reason)


def test_claims_on_private_data_are_compared_by_accuracy_only():
    claim = Evaluation(test_set=COMMON, correct=(50, 0), total=(100, 0))
    assert overclaim(claim, evaluation(60, 40), common=False) is None
    assert overclaim(evaluation(90, 90, test_set="another"), evaluation(10, 10), common=False) is None

"""Policies that strategies are composed of."""

from dataclasses import replace
from math import inf

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.policies import (
    MergePolicy,
    PublishPolicy,
    SelectionPolicy,
    WaitingPolicy,
    has_improved,
    is_mergeable,
    merge_shares,
    more_are_expected,
    most_recent,
    select_complementary,
    weak_classes,
)
from kuber.domain.strategy import Candidate, Wait

from .samples import ARCHITECTURE, COMMON, ORIGIN, TASK, evaluation, knowledge, situation

TASK_OF_3 = replace(TASK, labels=("a", "b", "c"))


@pytest.mark.parametrize(
    ("own", "published", "adds"),
    [
        ((10, 10), None, True),
        ((50, 50), (50, 50), False),
        ((60, 50), (50, 50), True),
        ((51, 50), (50, 50), False),  # one sample of 200
        ((40, 50), (50, 50), False),
        ((30, 65), (50, 50), True),  # worse on the whole, better on a class
        ((30, 54), (50, 50), False),
        ((0, 70), (90, 50), False),  # collapsed, whatever it gained on a class
    ],
)
def test_a_gain_of_accuracy_or_recall_is_an_improvement(own, published, adds):
    at = situation(evaluation(*own), published=published and evaluation(*published))
    assert has_improved(at, PublishPolicy()) is adds


def test_a_collapsed_model_is_not_published_because_a_sample_flipped():
    """From 59.4 % to 1.0 %, where a class has one validation sample."""
    total = (96, 96, 1)
    then = Evaluation(test_set=COMMON, correct=(60, 54, 0), total=total)
    now = Evaluation(test_set=COMMON, correct=(0, 1, 1), total=total)
    assert not has_improved(situation(now, published=then), PublishPolicy())
    same = Evaluation(test_set=COMMON, correct=(60, 54, 1), total=total)
    assert not has_improved(situation(same, published=then), PublishPolicy()), "one sample is no gain"


def test_paired_answers_prove_a_gain_of_few_samples():
    then = Evaluation(test_set=COMMON, correct=(80, 80), total=(100, 100), right=((1 << 80) - 1,) * 2)
    now = Evaluation(test_set=COMMON, correct=(83, 80), total=(100, 100), right=((1 << 83) - 1, (1 << 80) - 1))
    assert has_improved(situation(now, published=then), PublishPolicy()), "three gained, none lost: 1 in 8"
    assert not has_improved(situation(replace(now, right=None), published=then), PublishPolicy())


def test_without_an_evaluation_there_is_no_improvement():
    assert not has_improved(situation(None), PublishPolicy())


def test_weak_classes_are_ordered_weakest_first():
    assert weak_classes(evaluation(90, 10, 5, 80)) == (2, 1)
    assert weak_classes(evaluation(50, 50)) == (0, 1)
    assert weak_classes(evaluation(50)) == (0,), "a class without samples is not known to be lacking"


def test_complementary_candidates_beat_the_best_average():
    own = evaluation(90, 0, 0)
    strong = knowledge("strong", 80, 60, 0, task=TASK_OF_3, evaluation=evaluation(80, 60, 0))
    specialist = knowledge("specialist", 0, 0, 50, task=TASK_OF_3, evaluation=evaluation(0, 0, 50))
    close = knowledge("close", 70, 55, 0, task=TASK_OF_3, evaluation=evaluation(70, 55, 0))
    assert [k.id for k in select_complementary([close, strong, specialist], own, {}, SelectionPolicy(limit=2))] == [
        "strong",
        "specialist",
    ]


def test_candidates_that_add_nothing_are_not_selected():
    own = evaluation(50, 50)
    assert select_complementary([knowledge("worse", 40, 40)], own, {}, SelectionPolicy()) == []
    assert select_complementary([], own, {}, SelectionPolicy()) == []
    assert select_complementary([], None, {}, SelectionPolicy()) == []


def test_an_old_candidate_counts_less():
    own = evaluation(0, 0)
    old, new = knowledge("old", 60, 60), knowledge("new", 50, 50)
    assert select_complementary([old, new], own, {"old": 1}, SelectionPolicy(limit=1, freshness=0.9)) == [old]
    assert select_complementary([old, new], own, {"old": 2}, SelectionPolicy(limit=1, freshness=0.9)) == [new]


def test_the_most_recent_come_first_and_then_those_with_more_samples():
    a, b, c = knowledge("a", 1, sample_count=5), knowledge("b", 1, sample_count=9), knowledge("c", 1)
    assert most_recent([a, b, c], {"b": 1}, 2) == [a, c]
    assert most_recent([c, a, b], {}, 3) == [b, a, c]


def test_mergeable_models_have_one_architecture_and_origin():
    at = situation(evaluation(50), architecture=ARCHITECTURE, origin=ORIGIN)
    assert is_mergeable(knowledge("a", 50, origin=ORIGIN), at)
    assert not is_mergeable(knowledge("b", 50), at)
    assert not is_mergeable(knowledge("c", 50, origin=Digest.of(b"another")), at)
    assert not is_mergeable(knowledge("d", 50), situation(evaluation(50), architecture=ARCHITECTURE))


def test_a_model_no_better_than_chance_has_no_share_in_a_merge():
    at = situation(evaluation(50, 50), samples=10)
    candidates = [
        Candidate(knowledge=knowledge(id, 90, 90, sample_count=count), evaluation=evaluation(*found))
        for id, count, found in (("flipped", 10, (20, 20)), ("chance", 10, (50, 50)), ("sound", 20, (60, 50)))
    ]
    assert merge_shares(candidates, at, MergePolicy()) == [0.0, 0.0, 2.0]


def test_an_unknown_sample_count_is_taken_as_ours():
    candidate = Candidate(knowledge=knowledge("a", 90, 90), evaluation=evaluation(90, 90))
    assert merge_shares([candidate], situation(evaluation(50, 50), samples=10), MergePolicy()) == [1.0]


def test_no_number_of_samples_takes_over_an_average():
    at = situation(evaluation(50, 50), samples=100)

    def shares(*counts):
        found = [
            Candidate(knowledge=knowledge(f"{count}", 60, 60, sample_count=count), evaluation=evaluation(60, 60))
            for count in counts
        ]
        return merge_shares(found, at, MergePolicy())

    assert shares(10**12, 100, 100) == [2.0, 1.0, 1.0]
    assert shares(10**12, 10**12, 100) == [2.0, 2.0, 1.0]
    assert shares(10**12, 10**12, 10**12) == [5.0, 5.0, 5.0]
    assert shares(300, 400, 500) == [3.0, 4.0, 5.0], "many do have more than we"


def test_a_share_of_nearly_nothing_is_none():
    at = situation(evaluation(90, 90), samples=100)
    poor = Candidate(knowledge=knowledge("poor", 55, 55, sample_count=100), evaluation=evaluation(55, 55))
    assert merge_shares([poor], at, MergePolicy()) == [0.0]


def test_a_model_half_as_far_above_chance_as_ours_counts_in_full_and_a_poorer_one_little():
    at = situation(evaluation(90, 90), samples=100)
    found = [
        Candidate(knowledge=knowledge(f"{right}", 90, 90, sample_count=100), evaluation=evaluation(right, right))
        for right in (95, 70, 60)
    ]
    assert merge_shares(found, at, MergePolicy()) == pytest.approx([1.0, 1.0, 0.5**4])


def expected(ages, *, round=2, limit=9, quiet=0.0, due=None):
    """Return whether more models are expected than those of these ages, in a wait of which 60 of 100 s are left."""
    candidates = [knowledge(f"{place}", 50, origin=ORIGIN) for place in range(len(ages))]
    at = situation(
        evaluation(50),
        architecture=ARCHITECTURE,
        origin=ORIGIN,
        round=round,
        ages={candidate.id: age for candidate, age in zip(candidates, ages, strict=True)},
        wait=Wait(round=100.0, left=60.0, quiet=quiet, due=due or {}),
    )
    records = [*candidates, knowledge("stranger", 50)]
    return more_are_expected(records, at, MergePolicy(limit=limit), WaitingPolicy(grace=0.25))


@pytest.mark.parametrize(
    ("ages", "limit", "more"),
    [
        ((), 9, False),  # nobody is there
        ((0, 1), 9, True),
        ((0, 0), 9, False),
        ((0, 2), 9, False),  # it missed a round: it is slow, or gone
        ((0, 0, 0, 1), 3, False),  # no more are of use
        ((0, 1, 1, 1), 1, False),
    ],
)
def test_whoever_published_in_the_round_before_is_expected_to_do_so_again(ages, limit, more):
    assert expected(ages, limit=limit) is more


@pytest.mark.parametrize(
    ("age", "due", "more"), [(1, 59.0, True), (1, 61.0, False), (4, 0.0, True), (1, inf, False), (0, 0.0, False)]
)
def test_an_entity_of_known_pace_is_expected_when_it_is_due_before_the_wait_ends(age, due, more):
    assert expected((age,), due={"0": due}) is more


@pytest.mark.parametrize(
    ("models", "quiet", "more"), [(0, 24.0, True), (0, 26.0, False), (3, 24.0, True), (9, 0.0, False)]
)
def test_in_the_first_round_each_model_that_comes_gives_time_for_one_more(models, quiet, more):
    assert expected((0,) * models, round=1, quiet=quiet) is more


def test_impossible_numbers_of_samples_do_not_come_first():
    many = [knowledge(id, 1, sample_count=count) for id, count in (("b", 10**12), ("a", 500), ("c", 400))]
    assert [record.id for record in most_recent(many, {}, 3, most=500)] == ["a", "b", "c"]

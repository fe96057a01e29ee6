"""Decisions of the built-in strategies."""

import pytest

from kuber.domain.policies import MergePolicy
from kuber.domain.query import Query
from kuber.domain.ranking import exclude, more_accurate
from kuber.domain.strategies import STRATEGIES, Exchange, Kuber, Local, Merge, Vanilla
from kuber.domain.strategy import Candidate, Method

from .samples import ARCHITECTURE, ORIGIN, evaluation, knowledge, situation


@pytest.mark.parametrize(
    ("now", "before", "publishes", "discovers"),
    [
        (10, None, True, False),  # the first evaluation counts as improved
        (51, 50, True, False),
        (50, 50, False, False),
        (49, 50, False, True),
    ],
)
def test_vanilla_publishes_after_improving_and_discovers_after_degrading(now, before, publishes, discovers):
    at = situation(evaluation(now), previous=before and evaluation(before))
    assert Vanilla().publishes(at) is publishes
    request = Vanilla().after(at)
    assert request == ((Method.DISTIL, Query(min_accuracy=0.49, limit=10)) if discovers else None)
    assert Vanilla().before(at) is None


@pytest.mark.parametrize(("now", "before"), [(10, None), (51, 50), (50, 50), (49, 50)])
@pytest.mark.parametrize("name", ["local", "local-balanced"])
def test_local_publishes_and_discovers_nothing(name, now, before):
    at = situation(evaluation(now), previous=before and evaluation(before))
    strategy = STRATEGIES[name]
    assert (strategy.publishes(at), strategy.before(at), strategy.after(at)) == (False, None, None)
    assert not strategy.common_start


def test_vanilla_chooses_the_single_best():
    candidates = [knowledge("weak", 55), knowledge("strong", 80), knowledge("middle", 70)]
    at = situation(evaluation(50), previous=evaluation(60))
    assert [k.id for k in Vanilla().choose(candidates, Method.DISTIL, at)] == ["strong"]


def test_vanilla_chooses_none_if_none_is_better():
    at = situation(evaluation(50), previous=evaluation(60))
    candidates = [knowledge("equal", 50), knowledge("weak", 40)]
    assert Vanilla().choose(candidates, Method.DISTIL, at) == []


@pytest.mark.parametrize("strategy", [Vanilla(), Local()])
def test_vanilla_and_local_keep_every_result(strategy):
    assert strategy.keep(evaluation(60), evaluation(40))


@pytest.mark.parametrize(("strategy", "least"), [(Exchange(), 60), (Merge(), 55), (Kuber(), 55)])
def test_the_others_keep_a_result_within_their_tolerance(strategy, least):
    assert strategy.keep(evaluation(60), evaluation(least))
    assert not strategy.keep(evaluation(60), evaluation(least - 1))


def test_exchange_queries_for_its_weak_classes():
    method, query = Exchange().before(situation(evaluation(80, 10)))
    assert (method, query) == (Method.GUIDE, Query(classes=(1,), latest=True, order="classes", limit=30))
    method, query = Exchange().before(situation(None))
    assert (method, query.order) == (Method.GUIDE, "accuracy")
    assert Exchange().after(situation(evaluation(80, 10))) is None


def test_exchange_chooses_complementary_teachers():
    at = situation(evaluation(80, 10))
    alike, other = knowledge("alike", 90, 10), knowledge("other", 20, 70)
    assert [k.id for k in Exchange().choose([alike, other], Method.GUIDE, at)] == ["other", "alike"]


def test_merge_chooses_mergeable_models_only():
    relative = knowledge("relative", 50, architecture=ARCHITECTURE, origin=ORIGIN)
    stranger = knowledge("stranger", 90, architecture=ARCHITECTURE)
    at = situation(evaluation(40), architecture=ARCHITECTURE, origin=ORIGIN)
    assert Merge().choose([stranger, relative], Method.MERGE, at) == [relative]
    assert Merge().publishes(at)
    assert Merge().common_start


def test_kuber_merges_mergeable_models_and_is_guided_by_others():
    relative = knowledge("relative", 50, 90, architecture=ARCHITECTURE, origin=ORIGIN)
    stranger = knowledge("stranger", 90, 90, architecture=ARCHITECTURE)
    at = situation(evaluation(40, 40), architecture=ARCHITECTURE, origin=ORIGIN)
    (before, _), (after, query) = Kuber().before(at), Kuber().after(at)
    assert (before, after) == (Method.GUIDE, Method.MERGE)
    assert query == Query(origin=ORIGIN, latest=True, order="newest", limit=27)
    assert Kuber().choose([relative, stranger], before, at) == [stranger]
    assert Kuber().choose([relative, stranger], after, at) == [relative]


def test_merge_weighs_by_samples_and_staleness():
    fresh, stale = knowledge("fresh", 50, sample_count=300), knowledge("stale", 50, sample_count=300)
    at = situation(evaluation(40), samples=100, ages={"stale": 3})
    candidates = [Candidate(knowledge=record, evaluation=evaluation(80, 60)) for record in (fresh, stale)]
    assert Merge().shares(candidates, at) == [3.0, 3.0 / 4**3]


def test_models_too_old_to_count_are_not_pulled_for_a_merge():
    records = [knowledge(f"age {age}", 50, architecture=ARCHITECTURE, origin=ORIGIN) for age in range(6)]
    ages = {record.id: age for age, record in enumerate(records)}
    at = situation(evaluation(40), architecture=ARCHITECTURE, origin=ORIGIN, ages=ages)
    chosen = Merge().choose(records, Method.MERGE, at)
    assert [record.id for record in chosen] == ["age 0", "age 1", "age 2", "age 3"]


def test_merge_weighs_by_how_far_above_chance_a_model_is():
    poor, better = knowledge("poor", 50, sample_count=100), knowledge("better", 50, sample_count=100)
    at = situation(evaluation(70, 70), samples=100)  # 0.2 above the chance of two classes
    found = [evaluation(55, 55), evaluation(90, 90)]
    pairs = zip((poor, better), found, strict=True)
    candidates = [Candidate(knowledge=record, evaluation=seen) for record, seen in pairs]
    assert Merge().shares(candidates, at) == [pytest.approx(0.5**4), 1.0]
    assert Merge(merging=MergePolicy(quality=0.0)).shares(candidates, at) == [1.0, 1.0]


def test_equal_claims_are_ordered_by_age_then_id():
    candidates = [knowledge("c", 70, minutes=1), knowledge("b", 70), knowledge("a", 70, minutes=1)]
    assert [k.id for k in more_accurate(candidates, evaluation(50))] == ["b", "a", "c"]


def test_claims_on_another_test_set_are_never_compared():
    assert more_accurate([knowledge("strong", 80)], evaluation(10, test_set="other")) == []


def test_refused_knowledge_is_excluded_and_the_order_kept():
    candidates = [knowledge("a", 60), knowledge("b", 70), knowledge("c", 80)]
    assert [k.id for k in exclude(candidates, {"b"})] == ["a", "c"]


def test_strategies_are_found_by_their_own_name():
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {name: name for name in STRATEGIES}
    assert set(STRATEGIES) == {"kuber", "exchange", "merge", "vanilla", "local", "local-balanced"}

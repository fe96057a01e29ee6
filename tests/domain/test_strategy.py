"""The decisions of the strategies, as pure functions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Artifact, Knowledge, TensorSpec
from kuber.domain.ranking import better, without
from kuber.domain.strategy import STRATEGIES, Local, Move, Vanilla
from kuber.domain.task import Task

COMMON = Digest.of(b"common test set")
TASK = Task(name="toy", labels=("a", "b"), input_shape=(3,), test_set=COMMON)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def evaluation(correct: int) -> Evaluation:
    """An evaluation with `correct` of 100 right."""
    return Evaluation(test_set=COMMON, correct=(correct, 0), total=(100, 0))


def knowledge(id: str, correct: int, *, minutes: int = 0) -> Knowledge:
    return Knowledge(
        id=id,
        published_at=NOON + timedelta(minutes=minutes),
        entity="another",
        task=TASK,
        architecture=Architecture(name="toy", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(2, 3))}),
        artifacts={"weights": Artifact(digest=Digest.of(id.encode()), size=24)},
        evaluation=evaluation(correct),
        round=1,
    )


@pytest.mark.parametrize(
    ("now", "before", "move"),
    [
        (10, None, Move.SHARE),  # the first evaluation counts as improved
        (51, 50, Move.SHARE),
        (50, 50, Move.REST),
        (49, 50, Move.RETRIEVE),
    ],
)
def test_vanilla_shares_after_improving_and_retrieves_after_degrading(now, before, move):
    previous = None if before is None else evaluation(before)
    assert Vanilla().decide(evaluation(now), previous) is move


@pytest.mark.parametrize(("now", "before"), [(10, None), (51, 50), (50, 50), (49, 50)])
def test_local_never_moves(now, before):
    assert Local().decide(evaluation(now), before and evaluation(before)) is Move.REST


def test_vanilla_chooses_the_single_best():
    candidates = [knowledge("weak", 55), knowledge("strong", 80), knowledge("middle", 70)]
    assert [k.id for k in Vanilla().choose(candidates, evaluation(50))] == ["strong"]


def test_vanilla_chooses_none_when_none_is_better():
    assert Vanilla().choose([knowledge("equal", 50), knowledge("weak", 40)], evaluation(50)) == []


def test_vanilla_keeps_whatever_came_out():
    assert Vanilla().keep(evaluation(60), evaluation(40))


def test_equal_claims_rank_by_age_then_id():
    candidates = [knowledge("c", 70, minutes=1), knowledge("b", 70), knowledge("a", 70, minutes=1)]
    assert [k.id for k in better(candidates, evaluation(50))] == ["b", "a", "c"]


def test_claims_on_another_test_set_are_never_compared():
    own = replace(evaluation(10), test_set=Digest.of(b"other"))
    assert better([knowledge("strong", 80)], own) == []


def test_refused_knowledge_is_left_out_in_order():
    candidates = [knowledge("a", 60), knowledge("b", 70), knowledge("c", 80)]
    assert [k.id for k in without(candidates, {"b"})] == ["a", "c"]


def test_strategies_are_found_by_their_own_name():
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {name: name for name in STRATEGIES}
    assert set(STRATEGIES) == {"vanilla", "local", "local-balanced"}

"""The gate: what is kept, half-way kept and undone, class by class, and the guidance that follows."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from kuber.domain.acceptance import AcceptancePolicy
from kuber.domain.evaluation import Evaluation
from kuber.domain.strategies import Exchange
from kuber.entity.gate import LEAST_GUIDANCE, Gate, next_guidance
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.work.steps import EvaluationResult, evaluate_on_common_set, train_locally
from kuber.wire.registry import EvaluationBody

from .scripted_entities import COMMON, Script

MODEL = SimpleNamespace(class_counts=(30, 10))


def found(*correct: int, total: tuple[int, ...] = (200, 20, 200)) -> Evaluation:
    """An evaluation whose right answers are the first ones of each class."""
    return Evaluation(test_set=COMMON, correct=correct, total=total, right=tuple((1 << n) - 1 for n in correct))


class ClassScript(Script):
    """A script whose evaluations are counts of correct answers for each class."""

    def __call__(self, work):
        if work.function is not evaluate_on_common_set:
            return super().__call__(work)
        self._watch(work)
        return EvaluationResult(evaluation=found(*self.left.pop(0)), seconds=0.1)


@dataclass(frozen=True)
class EarlierStrategy(Exchange):
    """A strategy written before `keep` took the class counts."""

    def keep(self, before, after):
        return after.accuracy >= before.accuracy


class CustomStrategy:
    def keep(self, before, after, **more):
        return more == {"class_counts": (30, 10)}


def test_strategies_of_the_earlier_protocol_go_on_working():
    before, after = found(100, 16, 120), found(180, 2, 130)
    assert Gate(EarlierStrategy(), MODEL).judge(before, after).kept
    assert Gate(CustomStrategy(), MODEL).judge(before, after) == (True, ())
    kept, fallen = Gate(Exchange(), MODEL).judge(before, after)
    assert (kept, [fall.label for fall in fallen]) == (False, [1])


def test_own_class_counts_reach_the_strategy():
    strategy = Exchange(acceptance=AcceptancePolicy(objective="own", confidence=None))
    before, after = found(50, 50, total=(100, 100)), found(60, 30, total=(100, 100))
    assert Gate(strategy, MODEL).judge(before, after).kept
    assert not Gate(strategy, SimpleNamespace(class_counts=(10, 30))).judge(before, after).kept


@pytest.mark.parametrize(
    ("guidance", "harmless", "expected"),
    [(1.0, True, 1.0), (1.0, False, 0.5), (0.5, True, 1.0), (LEAST_GUIDANCE, False, 1.0)],
)
def test_guidance_shrinks_after_harm_recovers_and_is_bounded(guidance, harmless, expected):
    assert next_guidance(guidance, harmless=harmless) == expected


def test_a_class_that_is_destroyed_undoes_the_phase_and_weakens_the_next(world):
    """Accuracy rises, but the rare class is lost."""
    candidate, start = (190, 0, 0), (100, 16, 120)
    world.entity("teacher", rounds=1, strategy="exchange", execute=ClassScript([candidate])).run()
    weights = []

    def watch(work):
        if work.function is train_locally:
            weights.append(work.arguments["phase"].guidance.weight)

    script = [candidate, start]
    script += [(180, 2, 130), (150, 6, 125)]  # also half-way: undone
    script += [(180, 2, 130), (140, 15, 125)]  # half-way it is not: kept
    script += [(170, 14, 150)]  # kept
    script += [(200, 8, 200)]  # kept: the others make up for it
    student = world.entity("student", rounds=4, strategy="exchange", execute=ClassScript(script, watch=watch))
    student.run()
    assert weights == [1.0, 0.5, 1.0, 1.0]
    assert Checkpoints(world.folder / "student").latest().guidance == 0.5
    absorbed = world.events("student", "absorbed")
    assert [detail["kept"] for detail in absorbed] == [False, True, True, True]
    fallen = [detail.get("fallen") for detail in absorbed]
    assert fallen == [[[1, 0.8, 0.1]], [[1, 0.8, 0.1]], None, [[1, 0.7, 0.4]]]
    sentences = [detail["reason"].split(". ", 1)[-1] for detail in absorbed]
    assert "Undone: b fell by 70.0 points, from 80.0 % to 10.0 %." in sentences[0]
    assert "Kept half-way: b fell by 70.0 points, from 80.0 % to 10.0 %." in sentences[1]
    assert sentences[3].endswith("Kept: b fell by 30.0 points, from 70.0 % to 40.0 %; other classes make up for it.")


def test_which_answers_are_right_never_leaves_the_entity(world):
    world.entity("student", rounds=1, strategy="exchange", execute=ClassScript([(10, 20, 30)])).run()
    (record,) = world.published()
    assert record.evaluation.right is None
    assert "right" not in EvaluationBody.of(found(1, 2, 3)).model_dump()
    assert all("right" not in detail for detail in world.events("student", "evaluated"))

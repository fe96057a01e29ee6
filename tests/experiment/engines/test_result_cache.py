"""The cache of results of work steps."""

from dataclasses import make_dataclass, replace
from pathlib import Path

import pytest
import torch

from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.strategy import Guidance, LocalPhase
from kuber.entity.work.average import AverageResult
from kuber.entity.work.pair import PairResult
from kuber.entity.work.personal import PersonalResult
from kuber.entity.work.steps import DroppedTeacher, EvaluationResult, TrainingResult, Work, training
from kuber.errors import DivergedError
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.engines.result_cache import ResultCache, work_key
from kuber.learning.training import Schedule, Span, Training
from tests.entity.scripted_entities import learner

TRAINED = TrainingResult(
    weights={"b": torch.tensor([1.5]), "a": torch.tensor(3)},
    generator=torch.Generator().get_state(),
    samples=20,
    forward=10,
    loss=0.25,
    seconds=1.5,
    dropped=(DroppedTeacher(1, "It exceeded its time limit.", True),),
)
EVALUATED = EvaluationResult(
    evaluation=Evaluation(test_set=Digest.of(b"some"), correct=(3, 4), total=(5, 5)), seconds=0.5
)


PAIR = PairResult(share=0.75, accuracy=0.6, own_accuracy=0.7, private_accuracy=0.5, forward=20, seconds=0.5)


def train(amount, *, progress):
    return replace(TRAINED, samples=amount)


def evaluate(*, progress):
    return EVALUATED


def average(result, *, progress):
    return AverageResult(weights=TRAINED.weights, evaluation=EVALUATED.evaluation, seconds=0.5)


def personalised(weights, *, progress):
    return PersonalResult(weights=weights, before=0.4, after=0.5, forward=7, seconds=0.5)


def share(*, progress):
    return PAIR


def predict(*, progress):
    return torch.tensor([[1.0, -2.0]])


def diverge(*, progress):
    raise DivergedError("It went up.")


class CountingEngine(InlineEngine):
    """Counts the work steps that it executes."""

    def __init__(self) -> None:
        self.done = 0

    def submit(self, work):
        self.done += 1
        return super().submit(work)


def work(function, **arguments) -> Work:
    return Work(function=function, arguments=arguments, cost=1.0)


def test_equal_work_is_executed_once_even_in_another_session(tmp_path):
    first, second = CountingEngine(), CountingEngine()
    cache = ResultCache(first, tmp_path)
    results = [cache.submit(work(train, amount=5)).result() for _ in range(2)]
    results.append(ResultCache(second, tmp_path).submit(work(train, amount=5)).result())
    assert (first.done, second.done) == (1, 0)
    for result in results:
        assert (result.samples, result.forward, result.loss, result.seconds) == (5, 10, 0.25, 1.5)
        assert torch.equal(result.generator, TRAINED.generator)
        assert result.weights.keys() == TRAINED.weights.keys()
        assert all(torch.equal(result.weights[name], tensor) for name, tensor in TRAINED.weights.items())


def test_evaluations_shares_and_logits_are_cached(tmp_path):
    for _ in range(2):
        cache = ResultCache(InlineEngine(), tmp_path)
        assert cache.submit(work(evaluate)).result() == EVALUATED
        assert cache.submit(work(share)).result() == PAIR
        assert cache.submit(work(predict)).result().tolist() == [[1.0, -2.0]]


def test_a_truncated_file_is_written_again(tmp_path):
    ResultCache(InlineEngine(), tmp_path).submit(work(train, amount=5)).result()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    engine = CountingEngine()
    assert ResultCache(engine, tmp_path).submit(work(train, amount=5)).result().samples == 5
    assert engine.done == 1


def test_an_error_is_raised_and_not_cached(tmp_path):
    engine = CountingEngine()
    cache = ResultCache(engine, tmp_path)
    for _ in range(2):
        with pytest.raises(DivergedError, match="It went up"):
            cache.submit(work(diverge)).result()
    assert engine.done == 2


ROWS = Samples(Path("/x"), "train", torch.arange(3).numpy())
BASE = {"a": 1, "b": 2.0, "c": {"w": torch.zeros(2)}, "d": ROWS, "e": ("x", None)}


@pytest.mark.parametrize(
    "change",
    [
        {"a": 2},
        {"a": 1.0},
        {"a": True},
        {"b": 2.0000001},
        {"c": {"w": torch.zeros(2, 1)}},
        {"c": {"w": torch.zeros(2, dtype=torch.int64)}},
        {"c": {"v": torch.zeros(2)}},
        {"c": {"w": torch.tensor([0.0, -0.0])}},
        {"d": Samples(Path("/x"), "train", torch.arange(4).numpy())},
        {"d": Samples(Path("/x"), "test", torch.arange(3).numpy())},
        {"e": ("x", "None")},
        {"e": (("x",), None)},
    ],
    ids=str,
)
def test_any_other_argument_gives_another_key(change):
    assert work_key(work(train, **BASE)) != work_key(work(train, **BASE | change))


def test_the_key_depends_on_the_function_but_not_on_the_order_of_arguments():
    assert work_key(work(train, **BASE)) != work_key(work(predict, **BASE))
    assert work_key(work(train, **BASE)) == work_key(work(train, **dict(reversed(BASE.items()))))


def test_a_field_that_was_added_later_leaves_older_results_valid():
    """A training at a constant rate has the key that it had before there were schedules."""
    earlier = make_dataclass("Training", ["epochs", "learning_rate", "momentum", "weight_decay"])
    now = Training(epochs=1, learning_rate=0.1)
    assert work_key(work(train, a=now)) == work_key(work(train, a=earlier(1, 0.1, 0.9, 5e-4)))
    assert work_key(work(train, a=replace(now, schedule="cosine"))) != work_key(work(train, a=now))


def test_guides_that_are_not_followed_on_the_own_class_have_the_key_from_before():
    names = ["temperature", "weight", "sharpness", "augmented", "own_start", "advantage"]
    earlier = make_dataclass("Guidance", names)(2.0, 1.0, 2.0, False, False, 0.1)
    assert work_key(work(train, a=Guidance())) == work_key(work(train, a=earlier))
    assert work_key(work(train, a=Guidance(own_class=True))) != work_key(work(train, a=earlier))


def test_a_constant_rate_adds_nothing_to_the_key_and_a_schedule_does(tmp_path):
    """So the results of versions without schedules, and the common rounds of two methods, stay valid."""

    def key(schedule: Schedule, span: Span | None) -> str:
        rates = Training(epochs=1, learning_rate=0.1, schedule=schedule)
        mine = replace(learner(tmp_path), training=rates)
        return work_key(training(mine, LocalPhase(), {}, torch.zeros(1), span=span))

    assert key("constant", None) == key("constant", (0.0, 0.5))
    assert len({key("constant", None), *(key("cosine", span) for span in (None, (0.0, 0.5), (0.5, 1.0)))}) == 4


def test_an_argument_that_cannot_be_hashed_is_refused():
    with pytest.raises(TypeError, match="cannot be hashed"):
        work_key(work(train, a=object()))


def test_an_average_is_cached_with_its_evaluation(tmp_path):
    result = AverageResult(weights=TRAINED.weights, evaluation=EVALUATED.evaluation, seconds=0.5)
    for _ in range(2):
        found = ResultCache(InlineEngine(), tmp_path).submit(work(average, result=0)).result()
        assert (found.evaluation, found.seconds) == (result.evaluation, result.seconds)
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in result.weights.items())


@pytest.mark.parametrize("weights", [None, TRAINED.weights])
def test_a_personal_model_is_cached_and_so_is_that_there_is_none(tmp_path, weights):
    for _ in range(2):
        found = ResultCache(InlineEngine(), tmp_path).submit(work(personalised, weights=weights)).result()
        assert (found.before, found.after, found.forward, found.seconds) == (0.4, 0.5, 7, 0.5)
        assert (found.weights is None) == (weights is None)
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in (weights or {}).items())

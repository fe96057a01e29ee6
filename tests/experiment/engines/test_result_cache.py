from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.entity.work.steps import EvaluationResult, TrainingResult, Work
from kuber.errors import DivergedError
from kuber.experiment.engines import InlineEngine
from kuber.experiment.engines.result_cache import ResultCache, work_key

LEARNT = TrainingResult(
    weights={"b": torch.tensor([1.5]), "a": torch.tensor(3)},
    generator=torch.Generator().get_state(),
    samples=20,
    forward=10,
    loss=0.25,
    seconds=1.5,
)
EVALUATED = EvaluationResult(
    evaluation=Evaluation(test_set=Digest.of(b"some"), correct=(3, 4), total=(5, 5)), seconds=0.5
)


def learn(amount, *, progress):
    return replace(LEARNT, samples=amount)


def evaluate(*, progress):
    return EVALUATED


def speak(*, progress):
    return torch.tensor([[1.0, -2.0]])


def diverge(*, progress):
    raise DivergedError("It went up.")


class Counting(InlineEngine):
    """Counts what it is asked to do."""

    def __init__(self) -> None:
        self.done = 0

    def submit(self, work):
        self.done += 1
        return super().submit(work)


def work(function, **arguments) -> Work:
    return Work(function=function, arguments=arguments, cost=1.0)


def test_equal_work_is_done_once_even_in_another_session(tmp_path):
    first, second = Counting(), Counting()
    memo = ResultCache(first, tmp_path)
    results = [memo.submit(work(learn, amount=5)).result() for _ in range(2)]
    results.append(ResultCache(second, tmp_path).submit(work(learn, amount=5)).result())
    assert (first.done, second.done) == (1, 0)
    for result in results:
        assert (result.samples, result.forward, result.loss, result.seconds) == (5, 10, 0.25, 1.5)
        assert torch.equal(result.generator, LEARNT.generator)
        assert result.weights.keys() == LEARNT.weights.keys()
        assert all(torch.equal(result.weights[name], tensor) for name, tensor in LEARNT.weights.items())


def test_evaluations_and_logits_are_kept_too(tmp_path):
    for _ in range(2):
        memo = ResultCache(InlineEngine(), tmp_path)
        assert memo.submit(work(evaluate)).result() == EVALUATED
        assert memo.submit(work(speak)).result().tolist() == [[1.0, -2.0]]


def test_a_file_that_was_cut_short_is_made_again(tmp_path):
    ResultCache(InlineEngine(), tmp_path).submit(work(learn, amount=5)).result()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    engine = Counting()
    assert ResultCache(engine, tmp_path).submit(work(learn, amount=5)).result().samples == 5
    assert engine.done == 1


def test_an_error_is_told_and_not_kept(tmp_path):
    engine = Counting()
    memo = ResultCache(engine, tmp_path)
    for _ in range(2):
        with pytest.raises(DivergedError, match="It went up"):
            memo.submit(work(diverge)).result()
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
def test_any_other_argument_is_other_work(change):
    assert work_key(work(learn, **BASE)) != work_key(work(learn, **BASE | change))


def test_the_function_and_nothing_else_tells_equal_arguments_apart():
    assert work_key(work(learn, **BASE)) != work_key(work(speak, **BASE))
    assert work_key(work(learn, **BASE)) == work_key(work(learn, **dict(reversed(BASE.items()))))


def test_what_has_no_digest_is_refused():
    with pytest.raises(TypeError, match="has no digest"):
        work_key(work(learn, a=object()))

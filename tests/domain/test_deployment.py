"""The rule for the deployed model: the best of last, earlier and average; the newer of equals."""

import pytest

from kuber.domain.deployment import Deployed, deploy
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation


def model(round: int, percent: int, *, averaged: bool = False, test_set: bytes = b"common") -> Deployed:
    evaluation = Evaluation(test_set=Digest.of(test_set), correct=(percent,), total=(100,))
    return Deployed(round=round, evaluation=evaluation, averaged=averaged)


@pytest.mark.parametrize(
    ("before", "last", "average", "choice"),
    [
        (None, 50, None, "last"),
        (60, 50, 55, "best"),
        (60, 70, 65, "last"),
        (60, 50, 70, "average"),
        (60, 60, 60, "last"),
        (60, 50, 60, "average"),
    ],
)
def test_the_best_is_deployed_and_the_newer_of_equals(before, last, average, choice):
    chosen = deploy(
        None if before is None else model(1, before),
        model(2, last),
        None if average is None else model(2, average, averaged=True),
    )
    assert chosen.choice(2) == choice


def test_an_earlier_average_stays_deployed_until_something_is_better():
    earlier = model(3, 80, averaged=True)
    chosen = deploy(earlier, model(4, 70), model(4, 75, averaged=True))
    assert chosen is earlier
    assert chosen.choice(4) == "average"


def test_an_evaluation_on_another_test_set_is_not_compared():
    last = model(2, 10)
    assert deploy(model(1, 90, test_set=b"former"), last, None) is last

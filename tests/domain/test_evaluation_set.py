from dataclasses import replace
from datetime import date

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import EvaluationSet, disclosed, restricted
from kuber.domain.task import Task
from tests.domain.samples import TASK, knowledge

OWN = Digest.of(b"own")
PRIVATE = Task(name="own", labels=("a", "b", "c", "d"), input_shape=(2,))


def counts(correct, total):
    return Evaluation(test_set=OWN, correct=correct, total=total)


@pytest.mark.parametrize(
    ("correct", "total", "shown", "cells"),
    [
        ((9, 8, 0, 30), (10, 12, 0, 40), ((9, 8, 0, 30), (10, 12, 0, 40)), "all"),
        ((9, 8, 1, 30), (10, 12, 1, 40), ((9, 8, 0, 30), (10, 12, 0, 40)), "partial"),
        ((9, 9, 9, 30), (9, 9, 9, 40), ((0, 0, 0, 30), (0, 0, 0, 40)), "partial"),
        ((3, 2, 1, 0), (9, 4, 1, 0), ((6, 0, 0, 0), (14, 0, 0, 0)), "pooled"),
        ((1, 0, 0, 9), (1, 0, 0, 9), ((10, 0, 0, 0), (10, 0, 0, 0)), "pooled"),
        ((3, 2, 1, 0), (3, 4, 1, 0), ((0, 0, 0, 0), (1, 0, 0, 0)), "withheld"),
    ],
)
def test_no_count_below_ten_of_private_data_leaves(correct, total, shown, cells):
    assert disclosed(counts(correct, total), PRIVATE) == (counts(*shown), cells)


def test_nothing_is_left_out_on_a_common_test_set():
    small = Evaluation(test_set=TASK.test_set, correct=(1, 0), total=(1, 2))
    assert disclosed(small, TASK) == (small, "all")


def test_a_claim_is_compared_on_the_classes_that_it_shows():
    found = counts((9, 8, 1, 30), (10, 12, 1, 40))
    claim, _ = disclosed(counts((9, 9, 1, 30), (10, 12, 1, 40)), PRIVATE)
    assert restricted(found, claim) == counts((9, 8, 0, 30), (10, 12, 0, 40))
    assert restricted(found, counts((1,), (1,))) == found


def test_a_withheld_accuracy_is_not_claimed():
    task = replace(TASK, test_set=None)
    record = knowledge("k", 50, 50, task=task, evaluation_set=EvaluationSet(since=date(2026, 1, 31)))
    assert record.claimed_accuracy == 0.5
    hidden = replace(record, evaluation_set=EvaluationSet(since=date(2026, 1, 31), cells="withheld"))
    assert hidden.claimed_accuracy is None
    assert "no accuracy claimed" in repr(hidden)


def test_only_own_data_are_described():
    with pytest.raises(ValueError, match="no evaluation set besides"):
        knowledge("k", 50, 50, evaluation_set=EvaluationSet(since=date(2026, 1, 31)))
    with pytest.raises(ValueError, match="cells are one of"):
        EvaluationSet(since=date(2026, 1, 31), cells="some")

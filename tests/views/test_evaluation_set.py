from dataclasses import replace
from datetime import date

import pytest

from kuber.domain.evaluation_set import EvaluationSet
from kuber.views.delivery import DeliveryView, absorption, why_kept
from kuber.views.evaluation_set import claimed, class_recalls, comparison_note, describe_set, ranked_by, set_name
from tests.domain.samples import TASK, knowledge

OWN = knowledge("own", 50, 60, task=replace(TASK, test_set=None))
DIGITS = OWN.evaluation.test_set.hex[:6]


@pytest.mark.parametrize(
    ("cells", "sentence", "claim", "recalls"),
    [
        ("all", "200 samples, since 2026-01-31", "55.0%", [0.5, 0.6]),
        ("partial", "200 samples of classes with at least 10, since 2026-01-31", "55.0%", [0.5, 0.6]),
        (
            "pooled",
            "200 samples of classes with fewer than 10, which are not shown, since 2026-01-31",
            "55.0%",
            [None, None],
        ),
        ("withheld", "fewer than 10 samples, since 2026-01-31", "-", [None, None]),
    ],
)
def test_own_data_are_described(cells, sentence, claim, recalls):
    record = replace(OWN, evaluation_set=EvaluationSet(since=date(2026, 1, 31), cells=cells))
    assert describe_set(record) == f"its publisher's own data, {sentence}, set {DIGITS}"
    assert (claimed(record), ranked_by(record), class_recalls(record)) == (claim, claim, recalls)


def test_records_of_older_versions_are_described():
    assert describe_set(OWN) == f"its publisher's own data, 200 samples, set {DIGITS}"
    assert describe_set(knowledge("common", 50, 60)) == "the common test set, 200 samples"
    assert (set_name(OWN), set_name(knowledge("common", 1))) == (DIGITS, "common")


def test_figures_of_several_sets_are_not_compared_in_silence():
    assert comparison_note(["a", "a"]) == comparison_note([]) == ""
    assert comparison_note(["a", "b", "a"]) == (
        "These figures are of 2 different validation sets, and cannot be compared with each other."
    )


def test_the_line_of_a_kept_loss_says_why():
    delivery = DeliveryView(
        round=3,
        student="s",
        publishers=("t",),
        teachers=("k",),
        method="merge",
        before=1.0,
        after=0.981,
        kept=True,
        reason="Both relatives; found 60.0 %. Kept: loss 1.9, tolerated 5.0 points.",
    )
    line = absorption(delivery, str)
    assert line == "s <- t: merge in round 3, 100.0% -> 98.1% (-1.9), loss 1.9, tolerated 5.0 points"
    assert absorption(replace(delivery, kept=False), str).endswith("(-1.9), not kept")
    assert why_kept(None) == why_kept("The only candidate.") == ""

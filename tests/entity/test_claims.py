"""Claims of proven publishers before a merge: taken, checked, and given up when something speaks against them."""

from dataclasses import dataclass

import pytest

from kuber.domain.policies import MergePolicy
from kuber.domain.publisher_record import PublisherRecord
from kuber.domain.strategies import Merge
from kuber.learning.architectures import initial_weights

from .scripted_entities import ARCHITECTURE, Script

STARTS = (initial_weights(ARCHITECTURE, 0),)


@dataclass(frozen=True, slots=True)
class Giving(Merge):
    """A strategy that publishes for merges and absorbs nothing."""

    def after(self, situation):
        return None


def three_to_merge(world, percentages, *, proven=True, strategy=None, **more):
    """Run a student that merges with three others, which claim 60 %; return the accuracies found of candidates."""
    for rounds in (1, 2, 3):  # else their weights would be the same
        found = [10] * (rounds == 1) + [60] * rounds  # the first publishes the initial checkpoint too
        world.live(f"other {rounds}", found, rounds=rounds, strategy=Giving(), starts=STARTS)
    script = Script(percentages)
    strategy = strategy or Merge(waiting=None, **more)
    student = world.entity("student", rounds=1, execute=script, strategy=strategy, starts=STARTS)
    if proven:
        others = [world.id_of(f"other {number}") for number in (1, 2, 3)]
        student._journal.change(publishers=dict.fromkeys(others, PublisherRecord(sound=1)))
    student.run()
    assert script.left == []
    return [event["accuracy"] for event in world.events("student", "evaluated") if event["stage"] == "candidate"]


def test_one_claim_is_checked_before_a_merge_and_the_others_are_taken(world):
    assert three_to_merge(world, [55, 60, 70, 10]) == [0.6]  # own, the one drawn, merged, the start
    (absorbed,) = world.events("student", "absorbed")
    assert len(absorbed["teachers"]) == 3
    assert "claimed or found 60.0 %, 60.0 % and 60.0 %" in absorbed["reason"]
    assert len(world.events("student", "pulled")) == 3


@pytest.mark.parametrize("more", [{"merging": MergePolicy(checked=None)}, {"proven": False}])
def test_all_models_are_evaluated_before_a_merge_if_the_policy_says_so_or_nobody_is_proven(world, more):
    assert three_to_merge(world, [55, 60, 60, 60, 70, 10], **more) == [0.6] * 3


def test_one_false_claim_has_all_others_evaluated(world):
    assert three_to_merge(world, [55, 20, 60, 60, 70, 10]) == [0.2, 0.6, 0.6]
    (absorbed,) = world.events("student", "absorbed")
    assert len(absorbed["teachers"]) == 2
    assert len(world.events("student", "pulled")) == 3, "what is evaluated later is not pulled again"


def test_an_average_that_disappoints_has_all_others_evaluated_and_is_made_again_without_false_claims(world):
    # Own, the one drawn, merged, the start, which is better; the two others, merged, the start.
    assert three_to_merge(world, [55, 60, 5, 10, 20, 60, 70, 10]) == [0.6, 0.2, 0.6]
    (absorbed,) = world.events("student", "absorbed")
    assert (len(absorbed["teachers"]), absorbed["after"]) == (2, 0.7)
    assert len(world.events("student", "pulled")) == 3


def test_an_average_that_disappoints_through_no_fault_of_others_stays(world):
    assert three_to_merge(world, [55, 60, 5, 10, 60, 60]) == [0.6] * 3
    (absorbed,) = world.events("student", "absorbed")
    assert (len(absorbed["teachers"]), absorbed["after"]) == (3, 0.05)


def test_a_strategy_with_other_settings_of_its_merges_has_all_models_evaluated(world):
    class Other:
        """A strategy that merges as `merge` does, by settings of its own."""

        merging = "as its author likes"

        def __getattr__(self, name):
            return getattr(Merge(waiting=None), name)

    assert three_to_merge(world, [55, 60, 60, 60, 70, 10], strategy=Other()) == [0.6] * 3

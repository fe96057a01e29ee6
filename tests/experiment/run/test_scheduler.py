"""Who may compute: never more than there is room for, and the one that is least far goes first."""

from hypothesis import given
from hypothesis import strategies as st

from kuber.experiment.run.scheduler import Slots


def test_the_least_far_goes_first_and_the_largest_among_equals():
    slots = Slots(2)
    slots.ask("ahead", progress=0.5, samples=900)
    slots.ask("small", progress=0.1, samples=10)
    slots.ask("large", progress=0.1, samples=500)
    assert slots.grant() == ["large", "small"]
    assert slots.grant() == []
    slots.leave("small")
    assert slots.grant() == ["ahead"]


def test_one_that_dies_in_the_queue_holds_nobody_up():
    slots = Slots(1)
    slots.ask("a", progress=0.0, samples=1)
    slots.ask("b", progress=0.1, samples=1)
    slots.leave("a")
    assert slots.grant() == ["b"]


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1)), max_size=60))
def test_never_more_holders_than_slots_and_everybody_gets_a_turn(count, asks):
    slots = Slots(count)
    holding: set[str] = set()
    waiting: set[str] = set()
    for entity, progress in asks:
        if entity in holding:
            slots.leave(entity)
            holding.remove(entity)
        elif entity not in waiting:
            slots.ask(entity, progress=progress, samples=1)
            waiting.add(entity)
        granted = set(slots.grant())
        waiting -= granted
        holding |= granted
        assert len(holding) <= count
    while holding:
        slots.leave(holding.pop())
        granted = set(slots.grant())
        waiting -= granted
        holding |= granted
    assert not waiting

"""The slot scheduler: never more holders than slots, and the entity with the smallest share of rounds first."""

from hypothesis import given
from hypothesis import strategies as st

from kuber.experiment.run.scheduler import SlotScheduler


def test_the_entity_with_the_least_progress_comes_first_and_the_largest_among_equals():
    scheduler = SlotScheduler(2)
    scheduler.request("ahead", progress=0.5, samples=900)
    scheduler.request("small", progress=0.1, samples=10)
    scheduler.request("large", progress=0.1, samples=500)
    assert scheduler.grant() == ["large", "small"]
    assert scheduler.grant() == []
    scheduler.release("small")
    assert scheduler.grant() == ["ahead"]


def test_an_entity_that_dies_in_the_queue_holds_nobody_up():
    scheduler = SlotScheduler(1)
    scheduler.request("a", progress=0.0, samples=1)
    scheduler.request("b", progress=0.1, samples=1)
    scheduler.release("a")
    assert scheduler.grant() == ["b"]


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1)), max_size=60))
def test_never_more_holders_than_slots_and_everybody_gets_a_turn(count, requests):
    scheduler = SlotScheduler(count)
    holding: set[str] = set()
    waiting: set[str] = set()
    for entity, progress in requests:
        if entity in holding:
            scheduler.release(entity)
            holding.remove(entity)
        elif entity not in waiting:
            scheduler.request(entity, progress=progress, samples=1)
            waiting.add(entity)
        granted = set(scheduler.grant())
        waiting -= granted
        holding |= granted
        assert len(holding) <= count
    while holding:
        scheduler.release(holding.pop())
        granted = set(scheduler.grant())
        waiting -= granted
        holding |= granted
    assert not waiting

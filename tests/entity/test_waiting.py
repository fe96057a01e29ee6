"""Entities that wait for the next models of others before they merge."""

import pytest

from kuber.domain.policies import WaitingPolicy
from kuber.domain.strategies.kuber import Kuber
from kuber.domain.strategies.merge import Merge
from kuber.entity.clock import Clock
from kuber.entity.waiting import LOOKS
from kuber.entity.work.steps import train_locally
from kuber.errors import ServiceUnavailableError
from kuber.learning.architectures import initial_weights

from .scripted_entities import ARCHITECTURE, Script

STARTS = (initial_weights(ARCHITECTURE, 0),)
PHASE = 64.0  # virtual seconds


class Time:
    """A clock on which a local phase takes PHASE seconds, and `sleep` lets others act."""

    def __init__(self):
        self.seconds, self.slept, self.others = 0.0, [], []

    def sleep(self, seconds):
        self.seconds += seconds
        self.slept.append(seconds)
        while self.others and self.others[0][0] <= self.seconds:
            self.others.pop(0)[1]()

    @property
    def clock(self):
        return Clock(now=lambda: self.seconds, sleep=self.sleep)


def run(world, name, time, *, rounds, percentages, strategy=None, **more):
    """Run an entity whose local phases take virtual time."""

    def watch(work):
        if work.function is train_locally:
            time.seconds += PHASE

    script = Script(percentages, watch=watch)
    strategy = strategy or Merge()
    world.entity(
        name, rounds=rounds, execute=script, strategy=strategy, starts=STARTS, clock=time.clock, **more
    ).run()


def publish(world, name, *, rounds=1):
    """Let another entity finish its rounds, in no time."""
    world.entity(name, rounds=rounds, execute=Script([50] * 9), strategy=Merge(waiting=None), starts=STARTS).run()


def test_in_its_first_round_an_entity_waits_as_long_as_more_come(world):
    time = Time()
    seconds = (2, 4, 9, 20)
    time.others = [(PHASE + second, lambda name=f"b{second}": publish(world, name)) for second in seconds]
    policy = WaitingPolicy(grace=0.25)
    run(world, "a", time, rounds=1, percentages=[50] * 9, strategy=Merge(waiting=policy))
    last = max(seconds) + policy.grace * PHASE
    assert PHASE + last <= time.seconds <= PHASE + last + 3 * PHASE / LOOKS
    assert [event["candidates"] for event in world.events("a", "sought")] == [4]


def test_an_entity_alone_waits_in_its_first_round_only_and_for_the_share_at_most(world):
    time = Time()
    run(world, "a", time, rounds=3, percentages=[50] * 9, strategy=Merge(waiting=WaitingPolicy(share=0.25)))
    assert time.seconds == pytest.approx(3 * PHASE + 0.25 * PHASE)
    assert len(time.slept) == LOOKS


def test_whoever_published_in_the_round_before_is_waited_for_and_no_longer(world):
    time = Time()
    publish(world, "b")
    run(world, "a", time, rounds=3, percentages=[50] * 12, strategy=Kuber())
    # What was there before the first phase is of the round before; in the second round it is older than that.
    assert sum(time.slept) == pytest.approx(0.5 * PHASE)


def test_without_a_policy_no_entity_waits(world):
    time = Time()
    run(world, "a", time, rounds=2, percentages=[50] * 9, strategy=Merge(waiting=None))
    assert time.slept == []


def test_nobody_is_waited_for_while_the_registry_does_not_answer(world):
    time = Time()

    class Failing:
        """The registry, which stops to answer when an entity discovers."""

        def __getattr__(self, name):
            return getattr(world.registry, name)

        def discover(self, query):
            if not query.initial:
                raise ServiceUnavailableError("The registry does not answer.")
            return world.registry.discover(query)

    run(world, "a", time, rounds=2, percentages=[50] * 9, registry=Failing())
    assert time.slept == []


def test_the_seconds_waited_are_logged(world):
    time = Time()
    run(world, "a", time, rounds=2, percentages=[50] * 9)
    assert [event.get("waited") for event in world.events("a", "sought")] == [0.5 * PHASE, None]


def test_in_a_long_wait_the_registry_is_looked_at_every_minute(world):
    time = Time()
    policy = WaitingPolicy(share=100.0, grace=100.0)
    run(world, "a", time, rounds=1, percentages=[50] * 9, strategy=Merge(waiting=policy))
    assert set(time.slept) == {60.0}
    assert 100 * PHASE <= sum(time.slept) < 100 * PHASE + 60

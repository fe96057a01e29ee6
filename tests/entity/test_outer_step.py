"""Entities that step beyond an average: what they train from, and what they judge, publish and deploy."""

import pytest
import torch

from kuber.domain.knowledge import WEIGHTS
from kuber.domain.policies import OuterStepPolicy
from kuber.domain.strategies.merge import Merge
from kuber.entity.state.checkpoint import Checkpoints, round_path
from kuber.entity.work.steps import evaluate_on_common_set, train_locally
from kuber.learning.architectures import initial_weights
from kuber.learning.outer_step import outer_step
from kuber.learning.weights import load

from .scripted_entities import ARCHITECTURE, Killed, Script, World, training_result

STARTS = (initial_weights(ARCHITECTURE, 0),)
POLICY = OuterStepPolicy(rate=1.5, momentum=0.4)
STRATEGY = Merge(outer_step=POLICY)
EVALUATIONS = [50, 50, 60, 10, 60, 70]  # trained, the candidate, the average, the start; trained, the average


class Recording(Script):
    """Notes what is trained from and what is evaluated; each phase moves the weights by the next amount."""

    def __init__(self, percentages, moves, *, until=10**6):
        super().__init__(percentages, until=until)
        self.starts, self.evaluated, self._moves = [], [], list(moves)

    def __call__(self, work):
        weights = work.arguments.get("weights")
        if work.function is evaluate_on_common_set:
            self.evaluated.append(weights)
        result = super().__call__(work)
        if work.function is train_locally:
            self.starts.append(weights)
            move = self._moves.pop(0)
            moved = {name: tensor + move for name, tensor in weights.items()}
            result = training_result(moved, forward=0)
            return type(result)(**{**{name: getattr(result, name) for name in result.__slots__}, "weights": moved})
        return result


def publish_other(world):
    """Let another entity publish one model after one round."""
    script = Recording([10, 50], [1.0])  # the initial checkpoint, and the trained model
    world.entity("other", rounds=1, execute=script, strategy=STRATEGY, starts=STARTS).run()


def equal(first, second):
    return all(torch.allclose(tensor, second[name], atol=1e-6) for name, tensor in first.items())


def of_round(world, name, round):
    return load(round_path(world.folder / name, round).read_bytes(), ARCHITECTURE)


def test_the_next_phase_starts_beyond_the_average_which_alone_is_judged_and_kept(world):
    publish_other(world)
    script = Recording(EVALUATIONS, [0.5, 0.5])
    world.entity("a", rounds=2, execute=script, strategy=STRATEGY, starts=STARTS).run()
    average = of_round(world, "a", 1)
    rate, momentum = POLICY.scaled([1.0])
    step = outer_step(STARTS[0], average, None, rate=rate, decay=momentum)
    assert equal(script.starts[1], step.start)
    assert not equal(script.starts[1], average)
    assert all(not equal(weights, step.start) for weights in script.evaluated)
    blobs = [world.vault.get(record.artifacts[WEIGHTS].digest) for record in world.published()]
    assert all(not equal(load(data, ARCHITECTURE), step.start) for data in blobs)
    state = Checkpoints(world.folder / "a").latest()
    assert equal(of_round(world, "a", 2), state.weights)
    assert not equal(state.phase_start, state.weights)


def test_an_average_that_is_not_kept_leaves_no_step(world):
    publish_other(world)
    script = Recording([50, 50, 60, 10, 60, 10, 10], [0.5, 0.5])  # the second average is bad, and the midpoint
    world.entity("a", rounds=2, execute=script, strategy=STRATEGY, starts=STARTS).run()
    state = Checkpoints(world.folder / "a").latest()
    assert state.phase_start is None
    assert state.momentum is None


def test_the_first_average_is_compared_with_the_start_as_averages_dip_before_they_gain(world):
    publish_other(world)
    script = Recording([50, 50, 20, 10], [0.5])
    world.entity("a", rounds=1, execute=script, strategy=STRATEGY, starts=STARTS).run()
    (absorbed,) = world.events("a", "absorbed")
    assert (absorbed["before"], absorbed["after"], absorbed["kept"]) == (0.5, 0.2, True)


def test_an_entity_alone_trains_as_without_a_step(world):
    script = Recording([10, 50, 60, 70], [0.5, 0.25, 0.125])
    world.entity("a", rounds=3, execute=script, strategy=STRATEGY, starts=STARTS).run()
    first, second, third = script.starts
    assert equal(first, STARTS[0])
    assert equal(second, {name: tensor + 0.5 for name, tensor in first.items()})
    assert equal(third, {name: tensor + 0.25 for name, tensor in second.items()})


@pytest.mark.parametrize("until", range(1, 8))
def test_after_a_kill_each_phase_starts_where_it_would_have(tmp_path, until):
    worlds = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        worlds.append(World(tmp_path / name))
        publish_other(worlds[-1])
    whole, killed, again = (Recording([50] * 9, [0.5] * 2, until=count) for count in (99, until, 99))
    worlds[0].entity("a", rounds=2, execute=whole, strategy=STRATEGY, starts=STARTS).run()
    with pytest.raises(Killed):
        worlds[1].entity("a", rounds=2, execute=killed, strategy=STRATEGY, starts=STARTS).run()
    worlds[1].restart("a")
    saved = Checkpoints(worlds[1].folder / "a").latest()
    worlds[1].entity("a", rounds=2, execute=again, strategy=STRATEGY, starts=STARTS).run()
    starts = killed.starts[: saved.round] + again.starts
    assert len(starts) == 2
    assert all(equal(start, expected) for start, expected in zip(starts, whole.starts, strict=True))
    assert equal(of_round(worlds[1], "a", 2), of_round(worlds[0], "a", 2))


def test_a_step_shrinks_with_the_share_of_others():
    assert POLICY.scaled([]) == (1.0, 0.0)
    assert POLICY.scaled([1.0, 1.0, 1.0]) == (1.5, 0.4)
    assert POLICY.scaled([2.0] * 5) == (1.5, 0.4)
    rate, momentum = POLICY.scaled([0.5])
    assert 1.0 < rate < 1.5
    assert 0.0 < momentum < 0.4

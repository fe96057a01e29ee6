from functools import partial

import pytest
import torch

from kuber.learning.outer_step import outer_step, server_step


def model(*values: float):
    return {"w": torch.tensor(values)}


def test_the_average_itself_is_the_next_start_without_rate_and_momentum():
    average = model(0.1, -2.5, -0.0)
    step = outer_step(model(1.0, 2.0, 3.0), average, None, rate=1.0, decay=0.0)
    assert step.start["w"].numpy().tobytes() == average["w"].numpy().tobytes()
    assert step.momentum["w"].tolist() == pytest.approx([0.9, 4.5, 3.0])


def test_momentum_of_nesterov_accumulates_over_rounds():
    first = outer_step(model(0.0), model(-1.0), None, rate=1.5, decay=0.4)
    assert first.momentum["w"].item() == pytest.approx(1.0)
    assert first.start["w"].item() == pytest.approx(-1.5 * (1.0 + 0.4 * 1.0))
    second = outer_step(first.start, model(-3.1), first.momentum, rate=1.5, decay=0.4)
    change = -2.1 + 3.1
    momentum = 0.4 * 1.0 + change
    assert second.momentum["w"].item() == pytest.approx(momentum)
    assert second.start["w"].item() == pytest.approx(-2.1 - 1.5 * (change + 0.4 * momentum))


def test_momentum_that_points_against_the_change_is_dropped():
    step = outer_step(model(0.0, 0.0), model(-1.0, -1.0), model(-5.0, 4.0), rate=1.5, decay=0.4)
    alone = outer_step(model(0.0, 0.0), model(-1.0, -1.0), None, rate=1.5, decay=0.4)
    assert torch.equal(step.start["w"], alone.start["w"])
    assert torch.equal(step.momentum["w"], alone.momentum["w"])


def test_server_momentum_steps_by_all_earlier_changes():
    first = server_step(model(0.0), model(-1.0), None, decay=0.4)
    assert (first.start["w"].item(), first.momentum["w"].item()) == (-1.0, 1.0)
    second = server_step(first.start, model(-1.5), first.momentum, decay=0.4)
    assert second.momentum["w"].item() == pytest.approx(0.4 * 1.0 + 0.5)
    assert second.start["w"].item() == pytest.approx(-1.0 - 0.9)
    back = server_step(second.start, model(0.0), second.momentum, decay=0.4)
    assert back.momentum["w"].item() == pytest.approx(0.4 * 0.9 - 1.9), "kept although it points elsewhere"


def test_server_momentum_of_0_gives_the_average_bit_for_bit():
    start = model(1.0, 2.0, 3.0)
    momentum = server_step(start, model(0.3, 0.7, 0.1), None, decay=0.0).momentum
    average = model(0.1, -2.5, -0.0)
    step = server_step(start, average, momentum, decay=0.0)
    assert step.start["w"].numpy().tobytes() == average["w"].numpy().tobytes()


def test_a_model_that_has_not_moved_starts_where_it_is():
    same = model(0.3, -0.7)
    assert torch.equal(outer_step(same, same, None, rate=1.5, decay=0.4).start["w"], same["w"])


@pytest.mark.parametrize("step", [partial(outer_step, rate=2.0, decay=0.0), partial(server_step, decay=0.5)])
def test_statistics_counters_and_masks_are_those_of_the_average(step):
    start = {
        "w": torch.tensor([0.0]),
        "bn.running_mean": torch.tensor([0.0]),
        "bn.running_var": torch.tensor([5.0]),
        "bn.num_batches_tracked": torch.tensor(4),
        "mask": torch.tensor([True]),
    }
    average = {
        "w": torch.tensor([1.0]),
        "bn.running_mean": torch.tensor([2.0]),
        "bn.running_var": torch.tensor([0.5]),
        "bn.num_batches_tracked": torch.tensor(8),
        "mask": torch.tensor([False]),
    }
    stepped = step(start, average, {"w": torch.tensor([-2.0])})
    assert stepped.start["w"].item() == 2.0
    assert all(stepped.start[name] is average[name] for name in average if name != "w")
    assert set(stepped.momentum) == {"w"}


def test_a_step_keeps_the_number_format():
    step = outer_step({"w": torch.zeros(2).bfloat16()}, {"w": torch.ones(2).bfloat16()}, None, rate=1.5, decay=0.4)
    assert step.start["w"].dtype == step.momentum["w"].dtype == torch.bfloat16

import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from kuber.errors import DivergedError
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.evaluation import compute_logits
from kuber.learning.losses import Distillation
from kuber.learning.runtime import build
from kuber.learning.training import Training, span_of, train
from kuber.learning.weights import dump, weights_of

MLP = describe("mlp", {"input_shape": (3,), "classes": 2})
CNN = describe("cnn", {"input_shape": (1, 8, 8), "classes": 2})
SETTINGS = Training(epochs=4, learning_rate=0.1)


class Toy:
    """Samples whose class is the sign of their mean, with a margin; batches of 16 and a shorter last one."""

    def __init__(self, shape: tuple[int, ...], *, count: int = 200, seed: int = 0) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.y = torch.arange(count) % 2
        sign = (2.0 * self.y - 1).view(-1, *(1 for _ in shape))
        self.x = 0.3 * torch.randn(count, *shape, generator=draws) + sign

    def __call__(self):
        return zip(self.x.split(16), self.y.split(16), strict=True)


class Line(nn.Module):
    """w * x for one weight w, to compute SGD by hand."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x


def steps(count: int, *rest):
    """Return an epoch of `count` batches of one sample, x = 1."""
    return lambda: [(torch.ones(1), *rest)] * count


def mean_output(out, *_):
    return out.mean()


@pytest.mark.parametrize("architecture", [MLP, CNN], ids=lambda architecture: architecture.name)
def test_a_separable_problem_is_learned(architecture, runtime):
    shape = architecture.arguments["input_shape"]
    network = build(architecture, initial_weights(architecture, 0), runtime)
    trained = train(network, Toy(shape), settings=SETTINGS, runtime=runtime)
    unseen = Toy(shape, seed=1)
    assert trained.loss < 0.1
    assert torch.equal(compute_logits(network, unseen(), runtime=runtime).argmax(1), unseen.y)


def test_a_student_learns_from_its_teacher_alone(runtime):
    """With alpha 0 and labels that are all wrong, it can only have learned from the teacher."""
    toy = Toy((3,))
    logits = torch.stack([-5.0 * toy.x.mean(1), 5.0 * toy.x.mean(1)], dim=1)
    student = build(MLP, initial_weights(MLP, 0), runtime)
    settings = Distillation(epochs=4, learning_rate=0.1, alpha=0)
    batches = [(x, 1 - y, v) for x, y, v in zip(*(t.split(16) for t in (toy.x, toy.y, logits)), strict=True)]
    train(student, lambda: batches, settings=settings, runtime=runtime, loss=settings.loss)
    assert torch.equal(compute_logits(student, toy(), runtime=runtime).argmax(1), toy.y)


@pytest.mark.parametrize("architecture", [MLP, CNN], ids=lambda architecture: architecture.name)
def test_the_same_seed_gives_the_same_bits(architecture, runtime):
    def once(seed: int) -> bytes:
        torch.manual_seed(len(files))  # global randomness plays no part
        network = build(architecture, initial_weights(architecture, seed), runtime)
        train(network, Toy(architecture.arguments["input_shape"]), settings=SETTINGS, runtime=runtime)
        return dump(weights_of(network))

    files: list[bytes] = []
    for seed in (5, 5, 6):
        files.append(once(seed))
    assert files[0] == files[1] != files[2]


def test_training_leaves_the_global_randomness_unchanged(runtime):
    network = build(CNN, initial_weights(CNN, 0), runtime)
    before = torch.get_rng_state()
    train(network, Toy((1, 8, 8)), settings=SETTINGS, runtime=runtime)
    assert torch.equal(torch.get_rng_state(), before)


def test_momentum_accumulates_within_a_phase(runtime):
    """The gradient of w * 1 is 1: steps of 0.1 and 0.1 * (1 + 0.9), so 0 - 0.1 - 0.19."""
    line = Line(0.0)
    settings = Training(epochs=2, learning_rate=0.1, weight_decay=0)
    train(line, steps(1), settings=settings, runtime=runtime, loss=mean_output)
    assert line.weight.item() == pytest.approx(-0.29)


def test_a_phase_begins_without_the_momentum_of_the_one_before(runtime):
    line = Line(0.0)
    settings = Training(epochs=1, learning_rate=0.1, weight_decay=0)
    for _ in range(2):
        train(line, steps(1), settings=settings, runtime=runtime, loss=mean_output)
    assert line.weight.item() == pytest.approx(-0.2)


COSINE = Training(epochs=2, learning_rate=0.1, momentum=0, weight_decay=0, schedule="cosine")


def test_the_rate_falls_with_each_step_as_half_a_cosine_over_all_rounds(runtime):
    """Two rounds of two steps: the rates are those of torch's own schedule with four steps."""
    line = Line(0.0)
    weights = [0.0]
    for round in (1, 2):
        rate = COSINE.rates(span_of(round, 2), 2)
        train(
            line,
            steps(1),
            settings=COSINE,
            runtime=runtime,
            loss=mean_output,
            rate=rate,
            progress=lambda _: weights.append(line.weight.item()),
        )
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=4)
    for before, after in pairwise(weights):
        assert before - after == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-5)
        theirs.step()
        schedule.step()
    assert theirs.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_constant_rate_and_a_training_without_span_need_no_schedule():
    assert COSINE.rates(None, 10) is None
    assert replace(COSINE, schedule="constant").rates((0.0, 0.5), 10) is None


def test_the_rate_depends_on_the_place_among_the_rounds_only():
    """So a round that is repeated after a kill is the same, and rounds join without a jump."""
    first, second = (COSINE.rates(span_of(round, 8), 100) for round in (1, 2))
    assert first is not None
    assert second is not None
    assert first(0) == 0.1
    assert first(100) == second(0) == pytest.approx(0.0961940)  # 0.1 * (1 + cos(pi / 8)) / 2
    assert COSINE.rates(span_of(8, 8), 100)(100) == pytest.approx(0, abs=1e-12)


def test_weight_decay_pulls_towards_zero(runtime):
    """Without a gradient of the loss, one step goes from 2 to 2 - 0.1 * 5e-4 * 2."""
    line = Line(2.0)
    train(line, steps(1), settings=replace(SETTINGS, epochs=1), runtime=runtime, loss=lambda out: 0 * out.mean())
    assert line.weight.item() == pytest.approx(2 - 1e-4, rel=1e-7)


def test_earlier_gradients_are_cleared(runtime):
    line = Line(0.0)
    line.weight.grad = torch.tensor(100.0)
    settings = Training(epochs=1, learning_rate=0.1, weight_decay=0)
    train(line, steps(1), settings=settings, runtime=runtime, loss=mean_output)
    assert line.weight.item() == pytest.approx(-0.1)


def test_samples_are_counted_and_reported(runtime):
    reported: list[int] = []
    network = build(MLP, initial_weights(MLP, 0), runtime)
    settings = replace(SETTINGS, epochs=2)
    trained = train(network, Toy((3,), count=40), settings=settings, runtime=runtime, progress=reported.append)
    assert reported == [16, 32, 40, 56, 72, 80]
    assert trained.samples == 80
    assert network.training


def test_the_loss_is_the_mean_over_the_samples_of_the_last_epoch(runtime):
    """Two epochs of losses (9, 9) and (1, 4), on batches of 3 and 1 samples: (3 * 1 + 1 * 4) / 4."""
    epochs = iter([[9.0, 9.0], [1.0, 4.0]])

    def epoch():
        return [(torch.ones(n), torch.tensor(loss)) for n, loss in zip((3, 1), next(epochs), strict=True)]

    settings = replace(SETTINGS, epochs=2)
    trained = train(
        Line(0.0), epoch, settings=settings, runtime=runtime, loss=lambda out, value: 0 * out.sum() + value
    )
    assert trained.loss == pytest.approx(1.75)


def test_the_loss_sees_float32_in_every_precision(runtime):
    """On a CPU, autocast would compute log_softmax of bfloat16 logits in bfloat16."""
    seen = []

    def loss(out, labels):
        seen.append(out.dtype)
        return torch.log_softmax(out, 1).mean()

    network = build(MLP, initial_weights(MLP, 0), runtime)
    reduced = replace(runtime, precision="bfloat16")
    train(network, Toy((3,), count=16), settings=replace(SETTINGS, epochs=1), runtime=reduced, loss=loss)
    assert seen == [torch.float32]
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_bfloat16_learns_too(runtime):
    reduced = replace(runtime, precision="bfloat16")
    toy = Toy((3,))
    network = build(MLP, initial_weights(MLP, 0), reduced)
    train(network, toy, settings=SETTINGS, runtime=reduced)
    assert torch.equal(compute_logits(network, toy(), runtime=reduced).argmax(1), toy.y)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("epochs", [1, 3])
def test_an_impossible_learning_rate_diverges(rate, epochs, runtime):
    network = build(MLP, initial_weights(MLP, 0), runtime)
    settings = Training(epochs=epochs, learning_rate=rate)
    with pytest.raises(DivergedError, match=r"^Training diverged in epoch 1: the loss is .*learning_rate\.$"):
        train(network, Toy((3,)), settings=settings, runtime=runtime)


def test_a_last_step_that_ruins_the_weights_is_detected(runtime):
    """The last loss is finite, the weights are not."""
    with pytest.raises(DivergedError, match=r"a weight is not finite.*learning_rate\.$"):
        train(
            Line(0.0),
            steps(1),
            settings=Training(epochs=1, learning_rate=float("inf")),
            runtime=runtime,
            loss=mean_output,
        )


def test_a_sample_that_is_not_finite_diverges(runtime):
    toy = Toy((3,))
    toy.x[150, 1] = float("nan")
    with pytest.raises(DivergedError, match="the loss is nan"):
        train(build(MLP, initial_weights(MLP, 0), runtime), toy, settings=SETTINGS, runtime=runtime)


@pytest.mark.parametrize("settings", [SETTINGS, Distillation(epochs=1, learning_rate=0.1)])
def test_settings_can_be_pickled(settings):
    assert pickle.loads(pickle.dumps(settings)) == settings

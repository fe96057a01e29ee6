from dataclasses import replace

import pytest
import torch
from torch import nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.errors import CorruptKnowledgeError
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.evaluation import EVALUATION_BATCH, compute_logits, evaluate
from kuber.learning.losses import distillation_loss
from kuber.learning.runtime import build

TEST_SET = Digest.of(b"test set")
CNN = describe("cnn", {"input_shape": (1, 8, 8), "classes": 3})


class Identity(nn.Module):
    """Return the input, and note the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, x):
        self.modes.append(self.training)
        return x


def one_hot(*classes: int) -> torch.Tensor:
    return 5.0 * nn.functional.one_hot(torch.tensor(classes), 4)


@pytest.mark.parametrize("training", [True, False])
def test_correct_answers_are_counted_by_class(training, runtime):
    # label        0 0 0 1 1 3     class 2 does not occur
    # prediction   0 2 0 1 0 1     correct: 0 twice of three, 1 once of two, 3 never
    batches = [(one_hot(0, 2, 0, 1), torch.tensor([0, 0, 0, 1])), (one_hot(0, 1), torch.tensor([1, 3]))]
    network = Identity().train(training)
    evaluation = evaluate(network, batches, classes=4, test_set=TEST_SET, runtime=runtime)
    assert evaluation == Evaluation(test_set=TEST_SET, correct=(2, 1, 0, 0), total=(3, 2, 0, 1))
    assert evaluation.right == (0b101, 0b01, 0, 0), "which sample of its class, the first in the lowest bit"
    assert network.modes == [False, False]
    assert network.training is training


def test_logits_come_in_the_order_of_the_samples(runtime):
    x = torch.arange(40.0).view(10, 4)
    batches = list(zip(x.split(4), torch.zeros(10).split(4), strict=True))
    network = Identity()
    out = compute_logits(network, batches, runtime=runtime)
    assert torch.equal(out, x)
    assert (out.dtype, out.device.type) == (torch.float32, "cpu")
    assert network.modes == [False, False, False]


@pytest.fixture
def network(runtime):
    return build(CNN, initial_weights(CNN, 0), runtime)


@pytest.fixture
def batches():
    x = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(20), (torch.arange(50) % 3).split(20), strict=True))


def test_evaluation_changes_neither_the_network_nor_randomness(network, batches, runtime):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    randomness = torch.get_rng_state()
    evaluate(network, batches, classes=3, test_set=TEST_SET, runtime=runtime)
    compute_logits(network, batches, runtime=runtime)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), randomness)


def test_a_sample_is_evaluated_independently_of_its_batch(network, batches, runtime):
    """In evaluation mode BatchNorm does not use statistics of the batch."""
    alone = [(x, y) for xs, ys in batches for x, y in zip(xs.split(1), ys.split(1), strict=True)]
    torch.testing.assert_close(
        compute_logits(network, alone, runtime=runtime), compute_logits(network, batches, runtime=runtime)
    )


def test_evaluation_counts_agree_with_the_logits(network, batches, runtime):
    correct = compute_logits(network, batches, runtime=runtime).argmax(1) == torch.cat([y for _, y in batches])
    evaluation = evaluate(network, batches, classes=3, test_set=TEST_SET, runtime=runtime)
    assert sum(evaluation.correct) == correct.sum()
    assert evaluation.total == (17, 17, 16)


def test_a_students_loss_with_a_teachers_logits_can_be_differentiated(network, batches, runtime):
    teacher = compute_logits(network, batches, runtime=runtime)
    assert not teacher.requires_grad
    student = torch.zeros_like(teacher).requires_grad_()
    labels = torch.cat([y for _, y in batches])
    distillation_loss(student, teacher, labels, temperature=4.0, alpha=0.5).backward()
    (student * teacher).sum().backward()  # needs the teacher itself in the backward pass
    assert student.grad is not None


def test_bfloat16_gives_float32_logits_close_to_the_others(network, batches, runtime):
    reduced = compute_logits(network, batches, runtime=replace(runtime, precision="bfloat16"))
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, compute_logits(network, batches, runtime=runtime), rtol=0.05, atol=0.05)


def test_a_teacher_with_finite_weights_and_infinite_logits_is_refused(runtime):
    """The file is valid: only running the model shows the fault."""
    weights = initial_weights(CNN, 0)
    weights["features.1.running_var"].fill_(-1.0)
    teacher = build(CNN, weights, runtime)
    with pytest.raises(CorruptKnowledgeError, match=r"not finite; .*\.$"):
        compute_logits(teacher, [(torch.ones(2, 1, 8, 8), torch.zeros(2))], runtime=runtime)


def test_evaluation_batches_have_a_sensible_size():
    assert 1 < EVALUATION_BATCH <= 1024

from math import log

import pytest
import torch
import torch.nn.functional as F

from kuber.learning.losses import Distillation, distillation_loss

# Two samples of two classes, temperature T = 2, alpha = 1/4, with logits whose exponentials are whole numbers.
#
# Sample 1, label 0. Student z = (0, 0): softmax(z) = (1/2, 1/2), so CE = -ln 1/2 = ln 2; softened the same.
# Teacher v = (2 ln 3, 0): v/T = (ln 3, 0), e^(v/T) = (3, 1), so its distribution is (3/4, 1/4).
#   KL(teacher || student) = 3/4 ln((3/4)/(1/2)) + 1/4 ln((1/4)/(1/2)) = 3/4 ln(3/2) - 1/4 ln 2 = 3/4 ln 3 - ln 2.
# Sample 2, label 1. Student z = (2 ln 2, 0): e^z = (4, 1), softmax(z) = (4/5, 1/5), CE = -ln 1/5 = ln 5;
#   softened e^(z/T) = (2, 1), so the distribution is (2/3, 1/3).
# Teacher v = (0, 2 ln 4): e^(v/T) = (1, 4), so its distribution is (1/5, 4/5).
#   KL = 1/5 ln((1/5)/(2/3)) + 4/5 ln((4/5)/(1/3)) = 1/5 ln(3/10) + 4/5 ln(12/5).
#
# Loss = alpha * mean CE + (1 - alpha) * T^2 * mean KL, the means over the two samples.
TEMPERATURE, ALPHA = 2.0, 0.25
STUDENT = torch.tensor([[0, 0], [2 * log(2), 0]], dtype=torch.float64)
TEACHER = torch.tensor([[2 * log(3), 0], [0, 2 * log(4)]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])
CE = (log(2) + log(5)) / 2
KL = ((3 / 4 * log(3) - log(2)) + (1 / 5 * log(3 / 10) + 4 / 5 * log(12 / 5))) / 2

# The gradient with respect to z, for each of N = 2 samples: CE gives softmax(z) - onehot(label), KL gives
# (softmax(z/T) - softmax(v/T)) / T, which T^2 turns into T times the difference; each divided by N.
#   Sample 1: hard (1/2 - 1, 1/2) = (-1/2, 1/2);  soft (1/2 - 3/4, 1/2 - 1/4) = (-1/4, 1/4).
#   Sample 2: hard (4/5, 1/5 - 1) = (4/5, -4/5);  soft (2/3 - 1/5, 1/3 - 4/5) = (7/15, -7/15).
HARD = torch.tensor([[-1 / 2, 1 / 2], [4 / 5, -4 / 5]], dtype=torch.float64)
SOFT = torch.tensor([[-1 / 4, 1 / 4], [7 / 15, -7 / 15]], dtype=torch.float64)


def loss_and_gradient(student=STUDENT, teacher=TEACHER, labels=LABELS, *, temperature=TEMPERATURE, alpha=ALPHA):
    student = student.clone().requires_grad_()
    loss = distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
    loss.backward()
    return loss.item(), student.grad


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_the_loss_is_the_one_derived_by_hand(alpha):
    loss, _ = loss_and_gradient(alpha=alpha)
    assert loss == pytest.approx(alpha * CE + (1 - alpha) * TEMPERATURE**2 * KL, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_the_gradient_is_the_one_derived_by_hand(alpha):
    _, gradient = loss_and_gradient(alpha=alpha)
    torch.testing.assert_close(gradient, (alpha * HARD + (1 - alpha) * TEMPERATURE * SOFT) / 2)


def test_the_divergence_is_from_the_teacher_to_the_student():
    """The other direction has another value, so the arguments are not mixed up."""
    there, _ = loss_and_gradient(alpha=0)
    back, _ = loss_and_gradient(TEACHER, STUDENT, alpha=0)
    assert there == pytest.approx(TEMPERATURE**2 * KL)
    assert back != pytest.approx(there)


def test_alpha_1_is_cross_entropy_for_any_teacher():
    for teacher in (TEACHER, STUDENT, -100 * TEACHER):
        loss, _ = loss_and_gradient(teacher=teacher, alpha=1)
        assert loss == pytest.approx(F.cross_entropy(STUDENT, LABELS).item())


def test_alpha_0_ignores_the_labels():
    assert loss_and_gradient(alpha=0)[0] == loss_and_gradient(labels=1 - LABELS, alpha=0)[0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 100.0])
def test_a_student_that_agrees_with_its_teacher_has_no_loss_and_no_gradient(temperature):
    shifted = STUDENT + 3.0  # a shift of all classes leaves the distribution unchanged
    loss, gradient = loss_and_gradient(teacher=shifted, temperature=temperature, alpha=0)
    assert loss == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("temperature", [2.0, 4.0, 10.0])
def test_logits_scaled_with_the_temperature_give_its_square(temperature):
    """z/T and v/T stay, so KL stays and only the factor T^2 is left."""
    once, _ = loss_and_gradient(temperature=1, alpha=0)
    scaled, _ = loss_and_gradient(temperature * STUDENT, temperature * TEACHER, temperature=temperature, alpha=0)
    assert scaled == pytest.approx(temperature**2 * once, rel=1e-12)


def test_at_a_high_temperature_the_gradient_neither_vanishes_nor_grows():
    """softmax(z/T) tends to 1/K + (z - mean z)/(K T): T times the difference tends to ((z - v) centred)/K."""
    difference = STUDENT - TEACHER
    limit = (difference - difference.mean(1, keepdim=True)) / 2 / 2  # K = 2 classes, N = 2 samples
    _, gradient = loss_and_gradient(temperature=1000, alpha=0)
    torch.testing.assert_close(gradient, limit, rtol=1e-3, atol=0)


def test_extreme_logits_stay_finite():
    loss, gradient = loss_and_gradient(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]), torch.tensor([1]))
    assert torch.isfinite(torch.tensor(loss))
    assert torch.isfinite(gradient).all()


def test_the_loss_of_the_settings_takes_a_batch_in_the_order_of_training():
    settings = Distillation(epochs=1, learning_rate=0.1, temperature=TEMPERATURE, alpha=ALPHA)
    expected, _ = loss_and_gradient()
    assert settings.loss(STUDENT, LABELS, TEACHER).item() == pytest.approx(expected)


def test_the_defaults():
    settings = Distillation(epochs=3, learning_rate=0.01)
    assert (settings.temperature, settings.alpha, settings.momentum, settings.weight_decay) == (4.0, 0.5, 0.9, 5e-4)


@pytest.mark.parametrize("column", [False, True])
def test_a_student_may_have_one_logit_for_two_classes(column):
    second = STUDENT[:, 1] - STUDENT[:, 0]
    one = second.unsqueeze(1) if column else second
    found = distillation_loss(one, TEACHER, LABELS.double(), temperature=TEMPERATURE, alpha=ALPHA)
    assert torch.allclose(found, distillation_loss(STUDENT, TEACHER, LABELS, temperature=TEMPERATURE, alpha=ALPHA))

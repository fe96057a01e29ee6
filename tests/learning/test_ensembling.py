"""Ensembles of teachers, and the guide loss of a student."""

import pytest
import torch
import torch.nn.functional as F

from kuber.learning.ensembling import (
    ensemble_log_probs,
    guidance_shares,
    guide_loss,
    mixture_log_probs,
    not_true_distillation,
)

DRAW = torch.Generator().manual_seed(0)
LOGITS = [torch.randn(7, 4, generator=DRAW) * 3 for _ in range(3)]
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2])
EQUAL = [torch.full((4,), 0.5)] * 3


def test_an_ensemble_of_one_teacher_is_that_teacher():
    log_probs = ensemble_log_probs(LOGITS[:1], EQUAL[:1], temperature=2.0, sharpness=2.0)
    torch.testing.assert_close(log_probs, F.log_softmax(LOGITS[0] / 2, dim=1))


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 3.0])
def test_equally_competent_teachers_are_averaged(sharpness):
    log_probs = ensemble_log_probs(LOGITS, EQUAL, temperature=1.5, sharpness=sharpness)
    mean = torch.stack([F.softmax(logits / 1.5, dim=1) for logits in LOGITS]).mean(0)
    torch.testing.assert_close(log_probs.exp(), mean)


def test_a_teacher_is_weighted_by_its_expected_recall():
    first, second = torch.log(torch.tensor([[0.8, 0.2]])), torch.log(torch.tensor([[0.5, 0.5]]))
    recalls = [torch.tensor([1.0, 0.0]), torch.tensor([0.2, 0.6])]
    log_probs = ensemble_log_probs([first, second], recalls, temperature=1.0, sharpness=2.0)
    # Expected recalls 0.8 and 0.4: weights 0.64 and 0.16 of 0.8.
    torch.testing.assert_close(log_probs.exp(), torch.tensor([[0.8 * 0.8 + 0.2 * 0.5, 0.8 * 0.2 + 0.2 * 0.5]]))


def test_the_probabilities_sum_to_one():
    recalls = [torch.rand(4, generator=DRAW) for _ in LOGITS]
    log_probs = ensemble_log_probs(LOGITS, [*recalls[:2], torch.zeros(4)], temperature=3.0, sharpness=2.0)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(7))


def test_the_loss_is_the_one_derived_by_hand():
    student = torch.tensor([[9.0, 0.0, 0.0]])
    teacher = torch.log(torch.tensor([[0.2, 0.6, 0.2]]))
    # Over the classes that are not the label: the teacher has 3/4 and 1/4, the student 1/2 and 1/2.
    loss = not_true_distillation(student, teacher, torch.tensor([0]), temperature=1.0)
    expected = 0.75 * torch.log(torch.tensor(1.5)) + 0.25 * torch.log(torch.tensor(0.5))
    torch.testing.assert_close(loss, expected)


def test_the_true_class_has_no_gradient():
    student = torch.randn(7, 4, generator=DRAW, requires_grad=True)
    teacher = ensemble_log_probs(LOGITS, EQUAL, temperature=2.0, sharpness=1.0)
    not_true_distillation(student, teacher, LABELS, temperature=2.0).backward()
    assert (student.grad.gather(1, LABELS.unsqueeze(1)) == 0).all()
    torch.testing.assert_close(student.grad.sum(1), torch.zeros(7), atol=1e-6, rtol=0)


def test_a_student_that_agrees_has_no_loss():
    teacher = F.log_softmax(LOGITS[0] / 2, dim=1)
    assert not_true_distillation(LOGITS[0], teacher, LABELS, temperature=2.0) == pytest.approx(0, abs=1e-6)


def test_temperature_leaves_the_scale_of_gradients():
    """For large T the gradient does not depend on T."""
    grads = []
    for temperature in (50.0, 100.0):
        student = LOGITS[1].clone().requires_grad_()
        teacher = F.log_softmax(LOGITS[0] / temperature, dim=1)
        not_true_distillation(student, teacher, LABELS, temperature=temperature).backward()
        grads.append(student.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0.05, atol=1e-3)


def test_guidance_has_the_share_of_the_best_advantage_on_each_class():
    assert guidance_shares([(0.0, 0.05, 0.4), (0.0, 0.02, 0.1)], 0.1) == pytest.approx([0.0, 0.5, 4.0])
    assert guidance_shares([(0.0, 0.0)], 0.0) is None, "whatever they know"
    assert guidance_shares([], 0.1) is None


@pytest.mark.parametrize("classes", [2, 4])
def test_guidance_is_zero_without_and_whole_with_an_advantage_on_all_classes(classes):
    student, labels = LOGITS[0][:, :classes], LABELS % classes
    teacher = F.log_softmax(LOGITS[1][:, :classes] / 2, dim=1)
    whole = guide_loss(student, teacher, labels, temperature=2.0)
    ones = guide_loss(student, teacher, labels, temperature=2.0, shares=torch.ones(classes))
    torch.testing.assert_close(ones, whole)
    assert guide_loss(student, teacher, labels, temperature=2.0, shares=torch.zeros(classes)) == 0
    one_hot = F.one_hot(labels, classes).float()
    half = guide_loss(student, teacher, one_hot, temperature=2.0, shares=torch.full((classes,), 0.5))
    torch.testing.assert_close(half, whole / 2)


def test_with_the_own_class_the_whole_distributions_are_compared():
    student, teacher = LOGITS[0], F.log_softmax(LOGITS[1] / 3, dim=1)
    loss = guide_loss(student, teacher, LABELS, temperature=3.0, own_class=True)
    whole = F.kl_div(F.log_softmax(student / 3, dim=1), teacher, reduction="batchmean", log_target=True)
    torch.testing.assert_close(loss, 9 * whole)
    assert loss != guide_loss(student, teacher, LABELS, temperature=3.0)


def test_a_mixture_is_of_probabilities_and_reads_no_model_without_a_share():
    first, second = LOGITS[0].softmax(1), LOGITS[1].softmax(1)
    torch.testing.assert_close(mixture_log_probs(LOGITS[:2], (0.25, 0.75)).exp(), 0.25 * first + 0.75 * second)
    broken = torch.full_like(LOGITS[0], torch.nan)
    torch.testing.assert_close(mixture_log_probs((LOGITS[0], broken), (1.0, 0.0)).exp(), first)


def test_a_sample_counts_by_the_share_of_what_the_teacher_takes_it_for():
    student = torch.tensor([[0.0, 1.0, 0.0]])
    teacher = torch.log(torch.tensor([[0.5, 0.1, 0.4]]))  # beside the label 0: class 1 by 1 to 4
    labels = torch.tensor([0])
    whole = not_true_distillation(student, teacher, labels, temperature=1.0)
    for shares, factor in (((1.0, 0.0, 0.0), 0.0), ((0.0, 1.0, 0.0), 0.2), ((0.0, 0.0, 0.5), 0.4)):
        scaled = not_true_distillation(student, teacher, labels, temperature=1.0, shares=torch.tensor(shares))
        torch.testing.assert_close(scaled, factor * whole)
    unknown = torch.full((1, 3), -torch.inf)
    assert not_true_distillation(student, unknown, labels, temperature=1.0, shares=torch.ones(3)) == 0

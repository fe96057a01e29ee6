import pytest
import torch
import torch.nn.functional as F

from kuber.learning.losses import balanced_softmax

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.2, 0.1]])
LABELS = torch.tensor([0, 1])


def test_equally_frequent_classes_give_plain_cross_entropy():
    torch.testing.assert_close(
        balanced_softmax(torch.tensor([7, 7, 7]))(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS)
    )


def test_the_loss_is_the_formula_of_the_paper():
    counts = torch.tensor([6, 3, 1])
    weighted = counts * LOGITS.exp()
    expected = -(weighted[[0, 1], LABELS] / weighted.sum(1)).log().mean()
    torch.testing.assert_close(balanced_softmax(counts)(LOGITS, LABELS), expected)


def test_a_class_without_samples_is_not_pushed_down():
    logits = LOGITS.clone().requires_grad_()
    balanced_softmax(torch.tensor([5, 5, 0]))(logits, LABELS).backward()
    assert logits.grad is not None
    assert logits.grad[:, 2].tolist() == [0.0, 0.0]
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0].item() == pytest.approx(-logits.grad[0, 1].item())


def test_probabilities_leave_out_a_class_without_samples():
    loss = balanced_softmax(torch.tensor([3.0, 1.0, 0.0]))
    logits = torch.randn(5, 3, requires_grad=True)
    probabilities = torch.tensor([[0.25, 0.75, 0.0]]).expand(5, 3)
    value = loss(logits, probabilities)
    expected = F.cross_entropy(logits[:, :2] + torch.tensor([0.75, 0.25]).log(), probabilities[:, :2])
    assert torch.allclose(value, expected)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(loss(logits, torch.full((5, 3), 1 / 3)))  # smoothed labels

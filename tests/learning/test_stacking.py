"""Stacking: how much a model's own answers and those of teachers count, by labelled samples."""

import torch
from torch import nn

from kuber.learning.stacking import Stacked, StackedTeacher, combined, fitted_weights

EVEN = torch.full((3,), 1 / 3).log()
LABELS = torch.arange(90) % 3
SURE = 4.0 * nn.functional.one_hot(LABELS, 3).float()
DRAWS = torch.Generator().manual_seed(0)
NOISE = torch.randn(90, 3, generator=DRAWS)


def fitted(own, teachers, prior=EVEN, labels=LABELS):
    return fitted_weights(own, teachers, labels, prior, torch.ones(len(labels)))


def accuracy(logits):
    return (logits.argmax(1) == LABELS).float().mean().item()


def test_a_teacher_counts_that_knows_what_the_model_does_not():
    own = torch.where((LABELS == 2).unsqueeze(1), NOISE, SURE)  # it guesses the third class
    theirs = torch.where((LABELS == 0).unsqueeze(1), NOISE, SURE)
    weights = fitted(own, [theirs])
    assert weights[:2].min() > 0.3
    assert accuracy(combined(own, [theirs], weights, EVEN)) > max(accuracy(own), accuracy(theirs))


def test_a_liar_counts_nothing_and_the_others_as_if_it_were_not_there():
    own = torch.where((LABELS == 2).unsqueeze(1), NOISE, SURE)
    liar = SURE.roll(1, dims=1)
    assert fitted(own, [liar])[1] == 0
    assert torch.allclose(fitted(own, [liar, SURE])[[0, 2, 3]], fitted(own, [SURE]))


def test_few_samples_change_little():
    own, theirs = NOISE[:3], SURE[:3]
    weights = fitted(own, [theirs], labels=LABELS[:3])
    assert torch.allclose(weights, torch.tensor([1.0, 0.0, 0.0]), atol=0.7)
    assert torch.allclose(fitted(own, [torch.zeros(3, 3)], labels=LABELS[:3])[1:], torch.zeros(2), atol=1e-3)


def test_a_prior_that_the_logits_have_too_much_of_is_taken_out():
    prior = torch.tensor([0.8, 0.1, 0.1]).log()
    assert fitted(NOISE + SURE / 4 + 2 * prior, [], prior)[-1] < -0.5


def test_more_important_samples_count_more():
    own, importance = NOISE, torch.where(LABELS == 0, 1.0, 1e-6)
    good_for_first = torch.where((LABELS == 0).unsqueeze(1), SURE, SURE.roll(1, dims=1))
    assert fitted(own, [good_for_first])[1] < fitted_weights(own, [good_for_first], LABELS, EVEN, 3 * importance)[1]


def test_classes_that_a_teacher_does_not_know_keep_the_share_that_the_model_gives_them():
    own, teacher = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[-torch.inf, 0.0, 2.0]])
    found = combined(own, [teacher], torch.tensor([0.0, 1.0, 0.0]), EVEN).exp()
    assert torch.allclose(found[0, 0], torch.tensor(0.5))
    assert torch.allclose(found[0, 1:], 0.5 * torch.tensor([0.0, 2.0]).softmax(0))
    assert fitted(NOISE, [torch.full((90, 3), -torch.inf).index_fill(1, torch.tensor([2]), 0.0)]).isfinite().all()


def test_the_model_alone_keeps_its_answers():
    own, teacher = nn.Linear(2, 3), StackedTeacher(nn.Linear(2, 3), torch.zeros(3), torch.float32)
    x = torch.randn(5, 2, generator=DRAWS)
    made = Stacked(own, [teacher], torch.tensor([1.0, 0.0, 0.0]), EVEN)
    assert torch.allclose(made(x), own(x).log_softmax(1), atol=1e-6)

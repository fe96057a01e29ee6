"""Adjustment of logits to a prior, and its estimation from unlabelled samples."""

import pytest
import torch
from torch import nn

from kuber.domain.prior import Frequencies, frequencies, uniform
from kuber.learning.evaluation import correct_after
from kuber.learning.onnx_export import export
from kuber.learning.priors import PriorAdjusted, estimated, log_ratio

MEANS = torch.tensor([-1.0, 0.5, 2.0])  # of three classes on a line, with standard deviation 1


def planted(prior: Frequencies, samples: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of three classes with this prior, and their labels."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.multinomial(torch.tensor(prior), samples, replacement=True, generator=generator)
    return MEANS[labels] + torch.randn(samples, generator=generator), labels


def logits_of(x: torch.Tensor, carried: Frequencies) -> torch.Tensor:
    """The logits of the ideal model for these samples, trained on classes with this prior."""
    return -((x.unsqueeze(1) - MEANS) ** 2) / 2 + torch.tensor(carried).log()


def test_logits_that_are_adjusted_are_those_of_a_model_of_the_other_prior() -> None:
    x, _ = planted(uniform(3), samples=50)
    skewed, other = (0.7, 0.2, 0.1), (0.1, 0.1, 0.8)
    torch.testing.assert_close(logits_of(x, skewed) + log_ratio(skewed, other), logits_of(x, other))
    halfway = log_ratio(skewed, other, strength=0.5)
    torch.testing.assert_close(2 * halfway, log_ratio(skewed, other))
    assert log_ratio(skewed, skewed).tolist() == [0.0, 0.0, 0.0]  # not one answer changes


@pytest.mark.parametrize("target", [(0.5, 0.5), (1.0, 0.0, 0.0)])
def test_priors_of_other_classes_or_without_a_class_are_refused(target: Frequencies) -> None:
    with pytest.raises(ValueError, match="a positive frequency for each class"):
        log_ratio(uniform(3), target)


def test_the_right_prior_gives_the_most_right_answers() -> None:
    prior = (0.9, 0.05, 0.05)
    x, labels = planted(prior)
    logits = logits_of(x, uniform(3))
    shifts = torch.stack([log_ratio(uniform(3), target) for target in (uniform(3), prior, (0.05, 0.05, 0.9))])
    before, adjusted, wrong = correct_after(logits, labels, shifts).sum(1).tolist()
    assert adjusted > before > wrong


@pytest.mark.parametrize("carried", [uniform(3), (0.2, 0.2, 0.6)])
@pytest.mark.parametrize("prior", [(0.6, 0.3, 0.1), (0.05, 0.9, 0.05), (1.0, 0.0, 0.0)])
def test_a_planted_prior_is_found_without_labels(prior: Frequencies, carried: Frequencies) -> None:
    x, _ = planted(prior)
    found = estimated(logits_of(x, carried), carried)
    assert found == pytest.approx(prior, abs=0.02)
    assert min(found) > 0


def test_an_estimate_of_few_samples_keeps_every_class_possible() -> None:
    found = estimated(torch.tensor([[50.0, 0.0, -torch.inf]]), uniform(3))
    assert found == pytest.approx(frequencies([1, 0, 0]))
    for logits in (torch.zeros(0, 3), torch.full((2, 3), torch.nan), torch.zeros(2, 4)):
        with pytest.raises(ValueError, match="finite logits of at least one sample"):
            estimated(logits, uniform(3))


def test_an_adjusted_network_adds_the_shift_to_what_it_returns() -> None:
    network = nn.Linear(2, 3)
    shift = log_ratio(uniform(3), (0.5, 0.25, 0.25))
    adjusted = PriorAdjusted(network, shift)
    x = torch.randn(4, 2)
    torch.testing.assert_close(adjusted(x), network(x) + shift)
    assert adjusted.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def test_the_prior_is_inside_an_exported_graph() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    adjusted = PriorAdjusted(network, log_ratio(uniform(3), (0.98, 0.01, 0.01)))
    x = torch.randn(5, 4)
    session = onnxruntime.InferenceSession(export(adjusted, input_shape=(4,)))
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), adjusted(x), rtol=1e-4, atol=1e-4)


def test_answers_that_are_not_finite_are_wrong() -> None:
    logits = torch.tensor([[torch.nan, 1.0], [torch.inf, 0.0], [2.0, -torch.inf]])
    assert correct_after(logits, torch.tensor([0, 0, 0]), torch.zeros(1, 2)).tolist() == [[1, 0]]

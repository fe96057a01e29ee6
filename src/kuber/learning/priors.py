"""Adjustment of logits to other class frequencies than those they carry, and estimation of unknown ones."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.domain.prior import POWERS, Frequencies, frequencies, uniform
from kuber.learning.evaluation import has_valid_logits

ESTIMATION_STEPS = 1000  # at most
ESTIMATION_TOLERANCE = 1e-6  # change of a frequency in a step below which the estimate has converged


def log_ratio(carried: Frequencies, target: Frequencies, *, strength: float = 1.0) -> Tensor:
    """Return what to add to logits that carry one prior so that they carry another: float32 of shape (classes,).

    It is `strength` times the log of the ratio target / carried: Menon et al., arXiv 2007.07314, section 4.1. Equal
    priors give zeros. Raises ValueError when the priors differ in classes, or a frequency is not positive.
    """
    if len(carried) != len(target) or not all(share > 0 for share in (*carried, *target)):
        raise ValueError("priors need a positive frequency for each class, and the same classes")
    before, after = (torch.tensor(prior, dtype=torch.float64).log() for prior in (carried, target))
    return (strength * (after - before)).float()


def candidate_shifts(carried: Frequencies, target: Frequencies) -> Tensor:
    """Return what to add to logits that carry one of POWERS of a prior, so that they carry the target.

    The result has shape (powers, classes).
    """
    shift, flat = log_ratio(carried, target), uniform(len(carried))
    return torch.stack([shift + (1 - power) * log_ratio(flat, carried) for power in POWERS])


def estimated(logits: Tensor, carried: Frequencies) -> Frequencies:
    """Return the class frequencies of unlabelled samples, estimated from their logits, shape (samples, classes).

    Expectation maximisation: posteriors under the present estimate, then their mean as the next estimate. Saerens,
    Latinne and Decaestecker, Neural Computation 14 (2002), section 2.2. The result is smoothed as counts of as many
    samples are, so that every class stays possible. Logits need to be calibrated: confident wrong answers are
    counted as if they were right. Raises ValueError without samples, or when a logit is not finite.
    """
    samples, classes = logits.shape
    if samples == 0 or classes != len(carried) or not has_valid_logits(logits):
        raise ValueError("an estimate needs finite logits of at least one sample, and the prior that they carry")
    trained = torch.tensor(carried, dtype=torch.float64)
    log_likelihoods = F.log_softmax(logits.detach().double().cpu(), dim=1) - trained.log()
    found = trained
    for _ in range(ESTIMATION_STEPS):
        before, found = found, F.softmax(log_likelihoods + found.log(), dim=1).mean(0)
        if (found - before).abs().max() < ESTIMATION_TOLERANCE:
            break
    return frequencies((found * samples).tolist())


class PriorAdjusted(nn.Module):
    """A network whose logits are adjusted: what it returns, plus a shift, shape (classes,), such as `log_ratio`."""

    shift: Tensor

    def __init__(self, network: nn.Module, shift: Tensor) -> None:
        """`network` returns logits, shape (batch, classes); wrap one that returns another form in `LogitsModel`."""
        super().__init__()
        self.network = network
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the adjusted logits."""
        logits: Tensor = self.network(*inputs, **named)
        return logits + self.shift.to(logits)

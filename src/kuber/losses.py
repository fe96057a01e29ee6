"""Losses for a training loop of your own."""

from kuber.learning.ensembling import guide_loss, not_true_distillation
from kuber.learning.losses import balanced_softmax, distillation_loss

__all__ = ["balanced_softmax", "distillation_loss", "guide_loss", "not_true_distillation"]

"""Losses for private data whose classes are not equally frequent."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kuber.learning.training import Loss


def balanced_softmax(counts: Tensor) -> Loss:
    """Cross-entropy of logits shifted by the log frequency of each class: Ren et al., arXiv 2007.10740, equation 4.

    `counts`, shape (classes,), is of the training samples. The network then learns as if all classes were equally
    frequent. A class without samples has frequency zero and leaves the softmax: nothing pushes its logit down.
    """
    shift = torch.log(counts.float() / counts.sum())

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits + shift, labels)

    return loss

"""The model that an entity deploys, chosen anew at the end of each round on the common test set.

Judging an average takes no time of the entity in a simulation: it can be done beside the next round, on which it has
no influence. It counts as compute.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kuber.domain.deployment import AVERAGED, Deployed, deploy
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture
from kuber.entity.work.average import AverageResult
from kuber.entity.work.pair import PairResult
from kuber.entity.work.personal import PersonalResult
from kuber.errors import KnowledgeError
from kuber.learning.weights import Weights

log = logging.getLogger("kuber")

PERSONAL_FILE = "personal.safetensors"  # in the folder of an entity, after its last round


def private_file(round: int) -> str:
    """Return the name of the file of a private network at the end of a round, in the folder of its entity."""
    return f"private-{round:04d}.safetensors"


Average = Callable[[tuple[Weights, ...]], AverageResult]  # of models, the newest first


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateAnswer:
    """The private network whose probabilities are averaged with those of the deployed model, its proxy."""

    weights: Weights
    share: float  # of the proxy
    accuracy: float  # of both together on the common test set, 0 to 1
    own_accuracy: float  # likewise, on the entity's own mixture of classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The model deployed at the end of a round, and what it cost to choose it."""

    deployed: Deployed
    average: Weights | None = None  # None when no average is deployed, or not a new one
    personal: Weights | None = None  # the deployed model with a personal head; None where it has none
    private: PrivateAnswer | None = None  # None where the deployed model answers alone
    forward: int = 0  # samples that ran forward
    seconds: float = 0.0

    def with_private(self, weights: Weights, result: PairResult) -> "Decision":
        """Return the decision with a private network beside the deployed model, and what that cost."""
        answer = PrivateAnswer(
            weights=weights, share=result.share, accuracy=result.accuracy, own_accuracy=result.own_accuracy
        )
        return replace(
            self,
            private=answer,
            forward=self.forward + result.forward,
            seconds=self.seconds + result.seconds,
        )

    def with_personal(self, result: PersonalResult) -> "Decision":
        """Return the decision with a personal model, if there is one that is better, and what that cost."""
        beaten = self.private is not None and self.private.own_accuracy >= result.after
        return replace(
            self,
            personal=None if beaten else result.weights,
            forward=self.forward + result.forward,
            seconds=self.seconds + result.seconds,
        )

    def detail(self, round: int, checkpoint: str | None) -> dict[str, Any]:
        """Return the field `deployed` of the event `round-ended`."""
        detail = {
            "model": self.deployed.choice(round),
            "round": self.deployed.round,
            "accuracy": self.deployed.evaluation.accuracy,
            "checkpoint": checkpoint,
            "forward": self.forward,
            "seconds": self.seconds,
        }
        if self.personal is not None:
            detail["personal"] = PERSONAL_FILE
        if self.private is not None:
            private = None if checkpoint is None else private_file(round)
            detail |= {"accuracy": self.private.accuracy, "private": private, "share": self.private.share}
        return detail


class RoundModels(Protocol):
    """The models at the end of an entity's rounds, of which at least the last few are kept."""

    def load_round(self, round: int, architecture: Architecture) -> Weights | None:
        """Return the model at the end of a round; None if it is not kept. Raises KnowledgeError if it is damaged."""


def decide(
    before: Deployed | None,
    *,
    round: int,
    current: Weights,
    evaluation: Evaluation,
    earlier: tuple[Weights, ...],
    average: Average,
) -> Decision:
    """Decide which model is deployed at the end of a round, given its `current` model and those of `earlier` rounds.

    The models of earlier rounds are the newest first; without any there is no average.
    """
    last = Deployed(round=round, evaluation=evaluation)
    if not earlier:
        return Decision(deployed=deploy(before, last, None))
    result = average((current, *earlier))
    candidate = Deployed(round=round, evaluation=result.evaluation, averaged=True)
    chosen = deploy(before, last, candidate)
    return Decision(
        deployed=chosen,
        average=result.weights if chosen is candidate else None,
        forward=sum(result.evaluation.total),
        seconds=result.seconds,
    )


def earlier_models(models: RoundModels, round: int, architecture: Architecture) -> tuple[Weights, ...]:
    """Return the models of the rounds before that an average at the end of this one consists of, the newest first."""
    found: list[Weights] = []
    for number in range(round - 1, max(0, round - AVERAGED), -1):
        try:
            weights = models.load_round(number, architecture)
        except KnowledgeError as error:
            log.warning("The model of round %d is left out of the average: %s", number, error.message)
            break
        if weights is None:
            break
        found.append(weights)
    return tuple(found)

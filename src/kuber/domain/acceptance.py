"""Acceptance of a model that absorbed knowledge: by what its owner cares for, and class by class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Literal

from kuber.domain.evaluation import Evaluation
from kuber.domain.significance import are_comparable, has_fallen, paired_counts

# Accuracy on the evaluation data as they are, mean recall, recalls weighted by the own samples, or any other figure.
Objective = Literal["accuracy", "balanced", "own"] | Callable[[Evaluation], float]
OBJECTIVES = ("accuracy", "balanced", "own")

LEARNED = 1.25  # times chance: below that mean recall a model has learned nothing that could be lost


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptancePolicy:
    """When to keep a result."""

    tolerance: float = 0.0  # of the objective that may be lost
    noise: float = 0.0  # standard errors of the loss that may be lost besides: few samples prove little
    objective: Objective = "accuracy"
    class_tolerance: float = 0.2  # recall that a class may lose, whatever the noise
    confidence: float | None = 0.95  # with which a class must have fallen; None: no class is judged by itself

    def __post_init__(self) -> None:
        if not callable(self.objective) and self.objective not in OBJECTIVES:
            raise ValueError(f"an objective is one of {', '.join(OBJECTIVES)}, or a function of an evaluation")
        if self.confidence is not None and not 0.5 <= self.confidence < 1:
            raise ValueError("a confidence is from 0.5 to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFall:
    """A class whose recall fell."""

    label: int
    before: float
    after: float


def is_no_worse(
    before: Evaluation, after: Evaluation, policy: AcceptancePolicy, *, class_counts: Sequence[int] | None = None
) -> bool:
    """Return whether the objective fell by no more than the policy tolerates, and no class beyond its noise.

    A class that fell is made up for if the mean recall over all classes has not fallen: while a model learns, its
    classes rise and fall by turns. `class_counts` are the entity's own samples of each class, for the objective
    `own`.
    """
    lost = objective_of(before, policy, class_counts) - objective_of(after, policy, class_counts)
    if lost > tolerated_loss(before, policy, after=after, class_counts=class_counts):
        return False
    return mean_recall(after) >= mean_recall(before) or not fallen_classes(before, after, policy)


def fallen_classes(before: Evaluation, after: Evaluation, policy: AcceptancePolicy) -> tuple[ClassFall, ...]:
    """Return the classes that fell by more than the policy tolerates and noise explains, the deepest fall first.

    A model that has just begun answers everything with few classes, whose recall must fall while it learns. So no
    class counts while the mean recall is near chance.
    """
    if policy.confidence is None or not are_comparable(before, after):
        return ()
    if mean_recall(before) * len([total for total in before.total if total]) < LEARNED:
        return ()
    falls = []
    for label, (then, now) in enumerate(zip(before.recalls, after.recalls, strict=True)):
        if then is None or now is None or then - now <= policy.class_tolerance:
            continue
        if has_fallen(before, after, label, confidence=policy.confidence):
            falls.append(ClassFall(label=label, before=then, after=now))
    return tuple(sorted(falls, key=lambda fall: fall.after - fall.before))


def mean_recall(evaluation: Evaluation) -> float:
    """Return the mean recall over the classes that have samples: the balanced accuracy."""
    return fmean(recall for recall in evaluation.recalls if recall is not None)


def objective_of(
    evaluation: Evaluation, policy: AcceptancePolicy, class_counts: Sequence[int] | None = None
) -> float:
    """Return the figure that the policy judges by, such as the accuracy."""
    if callable(policy.objective):
        return policy.objective(evaluation)
    weights = _class_weights(evaluation, policy, class_counts)
    if weights is None:
        return evaluation.accuracy
    return sum(weight * (recall or 0.0) for weight, recall in zip(weights, evaluation.recalls, strict=True))


def tolerated_loss(
    before: Evaluation,
    policy: AcceptancePolicy,
    *,
    after: Evaluation | None = None,
    class_counts: Sequence[int] | None = None,
) -> float:
    """Return how much of the objective may be lost.

    The standard error is that of one evaluation, or of the loss on the same samples where that is larger. For an
    objective of the owner's it is that of the accuracy.
    """
    if not policy.noise:
        return policy.tolerance
    weights = None if callable(policy.objective) else _class_weights(before, policy, class_counts)
    if weights is None:
        weights = [total / sum(before.total) for total in before.total]
    if weights == [total / sum(before.total) for total in before.total]:
        error = sqrt(before.accuracy * (1 - before.accuracy) / sum(before.total))
    else:
        recalls = [recall or 0.0 for recall in before.recalls]
        error = _weighted_error(weights, [r * (1 - r) / (n or 1) for r, n in zip(recalls, before.total, strict=True)])
    pairs = None if after is None else paired_counts(before, after)
    if pairs is not None:
        error = max(error, _weighted_error(weights, [pair.standard_error**2 for pair in pairs]))
    return policy.tolerance + policy.noise * error


def _weighted_error(weights: Sequence[float], variances: Sequence[float]) -> float:
    return sqrt(sum(weight**2 * variance for weight, variance in zip(weights, variances, strict=True)))


def _class_weights(
    evaluation: Evaluation, policy: AcceptancePolicy, class_counts: Sequence[int] | None
) -> list[float] | None:
    """Return the weight of each class's recall in the objective; None for the accuracy as it is.

    Classes without samples in the evaluation weigh nothing. An owner who states no samples of the classes is taken
    to have them in the proportions of the evaluation data.
    """
    if policy.objective == "balanced":
        given: Sequence[float] = [1.0] * len(evaluation.total)
    elif policy.objective == "own" and class_counts is not None and len(class_counts) == len(evaluation.total):
        given = class_counts
    else:
        return None
    known = [count if total else 0.0 for count, total in zip(given, evaluation.total, strict=True)]
    whole = sum(known)
    return [count / whole for count in known] if whole else None

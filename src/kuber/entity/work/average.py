"""Work step of the model to deploy: average the weights of an entity's last rounds, and evaluate the average."""

import time
from dataclasses import dataclass, replace

from kuber.domain.evaluation import Evaluation
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import FORWARD_COST, Progress, Work, evaluate_on_common_set
from kuber.learning.merging import merge
from kuber.learning.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageResult:
    """An average and its evaluation on the common test set."""

    weights: Weights
    evaluation: Evaluation
    seconds: float


def average_evaluation(learner: Learner, models: tuple[Weights, ...]) -> Work:
    """Return the work of averaging models of equal weight, the newest first, and evaluating the average."""
    # Without private samples, as in an evaluation of one model.
    arguments = {"learner": replace(learner, private=learner.common), "models": models}
    return Work(function=average_on_common_set, arguments=arguments, cost=len(learner.common) * FORWARD_COST)


def average_on_common_set(learner: Learner, models: tuple[Weights, ...], *, progress: Progress) -> AverageResult:
    """Average models, with BatchNorm's statistics pooled, and evaluate the average on the common test set."""
    start = time.perf_counter()
    weights = merge(models, [1.0] * len(models))
    result = evaluate_on_common_set(learner, weights, progress=progress)
    return AverageResult(weights=weights, evaluation=result.evaluation, seconds=time.perf_counter() - start)

"""FedMD: Li and Wang, arXiv 1910.03581, algorithm 1, on a public set without its labels."""

import time
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kuber.data.samples import Samples
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import FORWARD_COST, Progress, TrainingResult, Work, span_arguments
from kuber.errors import SettingsError
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.experiment.metrics import Cost
from kuber.learning.evaluation import compute_logits
from kuber.learning.training import Span, train
from kuber.learning.weights import Weights, weights_of


def fedmd(entities: SynchronousEntities) -> None:
    """In each round compute logits on the public set, train towards their mean, then on the private data.

    The paper's transfer learning before the first round needs labels of the public set and is left out. Raises
    SettingsError when no public set was named.
    """
    if entities.public is None:
        raise SettingsError("fedmd needs a public set that all entities have; name one with --public-dataset.")
    public = entities.public
    size = len(public) * entities.learners[0].classes * 4  # bytes of float32 logits
    models = [entities.initial] * len(entities.learners)
    for round in range(1, entities.rounds + 1):
        works = [
            public_logits(learner, model, public) for learner, model in zip(entities.learners, models, strict=True)
        ]
        consensus = torch.stack(entities.execute(works)).mean(0)
        for entity in range(len(models)):
            entities.spend(entity, Cost(samples_forward=len(public), bytes_up=size, bytes_down=size))
        trainees = zip(entities.learners, models, entities.generators, strict=True)
        span = entities.span(round)
        models = entities.train_all([consensus_training(*trainee, public, consensus, span) for trainee in trainees])
        models = entities.train(models, span)
        entities.end_round(round, [[model] for model in models], entities.own_priors)


def public_logits(learner: Learner, weights: Weights, public: Samples) -> Work:
    """Return the work of computing logits on the public set."""
    arguments = {"learner": learner, "weights": weights, "public": public}
    return Work(function=compute_public_logits, arguments=arguments, cost=FORWARD_COST * len(public))


def consensus_training(
    learner: Learner,
    weights: Weights,
    generator: Tensor,
    public: Samples,
    consensus: Tensor,
    span: Span | None = None,
) -> Work:
    """Return the work of one epoch towards the consensus on the public set; the span is as in a local phase."""
    arguments = {"learner": learner, "weights": weights, "generator": generator}
    arguments |= {"public": public, "consensus": consensus}
    arguments |= span_arguments(learner.training, span)
    return Work(function=train_towards_consensus, arguments=arguments, cost=float(len(public)))


def compute_public_logits(learner: Learner, weights: Weights, public: Samples, *, progress: Progress) -> Tensor:
    """Return the logits on the public set, shape (samples, classes)."""
    return compute_logits(learner.model(weights), learner.ordered_batches(public), runtime=learner.runtime)


def train_towards_consensus(
    learner: Learner,
    weights: Weights,
    generator: Tensor,
    public: Samples,
    consensus: Tensor,
    span: Span | None = None,
    *,
    progress: Progress,
) -> TrainingResult:
    """Train one epoch on the public set, minimising the mean absolute difference to the consensus logits."""
    start = time.perf_counter()
    model = learner.model(weights)
    draws = torch.Generator()
    draws.set_state(generator)
    trained = train(
        model,
        partial(replace(learner, private=public).training_batches, draws, consensus, augment=False),
        settings=replace(learner.training, epochs=1),
        runtime=learner.runtime,
        rate=learner.training.rates(span, len(public)),
        loss=lambda student, labels, consensus: F.l1_loss(student, consensus),
    )
    return TrainingResult(
        weights=weights_of(model),
        generator=draws.get_state(),
        samples=trained.samples,
        forward=0,
        loss=trained.loss,
        seconds=time.perf_counter() - start,
    )

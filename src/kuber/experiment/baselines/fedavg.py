"""FedAvg: McMahan et al., arXiv 1602.05629, algorithm 1, with every entity in every round."""

from kuber.domain.strategy import LocalPhase
from kuber.experiment.baselines.synchronous import PLAIN, SynchronousEntities
from kuber.experiment.metrics import Cost
from kuber.learning.merging import average
from kuber.learning.weights import Weights, dump


def fedavg(entities: SynchronousEntities, phase: LocalPhase = PLAIN) -> None:
    """In each round train from the global model, send the result, and receive the average weighted by samples."""
    global_model = entities.initial
    for round in range(1, entities.rounds + 1):
        models = entities.train([global_model] * len(entities.learners), entities.span(round), phase)
        global_model = averaged(entities, models)
        entities.end_round(round, [[global_model]] * len(models), [entities.pooled_prior] * len(models))


def averaged(entities: SynchronousEntities, models: list[Weights]) -> Weights:
    """Return the average weighted by samples, which every entity receives for its model."""
    mean = average(models, entities.sizes)
    size = len(dump(mean))  # files of the same tensors are equally long
    for entity in range(len(models)):
        entities.spend(entity, Cost(bytes_up=size, bytes_down=size))
    return mean

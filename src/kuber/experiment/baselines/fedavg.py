"""FedAvg: McMahan et al., arXiv 1602.05629, algorithm 1, with every entity in every round."""

from kuber.domain.strategy import LocalPhase
from kuber.experiment.baselines.synchronous import PLAIN, Rounds, SynchronousEntities
from kuber.experiment.metrics import Cost
from kuber.learning.merging import average
from kuber.learning.weights import dump


def fedavg(parties: SynchronousEntities, phase: LocalPhase = PLAIN) -> Rounds:
    """Each round: train from the shared model, send the result, receive the average weighted by samples."""
    shared = parties.initial
    for round in range(1, parties.rounds + 1):
        models = yield from parties.train([shared] * len(parties.learners), phase)
        shared = average(models, parties.sizes)
        size = len(dump(shared))  # files of the same tensors are equally long
        for entity in range(len(models)):
            parties.spend(entity, Cost(bytes_up=size, bytes_down=size))
        parties.end_round(round, [[shared]] * len(models))

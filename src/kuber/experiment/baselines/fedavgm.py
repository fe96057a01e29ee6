"""FedAvgM: FedAvg with server momentum, Hsu et al., arXiv 1909.06335, with every entity in every round."""

from kuber.experiment.baselines.fedavg import averaged
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.learning.outer_step import server_step


def fedavgm(entities: SynchronousEntities) -> None:
    """Run FedAvg with v <- beta v + (w - average), w <- w - v in place of w <- average, for the global model w.

    Beta is `server_momentum`; 0 gives FedAvg bit for bit. BatchNorm's statistics are those of the average.
    """
    beta = entities.scenario.settings.server_momentum
    global_model, momentum = entities.initial, None
    for round in range(1, entities.rounds + 1):
        models = entities.train([global_model] * len(entities.learners), entities.span(round))
        global_model, momentum = server_step(global_model, averaged(entities, models), momentum, decay=beta)
        entities.end_round(round, [[global_model]] * len(models), [entities.pooled_prior] * len(models))

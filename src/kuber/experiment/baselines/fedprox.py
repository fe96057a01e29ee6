"""FedProx: Li et al., arXiv 1812.06127, algorithm 2, with every entity in every round and the same epochs for all."""

from kuber.domain.strategy import LocalPhase
from kuber.experiment.baselines.fedavg import fedavg
from kuber.experiment.baselines.synchronous import SynchronousEntities


def fedprox(entities: SynchronousEntities) -> None:
    """Run FedAvg with mu/2 times the squared distance to the global model added to the loss of local phases."""
    fedavg(entities, LocalPhase(proximal=entities.scenario.settings.fedprox_mu))

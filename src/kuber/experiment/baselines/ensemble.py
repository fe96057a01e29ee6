"""Ensemble of all entities, each trained alone: the oracle."""

from kuber.domain.prior import geometric_mean
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.experiment.metrics import Cost
from kuber.learning.weights import dump


def ensemble(entities: SynchronousEntities) -> None:
    """Train every entity alone, and predict by the mean logits of all models, which each entity receives once.

    Not practical: each prediction runs every model.
    """
    models = [entities.initial] * len(entities.learners)
    carried = geometric_mean(entities.own_priors)
    for round in range(1, entities.rounds + 1):
        models = entities.train(models, entities.span(round))
        if round == entities.rounds:
            sizes = [len(dump(model)) for model in models]
            for entity, size in enumerate(sizes):
                entities.spend(entity, Cost(bytes_up=size, bytes_down=sum(sizes) - size))
        entities.end_round(round, [models] * len(models), [carried] * len(models))

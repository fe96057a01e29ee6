"""Central training on the pooled data of all entities: the upper baseline of exchange without sharing data."""

from math import prod

from kuber.entity.work.steps import training
from kuber.experiment.baselines.synchronous import PLAIN, SynchronousEntities, pooled
from kuber.experiment.entity_factory import generator_state
from kuber.experiment.metrics import Cost


def central(entities: SynchronousEntities) -> None:
    """Train one model on the samples of all entities, each of which sends its samples once."""
    learner = pooled(entities)
    weights = entities.initial
    generator = generator_state(entities.scenario.settings.seed, len(entities.learners))
    share = 1 / len(entities.learners)
    sample = prod(learner.private.shape) * learner.private.images(slice(0, 1)).itemsize  # bytes
    for entity, size in enumerate(entities.sizes):
        entities.spend(entity, Cost(bytes_up=size * sample))
    for round in range(1, entities.rounds + 1):
        (trained,) = entities.execute([training(learner, PLAIN, weights, generator, span=entities.span(round))])
        weights, generator = trained.weights, trained.generator
        for entity, size in enumerate(entities.sizes):
            cost = Cost(samples_trained=size * learner.training.epochs, seconds=trained.seconds * share)
            entities.spend(entity, cost)
        entities.end_round(
            round, [[weights]] * len(entities.learners), [entities.pooled_prior] * len(entities.learners)
        )

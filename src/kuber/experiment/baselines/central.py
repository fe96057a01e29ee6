"""Central: the data of all entities pooled, what exchange without sharing data is measured against."""

from math import prod

from kuber.entity.work.steps import TrainingResult, training
from kuber.experiment.baselines.synchronous import PLAIN, Rounds, SynchronousEntities, pooled
from kuber.experiment.entity_factory import generator_state
from kuber.experiment.metrics import Cost


def central(parties: SynchronousEntities) -> Rounds:
    """One model, trained on as many samples as all entities together; every entity sends its samples once."""
    learner = pooled(parties)
    weights = parties.initial
    generator = generator_state(parties.scenario.settings.seed, len(parties.learners))
    share = 1 / len(parties.learners)
    sample = prod(learner.private.shape) * learner.private.images(slice(0, 1)).itemsize  # bytes
    for entity, size in enumerate(parties.sizes):
        parties.spend(entity, Cost(bytes_up=size * sample))
    for round in range(1, parties.rounds + 1):
        (learnt,) = yield [training(learner, PLAIN, weights, generator)]
        assert isinstance(learnt, TrainingResult)
        weights, generator = learnt.weights, learnt.generator
        for entity, size in enumerate(parties.sizes):
            cost = Cost(
                samples_trained=size * learner.training.epochs,
                seconds=learnt.seconds * share,
            )
            parties.spend(entity, cost)
        parties.end_round(round, [[weights]] * len(parties.learners))

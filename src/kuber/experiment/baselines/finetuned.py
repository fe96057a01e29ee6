"""FedAvg, and each entity's own model trained from the last global model: the usual answer to different mixtures."""

from kuber.experiment.baselines.fedavg import averaged
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.learning.training import span_of

FINE_TUNING = (0.5, 1.0)  # span of a schedule: the rate starts again at half of its peak


def finetuned(entities: SynchronousEntities) -> None:
    """Run FedAvg in all rounds but the last, whose local phases make the entities' own models.

    A schedule of the learning rate runs over FedAvg's rounds, and half of it again over the last. It trains as many
    samples as FedAvg, and transfers one model less each way. Yu et al., arXiv 2002.04758.
    """
    global_model = entities.initial
    for round in range(1, entities.rounds + 1):
        last = round == entities.rounds
        span = FINE_TUNING if last else span_of(round, entities.rounds - 1)
        models = entities.train([global_model] * len(entities.learners), span)
        if last:
            entities.end_round(round, [[model] for model in models], entities.own_priors)
        else:
            global_model = averaged(entities, models)
            entities.end_round(round, [[global_model]] * len(models), [entities.pooled_prior] * len(models))

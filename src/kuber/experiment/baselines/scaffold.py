"""SCAFFOLD: Karimireddy et al., arXiv 1910.06378, algorithm 1, with every entity in every round."""

from kuber.data.batches import batch_sizes
from kuber.entity.work.learner import Learner
from kuber.experiment.baselines.fedavg import averaged
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.learning.outer_step import trained_change
from kuber.learning.training import Span
from kuber.learning.weights import Weights


def scaffold(entities: SynchronousEntities) -> None:
    """Run FedAvg with c - c_i added to the gradients of local phases, for control variates c_i and their mean c.

    The global step size is 1. Control variates begin at 0 and are averaged by samples, as models are; each round they
    are sent both ways too.
    """
    global_model, corrections = entities.initial, None
    for round in range(1, entities.rounds + 1):
        span = entities.span(round)
        models = entities.train([global_model] * len(entities.learners), span, corrections=corrections)
        own = []
        for index, (learner, model) in enumerate(zip(entities.learners, models, strict=True)):
            correction = corrections[index] if corrections else None
            own.append(control_variate(global_model, model, correction, reach(learner, span)))
        global_model, shared = averaged(entities, models), averaged(entities, own)
        corrections = [{name: shared[name] - variate[name] for name in shared} for variate in own]
        entities.end_round(round, [[global_model]] * len(models), [entities.pooled_prior] * len(models))


def control_variate(start: Weights, end: Weights, correction: Weights | None, reach: float) -> Weights:
    """Return an entity's next control variate, c_i - c + (x - y) / (K eta): option II, for x the start and y the end.

    It is a mean of the gradients of the local phase, of weight decay too. Only trained tensors have one.
    """
    variate = {}
    for name, change in trained_change(start, end).items():
        mean = change / reach if correction is None else change / reach - correction[name].double()
        variate[name] = mean.to(end[name].dtype)
    return variate


def reach(learner: Learner, span: Span) -> float:
    """Return how far a constant gradient of 1 moves a weight in a local phase: with plain SGD at one rate, K eta.

    With a schedule and momentum m it is the sum over the steps k = 1..K of eta_k (1 - m^k) / (1 - m). In a long phase
    that is about the sum of eta_k, times 1 / (1 - m); in a short one momentum has not built up. So the control
    variate is a weighted mean of gradients, whose weights sum to 1, as in the paper.
    """
    settings = learner.training
    rate = settings.rates(span, settings.epochs * len(learner.private))
    total = velocity = 0.0
    done = 0
    for size in batch_sizes(len(learner.private), batch_size=learner.batch_size) * settings.epochs:
        velocity = settings.momentum * velocity + 1
        total += (settings.learning_rate if rate is None else rate(done)) * velocity
        done += size
    return total

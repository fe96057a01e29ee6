"""Reported accuracies: models from checkpoints on the held-out test set, which no decision reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kuber.data.partition import stratified
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import recalls_of
from kuber.domain.knowledge import Architecture
from kuber.domain.prior import Frequencies, accuracy_on, carried_prior, frequencies, uniform
from kuber.entity.state.checkpoint import round_path
from kuber.entity.work.learner import Learner
from kuber.errors import CorruptKnowledgeError, KnowledgeError
from kuber.experiment.entity_factory import entity_folder, make_learner
from kuber.experiment.run_result import HeldOutAccuracy
from kuber.experiment.scenario import Scenario
from kuber.learning.evaluation import correct_after, labelled_logits
from kuber.learning.priors import log_ratio
from kuber.learning.runtime import Runtime, available_cores, keep_freed_memory
from kuber.learning.weights import Weights, load

INTERIM_SAMPLES = 1000  # held-out samples for the rounds between the first and the last
STRENGTHS = (0.0, 0.5, 1.0)  # of an adjustment to a uniform prior


def interim_part(scenario: Scenario) -> Samples:
    """Return the fixed, stratified part of the held-out test set for the rounds between the first and the last."""
    return _part(scenario.held_out)


def deciding_part(scenario: Scenario) -> Samples:
    """Return the fixed, stratified part of the common test set on which the strength of an adjustment is chosen."""
    return _part(scenario.common)


def _part(whole: Samples) -> Samples:
    if len(whole) <= INTERIM_SAMPLES:
        return whole
    return whole.take(stratified(whole.labels, INTERIM_SAMPLES, seed=0)[0])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out samples, or a part of them, and how many there are of each class."""

    samples: Samples
    digest: Digest
    total: tuple[int, ...]

    @classmethod
    def of(cls, samples: Samples, classes: int) -> "HeldOut":
        """Return these samples, counted."""
        total = np.bincount(samples.labels, minlength=classes)
        return cls(samples, samples.digest(), tuple(int(count) for count in total))


def prior_shifts(carried: Frequencies, class_counts: Sequence[Sequence[int]]) -> Tensor:
    """Return the shifts of logits with this prior for the accuracies of entities with these class counts.

    The result has shape (1 + entities, classes): to a uniform prior first, then to the prior of each entity.
    """
    targets = [uniform(len(carried)), *map(frequencies, class_counts)]
    return torch.stack([log_ratio(carried, target) for target in targets])


def correct_answers(
    learner: Learner, models: Sequence[Weights], samples: Samples, shifts: Tensor, deciding: Samples
) -> Tensor:
    """Return the correct answers per class of one model, or of the mean logits of several, after each shift.

    The first shift counts as much, of STRENGTHS, as gives the most correct answers on the samples `deciding`: a
    model that learned of absent classes from others carries another prior than that of its samples.
    """
    networks = [learner.model(model) for model in models]

    def run(samples: Samples) -> tuple[Tensor, Tensor]:
        batches = learner.ordered_batches
        found = [labelled_logits(network, batches(samples), runtime=learner.runtime) for network in networks]
        logits = [logits for logits, _ in found]
        return (logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)), found[0][1]

    if shifts[0].any():
        strengths = torch.tensor(STRENGTHS)
        correct = correct_after(*run(deciding), strengths.unsqueeze(1) * shifts[0]).sum(1)
        shifts = torch.cat([strengths[correct.argmax()] * shifts[:1], shifts[1:]])
    return correct_after(*run(samples), shifts)


def held_out_accuracies(
    scenario: Scenario, folder: Path, runtime: Runtime, on_evaluation: Callable[[int, int], None]
) -> dict[str, list[HeldOutAccuracy]]:
    """Return, by entity, the accuracies on the held-out test set at the end of each round.

    `on_evaluation` is called with the number of models evaluated so far, and of all.

    The first and the last round, which results consist of, are evaluated on the whole set. The rounds between only
    draw a curve and are evaluated on a part: with few training samples the whole would cost as much as the training.
    """
    keep_freed_memory()
    torch.set_num_threads(available_cores())  # the entities are done; every core is free
    whole, part = (HeldOut.of(each, scenario.task.classes) for each in (scenario.held_out, interim_part(scenario)))
    last, deciding = scenario.settings.num_rounds, deciding_part(scenario)
    total = last * len(scenario.private)
    on_evaluation(0, total)
    accuracies: dict[str, list[HeldOutAccuracy]] = {}
    for index in range(len(scenario.private)):
        learner, found = make_learner(scenario, index, runtime), accuracies.setdefault(str(index), [])
        counts = scenario.class_counts(index)
        shifts = prior_shifts(carried_prior(scenario.strategy.local_phase(), counts), [counts])
        for round in range(1, last + 1):
            held_out = whole if round in (1, last) else part
            weights = stored_weights(round_path(entity_folder(folder, index), round), learner.architecture)
            found.append(_accuracies(learner, weights, held_out, shifts, deciding, counts))
            on_evaluation(index * last + round, total)
    return accuracies


def _accuracies(
    learner: Learner, weights: Weights, held_out: HeldOut, shifts: Tensor, deciding: Samples, counts: Sequence[int]
) -> HeldOutAccuracy:
    general, own = correct_answers(learner, [weights], held_out.samples, shifts, deciding).tolist()
    return HeldOutAccuracy(
        general=sum(general) / sum(held_out.total), own=accuracy_on(counts, recalls_of(own, held_out.total))
    )


def stored_weights(path: Path, architecture: Architecture) -> Weights:
    """Return the weights at the end of a round. Raises CorruptKnowledgeError when the file is damaged."""
    try:
        return load(path.read_bytes(), architecture)
    except OSError as error:
        reason = error.strerror or "It cannot be read"
    except KnowledgeError as error:
        reason = error.message.rstrip(".")
    raise CorruptKnowledgeError(f"{path} cannot be used: {reason}. Start a new run.")

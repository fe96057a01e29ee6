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
from kuber.domain.prior import Frequencies, accuracy_on, carried_prior, frequencies
from kuber.entity.state.checkpoint import round_path
from kuber.entity.work.learner import Learner
from kuber.errors import CorruptKnowledgeError, KnowledgeError
from kuber.experiment.entity_factory import entity_folder, make_learner
from kuber.experiment.run_result import HeldOutAccuracy
from kuber.experiment.scenario import Scenario
from kuber.learning.evaluation import counts_adjusted
from kuber.learning.priors import log_ratio
from kuber.learning.runtime import Runtime, available_cores, keep_freed_memory
from kuber.learning.weights import Weights, load

INTERIM_SAMPLES = 1000  # held-out samples for the rounds between the first and the last


def interim_part(scenario: Scenario) -> Samples:
    """Return the fixed, stratified part of the held-out test set for the rounds between the first and the last."""
    whole = scenario.held_out
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

    The result has shape (1 + entities, classes): none for the general accuracy first, then to the prior of each
    entity. Measured: adjusting plain models to a uniform prior costs general accuracy where classes are absent.
    """
    targets = [carried, *map(frequencies, class_counts)]
    return torch.stack([log_ratio(carried, target) for target in targets])


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
    last = scenario.settings.num_rounds
    total = last * len(scenario.private)
    on_evaluation(0, total)
    accuracies: dict[str, list[HeldOutAccuracy]] = {}
    for index in range(len(scenario.private)):
        learner, found = make_learner(scenario, index, runtime), accuracies.setdefault(str(index), [])
        counts = scenario.class_counts(index)
        carried = carried_prior(scenario.strategy.local_phase(), counts)
        for round in range(1, last + 1):
            held_out = whole if round in (1, last) else part
            path = round_path(entity_folder(folder, index), round)
            found.append(_accuracies(learner, path, held_out, carried, counts))
            on_evaluation(index * last + round, total)
    return accuracies


def _accuracies(
    learner: Learner, path: Path, held_out: HeldOut, carried: Frequencies, counts: Sequence[int]
) -> HeldOutAccuracy:
    model = learner.model(stored_weights(path, learner.architecture))
    batches, shifts = learner.ordered_batches(held_out.samples), prior_shifts(carried, [counts])
    general, own = counts_adjusted(model, batches, shifts, runtime=learner.runtime).tolist()
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

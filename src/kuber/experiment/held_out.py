"""Reported accuracies: models from checkpoints on the held-out test set, which no decision reads."""

from collections.abc import Callable
from pathlib import Path

import torch

from kuber.data.partition import stratified
from kuber.data.samples import Samples
from kuber.domain.knowledge import Architecture
from kuber.entity.state.checkpoint import round_path
from kuber.entity.work.learner import Learner
from kuber.errors import CorruptKnowledgeError, KnowledgeError
from kuber.experiment.entity_factory import entity_folder, make_learner
from kuber.experiment.scenario import Scenario
from kuber.learning.evaluation import evaluate
from kuber.learning.runtime import Runtime, available_cores, keep_freed_memory
from kuber.learning.weights import Weights, load

INTERIM_SAMPLES = 1000  # held-out samples for the rounds between the first and the last


def interim_part(scenario: Scenario) -> Samples:
    """Return the fixed, stratified part of the held-out test set for the rounds between the first and the last."""
    whole = scenario.held_out
    if len(whole) <= INTERIM_SAMPLES:
        return whole
    return whole.take(stratified(whole.labels, INTERIM_SAMPLES, seed=0)[0])


def held_out_accuracies(
    scenario: Scenario, folder: Path, runtime: Runtime, on_evaluation: Callable[[int, int], None]
) -> dict[str, list[float]]:
    """Return, by entity, the accuracy on the held-out test set at the end of each round.

    `on_evaluation` is called with the number of models evaluated so far, and of all.

    The first and the last round, which results consist of, are evaluated on the whole set. The rounds between only
    draw a curve and are evaluated on a part: with few training samples the whole would cost as much as the training.
    """
    keep_freed_memory()
    torch.set_num_threads(available_cores())  # the entities are done; every core is free
    last, part = scenario.settings.num_rounds, interim_part(scenario)
    total = last * len(scenario.private)
    on_evaluation(0, total)
    accuracies: dict[str, list[float]] = {}
    for index in range(len(scenario.private)):
        learner, found = make_learner(scenario, index, runtime), accuracies.setdefault(str(index), [])
        for round in range(1, last + 1):
            samples = scenario.held_out if round in (1, last) else part
            found.append(_accuracy(learner, round_path(entity_folder(folder, index), round), samples))
            on_evaluation(index * last + round, total)
    return accuracies


def _accuracy(learner: Learner, weights: Path, samples: Samples) -> float:
    model = learner.model(stored_weights(weights, learner.architecture))
    batches, digest = learner.ordered_batches(samples), samples.digest()
    return evaluate(model, batches, classes=learner.classes, test_set=digest, runtime=learner.runtime).accuracy


def stored_weights(path: Path, architecture: Architecture) -> Weights:
    """Return the weights at the end of a round. Raises CorruptKnowledgeError when the file is damaged."""
    try:
        return load(path.read_bytes(), architecture)
    except OSError as error:
        reason = error.strerror or "It cannot be read"
    except KnowledgeError as error:
        reason = error.message.rstrip(".")
    raise CorruptKnowledgeError(f"{path} cannot be used: {reason}. Start a new run.")

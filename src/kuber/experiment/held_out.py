"""The reported accuracies: the model of every round on the samples that no decision read."""

from pathlib import Path

import torch

from kuber.entity.checkpoint import round_path
from kuber.experiment.entities import entity_folder, make_learner
from kuber.experiment.scenario import Scenario
from kuber.learning.evaluation import evaluate
from kuber.learning.runtime import Runtime, available_cores
from kuber.learning.weights import load


def held_out_accuracies(scene: Scenario, folder: Path, runtime: Runtime) -> dict[str, list[float]]:
    """Entity -> accuracy on the held-out test set at the end of each of its rounds, from its checkpoints."""
    torch.set_num_threads(available_cores())  # the entities are done; every core is free
    test_set = scene.held_out.digest()
    accuracies: dict[str, list[float]] = {}
    for index in range(len(scene.private)):
        learner = make_learner(scene, index, runtime)
        rounds = []
        for round in range(1, scene.settings.num_rounds + 1):
            data = round_path(entity_folder(folder, index), round).read_bytes()
            evaluation = evaluate(
                learner.model(load(data, scene.architecture)),
                learner.ordered_batches(scene.held_out),
                classes=scene.task.classes,
                test_set=test_set,
                runtime=runtime,
            )
            rounds.append(evaluation.accuracy)
        accuracies[str(index)] = rounds
    return accuracies

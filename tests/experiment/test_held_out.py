"""Held-out accuracies of a run's checkpoints."""

import pytest

from kuber.domain.deployment import Deployed
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import utc_now
from kuber.domain.prior import accuracy_on
from kuber.entity.deployment import Decision
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, EventLog
from kuber.experiment.entity_factory import entity_folder, make_learner
from kuber.experiment.held_out import held_out_accuracies
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import simulated_runtime
from kuber.learning.architectures import initial_weights
from kuber.learning.evaluation import evaluate
from kuber.settings import Settings


@pytest.mark.parametrize("with_head", [True, False])
def test_own_accuracy_is_that_of_the_personal_model_if_there_is_one(tmp_path, with_head):
    scenario = load_scenario(Settings(dataset="digits", num_entities=1, num_rounds=1, strategy="local-balanced"))
    runtime = simulated_runtime(scenario)
    learner, counts = make_learner(scenario, 0, runtime), scenario.class_counts(0)
    weights, other = (initial_weights(learner.architecture, seed) for seed in (0, 1))
    checkpoints = Checkpoints(entity_folder(tmp_path, 0))
    name = checkpoints.save_round(1, weights)
    chance = Evaluation(test_set=learner.test_set, correct=(1,) * 10, total=(10,) * 10)
    decision = Decision(deployed=Deployed(round=1, evaluation=chance), personal=other if with_head else None)
    detail = {"accuracy": 0.1, "checkpoint": name, "deployed": decision.detail(1, checkpoints.deploy(decision, 1))}
    log = EventLog(tmp_path / FILE_NAME, clock=utc_now)
    log.append(entity="0", seq=0, round=1, kind="round-ended", detail=detail)
    (found,) = held_out_accuracies(scenario, tmp_path, runtime, lambda done, total: None)["0"]
    evaluations = [
        evaluate(
            learner.model(model),
            learner.ordered_batches(scenario.held_out),
            classes=10,
            test_set=learner.test_set,
            runtime=runtime,
        )
        for model in (weights, other)
    ]
    assert found.general == evaluations[0].accuracy
    assert (found.own == pytest.approx(accuracy_on(counts, evaluations[1].recalls))) == with_head

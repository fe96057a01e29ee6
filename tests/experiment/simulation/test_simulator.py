"""The simulator on real digits: the same on any number of workers, and as real services if time does not matter."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.data.samples import Samples
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Architecture
from kuber.domain.query import Query
from kuber.domain.strategies import Vanilla
from kuber.domain.strategy import Guidance, LocalPhase, Method, Situation
from kuber.entity.hub.access import HubAccess
from kuber.entity.state.checkpoint import Checkpoints, round_path
from kuber.entity.state.event_log import FILE_NAME, EventLog, read_events
from kuber.entity.state.storage import Storage
from kuber.entity.work.learner import Learner, PhaseTeacher, TeacherModel
from kuber.entity.work.steps import (
    DroppedTeacher,
    common_evaluation,
    distil_locally,
    distillation,
    train_locally,
    training,
)
from kuber.errors import TimeLimitError
from kuber.experiment.engines.factory import open_engine
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.entity_factory import generator_state, make_entity, make_learner, make_learners
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.event_queue import EPOCH
from kuber.experiment.simulation.simulator import ModelStore, Simulation, simulated_runtime
from kuber.experiment.world.conditions import Absence, Conditions, World
from kuber.learning.architectures import initial_weights
from kuber.learning.onnx_export import export
from kuber.learning.weights import Weights, dump
from kuber.settings import Settings

FLAGS = ["--dataset", "digits", "--architecture", "mlp", "--learning-rate", "0.1", "--batch-size", "16"]
FLAGS += ["--num-entities", "3", "--num-rounds", "3", "--local-epochs", "2"]


UNLIKE: dict[str, Any] = {"strategy": "kuber", "num_rounds": 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def make_scenario(cache: Path, **changes: Any) -> Scenario:
    """A scenario of entities with different speeds that publish, degrade and absorb within seconds."""
    settings = {
        "dataset": "digits",
        "architecture": "mlp",
        "strategy": "vanilla",
        "learning_rate": 0.1,
        "batch_size": 16,
        "num_entities": 4,
        "num_rounds": 5,
        "local_epochs": 2,
        "kd_epochs": 1,
        "speed_ratio": 3,
        "cache_dir": cache,
    }
    return load_scenario(Settings(**settings | changes))


@pytest.fixture
def scenario(cache: Path) -> Scenario:
    return make_scenario(cache)


class Kept(ModelStore):
    """Keeps the last model of each entity."""

    def __init__(self, last: dict[int, Weights]) -> None:
        self._last = last

    def keep_round(self, entity: int, round: int, weights: Weights) -> None:
        self._last[entity] = weights


def simulated(scenario: Scenario, *, workers: int = 0, log: Path | None = None) -> tuple[Simulation, list[Weights]]:
    """A finished simulation, and the last model of each entity."""
    last: dict[int, Weights] = {}
    runtime = simulated_runtime(scenario)
    with open_engine(workers) as engine:
        simulation = Simulation(
            scenario,
            engine=engine,
            recorder=MetricsRecorder(scenario, engine, make_learners(scenario, runtime)),
            runtime=runtime,
            progress=SilentProgress(),
            log=log,
            store=Kept(last),
        )
        simulation.run()
    return simulation, [last[index] for index in sorted(last)]


def published(simulation: Simulation) -> list[str]:
    """The digest of every published model, in order of publication."""
    records = simulation.registry.discover(Query(order="newest", limit=100)).items
    return [str(record.artifacts["weights"].digest) for record in reversed(records)]


def at_speeds(scenario: Scenario, *speeds: float) -> Scenario:
    return replace(scenario, world=World(entities=tuple(Conditions(speed=speed) for speed in speeds)))


@pytest.mark.parametrize(
    ("changes", "methods"),
    [
        ({"learning_rate_schedule": "cosine"}, {"distil"}),
        (UNLIKE | {"architecture": "mlp,mlp,resnet20", "proxy_architecture": "none"}, {"merge", "guide"}),
        (UNLIKE | {"architecture": "mlp,cnn", "proxy_architecture": "mlp", "num_rounds": 2}, {"merge"}),
    ],
    ids=["vanilla", "kuber", "kuber with proxies"],
)
@pytest.mark.process
def test_the_number_of_workers_changes_no_bit(cache, tmp_path, changes, methods):
    scenario = make_scenario(cache, **changes)
    runs = [simulated(scenario, workers=workers, log=tmp_path / f"{workers}.jsonl")[0] for workers in (0, 1, 2)]
    digests = [published(run) for run in runs]
    assert len(digests[0]) > scenario.settings.num_entities
    # Something was absorbed: there was an order that could have differed.
    assert {delivery.method for delivery in runs[0].view.deliveries} == methods
    assert digests[0] == digests[1] == digests[2]
    logs = [(tmp_path / f"{workers}.jsonl").read_bytes() for workers in (0, 1, 2)]
    assert logs[0] == logs[1] == logs[2]


def test_events_come_in_the_order_of_virtual_time(scenario, tmp_path):
    simulated(scenario, log=tmp_path / FILE_NAME)
    times = [event.time for event in read_events(tmp_path / FILE_NAME)]
    assert times == sorted(times)


def test_a_faster_entity_finishes_earlier(scenario):
    simulation, _ = simulated(at_speeds(scenario, 1.0, 1000.0, 1.0, 1.0))
    ends = {name: entity.ended_at for name, entity in simulation.view.entities.items()}
    assert min(ends, key=lambda name: ends[name] or 0.0) == "1"


def test_entities_join_and_leave_at_their_virtual_times(scenario, tmp_path):
    whole, _ = simulated(scenario)
    half = [entity.ended_at / 2 for entity in whole.view.entities.values()]
    world = scenario.world.change(0, absences=(Absence(half[0]),)).change(1, joins=7.5)
    simulated(replace(scenario, world=world), log=tmp_path / FILE_NAME)
    by_entity = {name: [e for e in read_events(tmp_path / FILE_NAME) if e.entity == name] for name in "0123"}
    assert by_entity["1"][0].time == EPOCH + timedelta(seconds=7.5)
    assert by_entity["0"][-1].time <= EPOCH + timedelta(seconds=half[0])
    assert 0 < max(event.round for event in by_entity["0"]) < scenario.settings.num_rounds
    for name in "123":
        assert (by_entity[name][-1].kind, by_entity[name][-1].round) == ("round-ended", scenario.settings.num_rounds)


def test_other_held_out_samples_change_no_decision(scenario):
    """No decision reads the held-out test set: with another one, the same models are published."""
    plain, _ = simulated(scenario)
    other = replace(scenario, held_out=scenario.held_out.take(np.arange(20)))
    assert published(simulated(other)[0]) == published(plain)


class Forbidden:
    """Samples that must not be read."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the common test set was read: {name}")

    __len__ = __iter__ = __getattr__  # type: ignore[assignment]


def test_no_gradient_comes_from_the_common_test_set(scenario):
    """Training and distillation give the same bits when the common test set cannot be read at all."""
    learner = make_learner(scenario, 0, simulated_runtime(scenario))
    blind: Learner = replace(learner, common=Forbidden())  # type: ignore[arg-type]
    weights, generator = initial_weights(scenario.architectures[0], 0), generator_state(0, 0)
    teacher = TeacherModel(
        architecture=scenario.architectures[0], weights=initial_weights(scenario.architectures[0], 1)
    )
    guided = LocalPhase(loss="balanced-softmax", guidance=Guidance(augmented=False))
    augmented = LocalPhase(guidance=Guidance())
    for work, arguments in (
        (train_locally, {"phase": scenario.strategy.local_phase()}),
        (train_locally, {"phase": guided, "teachers": (PhaseTeacher(model=teacher, recalls=(0.5,) * 10),)}),
        (train_locally, {"phase": augmented, "teachers": (PhaseTeacher(model=teacher, recalls=(0.5,) * 10),)}),
        (distil_locally, {"teacher": teacher}),
    ):
        results = [
            work(trainee, weights=weights, generator=generator, progress=lambda share: None, **arguments)
            for trainee in (learner, blind)
        ]
        assert dump(results[0].weights) == dump(results[1].weights)


def test_a_learner_has_no_held_out_sample(scenario):
    """No decision can read the held-out test set: no part of a learner has a row of it."""
    held_out = set(scenario.held_out.rows.tolist())
    for index in range(len(scenario.private)):
        learner = make_learner(scenario, index, simulated_runtime(scenario))
        for name in Learner.__slots__:
            value = getattr(learner, name)
            if isinstance(value, Samples):
                assert value.part == "train" or not held_out & set(value.rows.tolist())


def test_normalisation_uses_the_training_part_only(scenario):
    train = scenario.dataset.train.images().astype(np.float64) / 255
    assert scenario.dataset.mean == pytest.approx(train.mean((0, 2, 3)), abs=1e-3)


class Scripted(Vanilla):
    """Publishes in the first round and discovers in all others."""

    def publishes(self, situation: Situation) -> bool:
        return situation.previous is None

    def after(self, situation: Situation) -> tuple[Method, Query] | None:
        if situation.previous is None:
            return None
        return Method.DISTIL, Query(min_accuracy=situation.own.accuracy, limit=10)


def test_services_and_simulation_agree_on_a_scripted_exchange(scenario, tmp_path, registry_url, vault_url, samples):
    """One entity runs all its rounds, then the other, which absorbs: in memory and over HTTP."""
    both = replace(
        scenario,
        strategy=Scripted(),
        private=(scenario.private[3], scenario.private[0]),
        world=World(entities=(Conditions(speed=1e12), Conditions(speed=1.0))),
        task=replace(scenario.task, name=samples.token),  # of its own: other tests publish to the same registry
    )
    simulation, in_memory = simulated(both)
    assert simulation.view.deliveries
    log = EventLog(tmp_path / FILE_NAME, clock=utc_now)
    for index in range(2):
        credentials = Credentials()
        with (
            HttpRegistry(registry_url, credentials=credentials) as registry,
            HttpVault(vault_url, credentials=credentials) as vault,
        ):
            entity = make_entity(
                both,
                index,
                runtime=simulated_runtime(both),
                hub=HubAccess(registry=registry, vault=vault, identity=credentials.identity),
                storage=Storage(checkpoints=Checkpoints(tmp_path / str(index)), event_log=log),
                execute=lambda work: InlineEngine().submit(work).result(),
            )
            entity.name = entity._journal.name = samples.name(str(index))
            entity.run()
    over_http = [round_path(tmp_path / str(index), 5).read_bytes() for index in range(2)]
    assert over_http == [dump(weights) for weights in in_memory]
    kinds = [
        [(event.round, event.kind) for event in events if event.entity and event.entity.startswith(prefix)]
        for events in (read_events(tmp_path / FILE_NAME),)
        for prefix in (samples.name("0"), samples.name("1"))
    ]
    assert "published" in {kind for _, kind in kinds[0]}
    assert "absorbed" in {kind for _, kind in kinds[1]}


@pytest.mark.process
def test_a_graph_teaches_as_its_network_does(scenario):
    """Evaluation, guidance and distillation give the same results for weights and for a graph."""
    learner = make_learner(scenario, 0, simulated_runtime(scenario))
    weights, generator = initial_weights(scenario.architectures[0], 0), generator_state(0, 0)
    plain = TeacherModel(
        architecture=scenario.architectures[0], weights=initial_weights(scenario.architectures[0], 1)
    )
    graph = TeacherModel(
        architecture=Architecture(name="another's", arguments={}, manifest={}),
        weights={},
        graph=export(learner.teacher_network(plain), input_shape=learner.private.shape),
    )
    models = (plain, graph)
    found = [common_evaluation(learner, m.weights, m).do(lambda share: None).evaluation for m in models]
    assert found[0] == found[1]
    phase = LocalPhase(guidance=Guidance())
    teachers = [(PhaseTeacher(model=model, recalls=(0.5,) * 10),) for model in models]
    for works in (
        [training(learner, phase, weights, generator, teacher) for teacher in teachers],
        [distillation(learner, model, weights, generator) for model in models],
    ):
        results = [work.do(lambda share: None) for work in works]
        pairs = [(results[0].weights[name], results[1].weights[name]) for name in weights]
        assert all(torch.allclose(left, right, atol=1e-4) for left, right in pairs)


@pytest.mark.parametrize("augmented", [True, False])
def test_a_teacher_that_takes_too_long_is_left_out_and_the_others_teach(scenario, monkeypatch, augmented):
    learner = make_learner(scenario, 0, simulated_runtime(scenario))
    weights, generator = initial_weights(scenario.architectures[0], 0), generator_state(0, 0)
    slow, quick = (
        TeacherModel(architecture=scenario.architectures[0], weights=initial_weights(scenario.architectures[0], seed))
        for seed in (1, 2)
    )
    network_of = Learner.teacher_network

    def network(self, teacher):
        if teacher is not slow:
            return network_of(self, teacher)
        failing = torch.nn.Identity()
        failing.register_forward_hook(exceed)
        return failing

    def exceed(*_):
        raise TimeLimitError("The ONNX graph exceeded its time limit.")

    monkeypatch.setattr(Learner, "teacher_network", network)
    phase = LocalPhase(guidance=Guidance(augmented=augmented))

    def trained(*teachers):
        teachers = tuple(PhaseTeacher(model=model, recalls=(0.5,) * 10) for model in teachers)
        return train_locally(learner, phase, weights, generator, teachers, progress=lambda share: None)

    both, alone, none = trained(slow, quick), trained(quick), trained(slow)
    assert both.dropped == (DroppedTeacher(0, "The ONNX graph exceeded its time limit.", True),) == none.dropped
    assert dump(both.weights) == dump(alone.weights)
    assert all(torch.isfinite(tensor).all() for tensor in none.weights.values())

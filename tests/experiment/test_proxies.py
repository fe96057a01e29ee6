"""Entities of unlike architectures exchange proxies of one, and keep their own networks private."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as tensors_in

from kuber.domain.prior import accuracy_on, frequencies
from kuber.domain.query import Query
from kuber.domain.strategies import Kuber
from kuber.entity.hub.access import HubAccess
from kuber.entity.state.checkpoint import Checkpoints, initial_state
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.state.storage import Storage
from kuber.errors import SettingsError
from kuber.experiment import scenario as scenarios
from kuber.experiment.comparison.methods import perform
from kuber.experiment.comparison.statistics import flat, result_row
from kuber.experiment.engines.factory import EngineConfig
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.entity_factory import (
    entity_folder,
    make_entity,
    make_learner,
    make_learners,
    make_private_learner,
)
from kuber.experiment.held_out import held_out_accuracies
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import WITH_PRIVATE_NETWORK, load_scenario
from kuber.experiment.simulation.run import LastModels, run
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.weights import load
from kuber.settings import Settings
from kuber.views.run import RunView

TINY = {
    "dataset": "digits",
    "architecture": "mlp,cnn,mlp",
    "proxy_architecture": "mlp",
    "num_entities": 3,
    "num_rounds": 2,
    "local_epochs": 1,
    "train_size": 240,
    "batch_size": 16,
    "learning_rate": 0.1,
}


def tiny(**changes):
    return load_scenario(Settings(**TINY | changes))


@pytest.mark.parametrize(
    ("changes", "proxy"),
    [
        ({}, "mlp"),
        ({"proxy_architecture": "auto"}, "cnn"),
        ({"proxy_architecture": "none"}, None),
        ({"proxy_architecture": "auto", "architecture": "mlp"}, None),
        ({"proxy_architecture": "auto", "architecture": "mlp,mlp"}, None),
        ({"proxy_architecture": "auto", "num_entities": 1}, None),
        ({"proxy_architecture": "cnn", "architecture": "mlp"}, "cnn"),
        ({"strategy": "merge"}, None),
        ({"strategy": "local"}, None),
    ],
)
def test_the_proxies_of_an_experiment(changes, proxy):
    scenario = tiny(**changes)
    assert (scenario.proxy and scenario.proxy.name) == proxy
    for index, own in enumerate(scenario.architectures):
        assert scenario.exchanged(index).name == (proxy or own.name)
        assert scenario.has_private_network(index) == (proxy not in (None, own.name))


def test_the_default_proxy_takes_the_samples():
    own = [describe(name, {"input_shape": (1, 4, 4), "classes": 3}) for name in ("resnet20", "mlp")]
    assert scenarios._proxy(Settings(), Kuber(), own).name == "mlp"
    assert scenarios._proxy(Settings(), Kuber(proxy=None), own) is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nonsense", r"^There is no architecture 'nonsense' here; known: cnn, .*\.$"), ("lenet", "choose another")],
)
def test_an_impossible_proxy_is_refused_in_a_sentence(name, sentence):
    with pytest.raises(SettingsError, match=sentence):
        tiny(proxy_architecture=name)


def test_rounds_with_a_private_network_take_as_long_as_those_without_at_pace_rounds():
    scenario, plain = tiny(), tiny(proxy_architecture="none")
    works = [len(private) for private in scenario.private]
    works[1] *= WITH_PRIVATE_NETWORK
    seconds = [work / entity.speed for work, entity in zip(works, scenario.world.entities, strict=True)]
    assert seconds == pytest.approx([seconds[0]] * 3)
    assert [entity.speed for entity in plain.world.entities] == pytest.approx(
        [1000.0 * 3 * len(private) / 240 for private in plain.private]
    )


def simulate(scenario, folder):
    """A finished simulation and its metrics; its log and models are in the folder."""
    runtime = simulated_runtime(scenario)
    recorder = MetricsRecorder(scenario, InlineEngine(), make_learners(scenario, runtime))
    simulation = Simulation(
        scenario,
        engine=InlineEngine(),
        recorder=recorder,
        runtime=runtime,
        progress=SilentProgress(),
        log=folder / FILE_NAME,
        store=LastModels(folder, scenario.settings.num_rounds),
    )
    simulation.run()
    return simulation, recorder.metrics()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A finished simulation, its metrics, its folder and its scenario."""
    folder, scenario = tmp_path_factory.mktemp("proxies"), tiny()
    return *simulate(scenario, folder), folder, scenario


def test_proxies_of_unlike_entities_are_merged_and_private_networks_stay(simulated):
    simulation, *_, scenario = simulated
    records = simulation.registry.discover(Query(order="newest", limit=100)).items
    assert all(record.architecture == scenario.proxy for record in records)
    assert {record.entity for record in records} == {simulation.view.entity(str(index)).id for index in range(3)}
    assert {method for entity in range(3) for method in methods(simulation, entity)} == {"merge"}
    assert all(methods(simulation, entity) for entity in range(3))
    blobs = [simulation.vault.get(digest) for digest in simulation.vault._sizes]
    assert len(blobs) == 1 + 3 * 2  # the initial checkpoint, and the proxy of each round
    for blob in blobs:
        found = tensors_in(blob)
        assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
            name: spec.shape for name, spec in scenario.proxy.manifest.items()
        }


def methods(simulation, entity):
    return [delivery.method for delivery in simulation.view.entity(str(entity)).deliveries if delivery.kept]


def test_the_compute_of_private_phases_counts(simulated):
    simulation, metrics, *_ = simulated
    last = {entry.entity: entry for entry in metrics}
    sizes = [simulation.view.entity(str(entity)).samples for entity in range(3)]
    assert [last[entity].cost.samples_trained for entity in range(3)] == [
        2 * sizes[0],
        2 * 2 * sizes[1],
        2 * sizes[2],
    ]
    events = [event for event in read_events(simulated[2] / FILE_NAME) if event.kind == "private-trained"]
    assert [(event.entity, event.round, event.detail["forward"]) for event in events] == [
        ("1", 1, sizes[1]),
        ("1", 2, sizes[1]),
    ]


def by_hand(scenario, folder, held_out):
    """General accuracy, own accuracy and that of the private network alone of the pair deployed at the end."""
    deployed = RunView.of(read_events(folder / FILE_NAME), rounds=2).entity("1").deployed[2]
    home, runtime = entity_folder(folder, 1), simulated_runtime(scenario)
    labels, counts = torch.from_numpy(held_out.labels), scenario.class_counts(1)
    found = []
    for learner, name in (
        (make_learner(scenario, 1, runtime), deployed.checkpoint),
        (make_private_learner(scenario, 1, runtime), deployed.private),
    ):
        network = learner.model(load((home / name).read_bytes(), learner.architecture)).eval()
        with torch.no_grad():
            found.append(torch.cat([network(x).softmax(1) for x, *_ in learner.ordered_batches(held_out)]))
    pair = deployed.share * found[0] + (1 - deployed.share) * found[1]
    right = (pair * torch.tensor(frequencies(counts))).argmax(1) == labels
    recalls = [right[labels == label].double().mean().item() for label in range(10)]
    general, private = ((answers.argmax(1) == labels).double().mean().item() for answers in (pair, found[1]))
    own = accuracy_on(counts, recalls) if deployed.personal is None else None
    return general, own, private


def test_the_held_out_accuracies_are_those_of_the_deployed_pair(simulated):
    _, metrics, folder, scenario = simulated
    entry = next(entry for entry in metrics if (entry.entity, entry.round) == (1, 2))
    general, own, private = by_hand(scenario, folder, scenario.held_out)
    assert entry.evaluation.accuracy == pytest.approx(general)
    assert entry.private_accuracy == pytest.approx(private)
    assert own is None or entry.own_accuracy == pytest.approx(own)
    assert [entry.private_accuracy is None for entry in metrics] == [True, False, True] * 2


def test_kuber_run_evaluates_the_pair_of_each_round_from_its_files(tmp_path):
    settings = Settings(**TINY | {"num_rounds": 1})
    engine = EngineConfig(kind="inline")
    result = run(settings, tmp_path, engine_config=engine, progress=SilentProgress(), echo=str)
    scenario = load_scenario(settings)
    found = held_out_accuracies(scenario, tmp_path, simulated_runtime(scenario), lambda done, total: None)
    for entity in result.entities:
        (accuracy,) = found[entity.entity]
        assert accuracy.general == entity.final_accuracy
        assert accuracy.own == pytest.approx(entity.own_accuracy)
        assert accuracy.private == entity.private_accuracy
    assert [entity.private_accuracy is None for entity in result.entities] == [True, False, True]
    assert result.architecture == "cnn, mlp"


def test_a_comparison_states_the_private_accuracy_and_is_resumed_with_the_same(tmp_path):
    scenario = tiny(num_rounds=1)
    rows = []
    for _ in range(2):
        done = perform("kuber", scenario, engine=ResultCache(Refusing() if rows else InlineEngine(), tmp_path))
        rows.append(result_row("kuber", 0, done.metrics, done.deliveries, [(24,) * 10] * 3))
    assert replace(rows[0], wall_seconds=0.0) == replace(rows[1], wall_seconds=0.0)
    first, second, third = rows[0].private_accuracies
    assert (first, third) == (None, None)
    assert rows[0].private_accuracy == second == flat(rows[0])["private_accuracy"]
    assert "private_accuracies" not in flat(rows[0])


class Refusing:
    def submit(self, work):
        raise AssertionError("every result is in the cache")


def test_with_one_architecture_nothing_changes(tmp_path):
    logs = []
    for number, proxy in enumerate(["auto", "none"]):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        simulate(tiny(architecture="mlp", proxy_architecture=proxy), folder)
        logs.append((folder / FILE_NAME).read_bytes())
    assert logs[0] == logs[1]


def test_an_entity_of_an_earlier_version_goes_on_without_a_proxy(tmp_path):
    scenario = tiny()
    own = scenario.architectures[1]
    checkpoints = Checkpoints(tmp_path)
    weights = initial_weights(own, 0)
    checkpoints.save(initial_state(session_id="s", weights=weights, generator=torch.Generator().get_state()))
    make = partial(make_entity, scenario, 1, runtime=simulated_runtime(scenario), execute=lambda work: None)
    access = HubAccess(registry=None, vault=None, identity=None)
    entity = make(hub=access, storage=Storage(checkpoints=checkpoints, event_log=None))
    assert (entity.model.architecture, entity.model.proxy_of) == (own, None)
    new = make(hub=access, storage=Storage(checkpoints=Checkpoints(Path(tmp_path / "new")), event_log=None))
    assert (new.model.architecture, new.model.proxy_of) == (scenario.proxy, "cnn")

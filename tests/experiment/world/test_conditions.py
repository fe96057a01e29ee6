"""Entities under simulated conditions: the real loop of an entity, in memory, on digits."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kuber.data.samples import Samples
from kuber.domain.event import Event
from kuber.domain.query import Query
from kuber.entity.clock import Clock
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.errors import SettingsError
from kuber.experiment.comparison.compare import compare, make_plan
from kuber.experiment.comparison.methods import perform
from kuber.experiment.engines.base import Engine
from kuber.experiment.engines.factory import EngineConfig, open_engine
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder, RoundMetrics
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.event_queue import EPOCH
from kuber.experiment.simulation.network import NetworkLink, SharedBandwidth
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.experiment.world.conditions import Absence, Conditions, Interval, Link
from kuber.experiment.world.config import PRESETS
from kuber.settings import Settings

ROUNDS = 4
SIZE = 200_000  # bytes of a model, about


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def make_scenario(cache: Path, **changes: Any) -> Scenario:
    given = {
        "dataset": "digits",
        "architecture": "mlp",
        "learning_rate": 0.1,
        "batch_size": 16,
        "num_entities": 4,
        "num_rounds": ROUNDS,
        "local_epochs": 1,
        "cache_dir": cache,
    }
    return load_scenario(Settings(**given | changes))


class Simulated:
    """A complete simulation, with its events and metrics."""

    def __init__(self, scenario: Scenario, folder: Path, engine: Engine | None = None) -> None:
        runtime = simulated_runtime(scenario)
        log = folder / FILE_NAME
        # What one simulation has computed, the next has not to compute again.
        engine = engine or ResultCache(InlineEngine(), scenario.settings.cache_dir / "results")
        recorder = MetricsRecorder(scenario, engine, make_learners(scenario, runtime))
        self.simulation = Simulation(
            scenario, engine=engine, recorder=recorder, runtime=runtime, progress=SilentProgress(), log=log
        )
        self.simulation.run()
        self.metrics: list[RoundMetrics] = recorder.metrics()
        self.events = read_events(log)
        self.log = log.read_bytes()

    def of(self, entity: int, *kinds: str) -> list[Event]:
        return [e for e in self.events if e.entity == str(entity) and (not kinds or e.kind in kinds)]

    def at(self, event: Event) -> float:
        return (event.time - EPOCH).total_seconds()

    def rounds(self, entity: int) -> list[int]:
        return [entry.round for entry in self.metrics if entry.entity == entity]

    def records(self, entity: int) -> list[Any]:
        member = self.simulation.view.entities[str(entity)].id
        found = self.simulation.registry.discover(Query(order="newest", limit=1000)).items
        return [record for record in reversed(found) if record.entity == member]


@pytest.fixture(scope="module")
def plain(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    return Simulated(make_scenario(cache), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def two_workers(process: None) -> Iterator[Engine]:
    with open_engine(2) as engine:
        yield engine


@pytest.mark.parametrize("world", PRESETS)
def test_each_preset_is_the_same_on_any_number_of_workers(world, cache, tmp_path, two_workers):
    scenario = make_scenario(cache, world=world, num_entities=8)
    (tmp_path / "some").mkdir()
    alone, shared = Simulated(scenario, tmp_path), Simulated(scenario, tmp_path / "some", two_workers)
    assert alone.log == shared.log
    pairs = zip(alone.metrics, shared.metrics, strict=True)
    assert all(a.evaluation == b.evaluation and a.time == b.time for a, b in pairs)
    everybody = set(range(8))
    assert {entry.entity for entry in alone.metrics if entry.round == ROUNDS} == everybody
    times = [event.time for event in alone.events]
    assert times == sorted(times)
    for entity in everybody:
        assert [event.seq for event in alone.of(entity)] == list(range(len(alone.of(entity))))


def test_a_crash_loses_the_work_since_the_checkpoint(cache, tmp_path, plain):
    middle = plain.at(plain.of(1, "trained")[1]) - 0.001  # of the second local phase
    scenario = make_scenario(cache)
    crashed = Simulated(
        replace(scenario, world=scenario.world.change(1, absences=(Absence(middle, middle + 5.0, crash=True),))),
        tmp_path,
    )
    kinds = [event.kind for event in crashed.of(1)]
    assert kinds.index("stopped") + 1 == kinds.index("resumed")
    stopped, resumed = crashed.of(1, "stopped", "resumed")
    assert stopped.detail == {"reason": "crashed"}
    assert crashed.at(resumed) - crashed.at(stopped) == pytest.approx(5.0, abs=1e-5)
    # The second round began twice, and every round ended once.
    assert Counter(event.round for event in crashed.of(1, "round-started")) == {1: 1, 2: 2, 3: 1, 4: 1}
    assert crashed.rounds(1) == [1, 2, 3, 4]
    view, as_usual = (simulated.simulation.view.entities["1"] for simulated in (crashed, plain))
    assert view.samples_trained == as_usual.samples_trained
    assert len(crashed.records(1)) == view.published
    # The others have ended meanwhile, so there is nobody to wait for.
    waited = sum(event.detail.get("waited", 0.0) for event in plain.of(1, "sought"))
    assert crashed.at(crashed.of(1)[-1]) > plain.at(plain.of(1)[-1]) + 5.0 - waited


def test_a_crash_at_any_moment_publishes_and_ends_each_round_once(cache, tmp_path, plain):
    scenario = make_scenario(cache)
    scenario = replace(scenario, world=scenario.world.change(2, link=Link(latency=0.01, up=1e6, down=1e6)))
    usual = Simulated(scenario, tmp_path)
    last = usual.at(usual.of(2)[-1])
    for step in range(8):
        time = last * (step + 0.5) / 8
        world = scenario.world.change(2, absences=(Absence(time, time + 0.5, crash=True),))
        simulated = Simulated(replace(scenario, world=world), tmp_path)
        assert simulated.rounds(2) == [1, 2, 3, 4]
        records = simulated.records(2)
        # One record for each round, beside the initial checkpoint.
        assert [record.round for record in records if record.round] == [1, 2, 3, 4]
        assert simulated.simulation.view.entities["2"].published == len(records)
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))


@pytest.mark.parametrize("end", [float("inf"), 60.0])
def test_an_absence_in_the_last_call_of_a_round_keeps_log_and_metrics_consistent(end, cache, tmp_path):
    """While an entity reports its round to the hub, the round has not ended."""
    scenario = make_scenario(cache)
    scenario = replace(scenario, world=scenario.world.change(2, link=Link(latency=0.5)))
    usual = Simulated(scenario, tmp_path)
    reporting = usual.at(usual.of(2, "round-ended")[1]) - 0.25
    simulated = Simulated(
        replace(scenario, world=scenario.world.change(2, absences=(Absence(reporting, end),))), tmp_path
    )
    ended = simulated.of(2, "round-ended")
    assert [event.round for event in ended] == simulated.rounds(2) == ([1] if end > 60 else [1, 2, 3, 4])
    times = [entry.time for entry in simulated.metrics if entry.entity == 2]
    assert times == pytest.approx([simulated.at(event) for event in ended], abs=1e-5)


def test_an_entity_that_leaves_does_nothing_more(cache, tmp_path, plain):
    scenario = make_scenario(cache)
    time = plain.at(plain.of(3, "round-ended")[1]) + 0.001
    simulated = Simulated(replace(scenario, world=scenario.world.change(3, absences=(Absence(time),))), tmp_path)
    assert simulated.rounds(3) == [1, 2]
    assert (simulated.of(3)[-1].kind, simulated.of(3)[-1].detail) == ("stopped", {"reason": "left"})
    assert simulated.simulation.view.entities["3"].state == "stopped"


def test_an_entity_without_the_hub_trains_on_and_publishes_later(cache, tmp_path, plain):
    scenario = make_scenario(cache)
    start, end = (plain.at(event) for event in plain.of(0, "round-started")[1::2])
    cut = Interval(start + 0.001, end + 30.0)
    simulated = Simulated(replace(scenario, world=scenario.world.change(0, cuts=(cut,))), tmp_path)
    assert simulated.of(0, "unreachable")
    queued, published = simulated.of(0, "queued"), simulated.of(0, "published")
    assert {event.detail["digest"] for event in queued} <= {event.detail["digest"] for event in published}
    assert not [event for event in published if simulated.at(event) in cut]
    assert [record.round for record in simulated.records(0) if record.round] == [1, 2, 3, 4]
    assert simulated.rounds(0) == [1, 2, 3, 4]


def test_an_entity_without_the_hub_at_first_joins_later_and_one_always_without_it_never(cache, tmp_path):
    scenario = make_scenario(cache)
    world = scenario.world.change(0, cuts=(Interval(0.0, 40.0),)).change(1, cuts=(Interval(0.0),))
    simulated = Simulated(replace(scenario, world=world), tmp_path)
    assert simulated.at(simulated.of(0, "joined")[0]) >= 40.0
    assert simulated.rounds(0) == [1, 2, 3, 4]
    assert [event.kind for event in simulated.of(1)] == ["unreachable"]


def test_calls_and_bytes_take_their_time(cache, tmp_path):
    scenario = make_scenario(cache, strategy="exchange")
    for link, least in ((Link(latency=2.0), 2.0), (Link(up=SIZE / 5), 5.0)):
        far = Simulated(replace(scenario, world=scenario.world.change(2, link=link)), tmp_path)
        trained, published = far.of(2, "evaluated")[0], far.of(2, "published")[0]
        assert far.at(published) - far.at(trained) >= least
        assert far.rounds(2) == [1, 2, 3, 4]


def test_adjacent_cuts_are_one():
    passed = [0.0]
    link = NetworkLink(
        Conditions(speed=1.0, cuts=(Interval(1.0, 2.0), Interval(2.0, 5.0), Interval(5.0, 5.5))),
        SharedBandwidth(10.0),
        patience=4.0,
        clock=Clock(now=lambda: passed[-1], sleep=lambda seconds: passed.append(passed[-1] + seconds)),
    )
    passed.append(1.5)
    link.transfer()
    assert passed[-1] == 5.5


def test_a_call_without_weights_does_not_queue():
    hub = SharedBandwidth(10.0)
    assert hub.reserve(0.0, 100) == 10.0
    assert hub.reserve(1.0, 0) == 0.0
    assert hub.reserve(1.0, 10) == 10.0


def test_others_discover_nothing_before_it_has_arrived(cache, tmp_path):
    scenario = make_scenario(cache)
    # A round takes a third of a second, and sending its model a fifth.
    simulated = Simulated(replace(scenario, world=scenario.world.change(2, link=Link(up=5 * SIZE))), tmp_path)
    arrived = {event.detail["knowledge"]: simulated.at(event) for event in simulated.of(2, "published")}
    pulls = [event for entity in (0, 1, 3) for event in simulated.of(entity, "pulled")]
    assert any(event.detail["knowledge"] in arrived for event in pulls)
    assert all(simulated.at(event) >= arrived.get(event.detail["knowledge"], 0.0) for event in pulls)


def test_entities_share_the_bandwidth_of_the_hub(cache, tmp_path, plain):
    scenario = make_scenario(cache)
    slow = Simulated(replace(scenario, world=replace(scenario.world, bandwidth=2e4)), tmp_path)
    moved = sum(entity.bytes_up + entity.bytes_down for entity in slow.simulation.view.entities.values())
    assert slow.at(slow.events[-1]) >= moved / 2e4
    assert slow.at(slow.events[-1]) > plain.at(plain.events[-1])


@pytest.mark.parametrize("poison", ["claims", "noise"])
def test_models_under_false_claims_are_refused(poison, cache, tmp_path):
    scenario = make_scenario(cache)
    simulated = Simulated(replace(scenario, world=scenario.world.change(1, poison=poison)), tmp_path)
    records = [record for record in simulated.records(1) if record.round]
    assert len(records) == ROUNDS
    rejected = {event.detail["knowledge"] for entity in (0, 2, 3) for event in simulated.of(entity, "rejected")}
    assert rejected
    assert rejected <= {record.id for record in records}
    kept = [delivery for delivery in simulated.simulation.view.deliveries if delivery.kept]
    assert kept
    # A model of the first round is hardly better than chance: a false one cannot be distinguished from it.
    better = {record.id for record in records if record.evaluation.accuracy > 0.3}
    assert better
    assert not [delivery for delivery in kept if better & set(delivery.teachers)]
    # Its own model is sound: it trains on, and its reports are true.
    assert max(entry.evaluation.accuracy for entry in simulated.metrics if entry.entity == 1) > 0.3


def test_rotated_labels_are_trained_on(cache):
    sound, poisoned = make_scenario(cache), make_scenario(cache, world="poisoned")
    index = next(i for i, conditions in enumerate(poisoned.world.entities) if conditions.poison == "labels")
    samples: Samples = poisoned.private[index]
    assert (samples.labels == (sound.private[index].labels + 1) % 10).all()
    counts = sound.class_counts(index)
    assert poisoned.class_counts(index) == (counts[-1], *counts[:-1])


def test_a_straggler_delays_synchronous_methods_only(cache, tmp_path, plain):
    scenario = make_scenario(cache)
    slow = replace(scenario, world=scenario.world.change(0, speed=scenario.world.entities[0].speed / 10))
    simulated = Simulated(slow, tmp_path)
    for entity in (1, 2, 3):
        assert simulated.at(simulated.of(entity)[-1]) == pytest.approx(plain.at(plain.of(entity)[-1]), rel=0.2)
    with open_engine(0) as engine:
        ends = [perform("fedavg", world, engine=engine).metrics[-1].time for world in (scenario, slow)]
    assert ends[1] == pytest.approx(10 * ends[0])


class NoProgress:
    """The `ComparisonProgress` of a comparison that must not begin."""

    def on_tasks(self, tasks, entities):
        raise AssertionError("the comparison has begun")


def test_a_comparison_with_a_synchronous_method_is_refused_before_anything_runs(cache, tmp_path):
    plan = make_plan(make_scenario(cache, world="churn").settings, ["kuber", "fedavg"], [0])
    with pytest.raises(SettingsError, match="runs all entities in lockstep"):
        compare(plan, tmp_path, engine_config=EngineConfig(kind="inline"), progress=NoProgress(), echo=lambda _: None)


def test_synchronous_methods_need_entities_that_are_always_available(cache):
    with open_engine(0) as engine, pytest.raises(SettingsError, match="runs all entities in lockstep"):
        perform("fedavg", make_scenario(cache, world="churn"), engine=engine)

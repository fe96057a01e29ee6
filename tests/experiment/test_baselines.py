"""Baselines, compared with their papers on real digits."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kuber.domain.prior import accuracy_on, frequencies, geometric_mean, uniform
from kuber.domain.strategies import STRATEGIES
from kuber.domain.strategy import LocalPhase
from kuber.entity.work.steps import common_evaluation, training
from kuber.errors import SettingsError
from kuber.experiment.baselines.deployed import DeployedModels
from kuber.experiment.baselines.finetuned import FINE_TUNING
from kuber.experiment.baselines.synchronous import SynchronousEntities, pooled
from kuber.experiment.comparison.methods import BASELINES, Performance, perform
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.entity_factory import generator_state, make_learner, make_learners
from kuber.experiment.held_out import correct_answers, mean_logits
from kuber.experiment.metrics import MetricsRecorder
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.simulator import simulated_runtime
from kuber.experiment.world.conditions import Link, World
from kuber.learning.architectures import initial_weights
from kuber.learning.evaluation import compute_logits
from kuber.learning.merging import merge
from kuber.learning.training import linear, proximal, span_of
from kuber.learning.weights import Weights, dump
from kuber.settings import Settings
from kuber.views.comparison import PUBLIC


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return load_scenario(
        Settings(
            dataset="digits",
            architecture="mlp",
            strategy="vanilla",
            learning_rate=0.1,
            batch_size=16,
            num_entities=3,
            num_rounds=2,
            local_epochs=2,
            public_dataset="digits",
            public_size=100,
            cache_dir=tmp_path_factory.mktemp("cache"),
        )
    )


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], list[Weights]]:
    """(round, entity) -> the models that a method handed in; (round, -1 - entity) -> its personal model, if any."""
    found: dict[tuple[int, int], list[Weights]] = {}
    true = MetricsRecorder.end_round

    def end_round(self, entity, round, models, cost, **more):
        found[round, entity] = models
        if more.get("personal") is not None:
            found[round, -1 - entity] = [more["personal"]]
        true(self, entity, round, models, cost, **more)

    monkeypatch.setattr(MetricsRecorder, "end_round", end_round)
    return found


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[list[Weights]]]:
    """Round -> the models of each entity at its end, of which the deployed ones are chosen."""
    found: dict[int, list[list[Weights]]] = {}
    true = DeployedModels.choose

    def choose(self, round, models):
        chosen = true(self, round, models)
        found[round] = list(models)
        return chosen

    monkeypatch.setattr(DeployedModels, "choose", choose)
    return found


def play(method: str, scenario: Scenario) -> Performance:
    return perform(method, scenario, engine=InlineEngine())


def with_settings(scenario: Scenario, **changes: Any) -> Scenario:
    return replace(scenario, settings=scenario.settings.model_copy(update=changes))


def alone(scenario: Scenario) -> Scenario:
    settings = scenario.settings.model_copy(update={"num_entities": 1})
    return replace(
        scenario, settings=settings, private=scenario.private[:1], world=World(entities=scenario.world.entities[:1])
    )


def with_strategy(scenario: Scenario, method: str) -> Scenario:
    return replace(scenario, strategy=STRATEGIES.get(method, scenario.strategy))


def trained(scenario: Scenario, index: int, start: Weights) -> Weights:
    """The weights after one local phase from these."""
    learner = make_learner(scenario, index, simulated_runtime(scenario))
    work = training(learner, scenario.strategy.local_phase(), start, generator_state(0, index))
    return InlineEngine().submit(work).result().weights


@pytest.mark.parametrize("method", sorted(set((*STRATEGIES, *BASELINES)) - {"central"}))
def test_every_entity_ends_every_round(scenario, method):
    metrics = play(method, scenario).metrics
    assert [(entry.round, entry.entity) for entry in metrics] == [(r, e) for r in (1, 2) for e in range(3)]
    last = [entry.evaluation.accuracy for entry in metrics if entry.round == 2]
    assert all(0.1 < accuracy <= 1 for accuracy in last) or method in ("local", "vanilla")


class RecordingEngine(InlineEngine):
    """Notes the span of every training."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def submit(self, work):
        if "generator" in work.arguments:
            self.spans.append(work.arguments.get("span"))
        return super().submit(work)


@pytest.mark.parametrize("method", ["kuber", "vanilla", "local", *BASELINES])
def test_every_training_follows_the_schedule(scenario, method):
    engine = RecordingEngine()
    perform(method, with_settings(scenario, learning_rate_schedule="cosine"), engine=engine)
    shared = (0.0, 1.0) if method == "finetuned" else (0.0, 0.5)  # one round of FedAvg before an own one
    assert set(engine.spans) == {shared, (0.5, 1.0)}


def test_a_longer_local_follows_the_schedule_over_its_own_rounds(scenario):
    engine = RecordingEngine()
    perform("local", with_settings(scenario, learning_rate_schedule="cosine", num_rounds=4), engine=engine)
    assert set(engine.spans) == {(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)}


def test_an_interrupted_method_with_a_schedule_ends_with_the_same_bits(scenario, models, tmp_path):
    """Killed anywhere and resumed from the stored results, as `kuber compare --resume` does."""
    cosine = with_settings(scenario, learning_rate_schedule="cosine")
    perform("fedavg", cosine, engine=InlineEngine())
    whole = {place: dump(found[0]) for place, found in models.items()}
    models.clear()
    with pytest.raises(InterruptedError):
        perform("fedavg", cosine, engine=ResultCache(InterruptedEngine(after=4), tmp_path))
    perform("fedavg", cosine, engine=ResultCache(InlineEngine(), tmp_path))
    assert {place: dump(found[0]) for place, found in models.items()} == whole


class InterruptedEngine(InlineEngine):
    """Fails after some work steps."""

    def __init__(self, *, after: int) -> None:
        self.left = after

    def submit(self, work):
        self.left -= 1
        if self.left < 0:
            raise InterruptedError
        return super().submit(work)


@pytest.mark.parametrize("method", ["fedavg", "scaffold", "ensemble"])
def test_one_entity_is_local_bit_for_bit(scenario, models, method):
    play("local", alone(scenario))
    local = {place: dump(found[0]) for place, found in models.items()}
    models.clear()
    play(method, alone(scenario))
    assert {place: dump(found[0]) for place, found in models.items()} == local


def test_fedavg_is_the_mean_of_local_phases_weighted_by_samples(scenario, models):
    play("fedavg", scenario)
    start = initial_weights(scenario.architectures[0], 0)
    sizes = [len(private) for private in scenario.private]
    ends = [trained(scenario, index, start) for index in range(3)]
    for name, tensor in models[1, 0][0].items():
        expected = sum(end[name].double() * size for end, size in zip(ends, sizes, strict=True)) / sum(sizes)
        torch.testing.assert_close(tensor, expected.to(tensor.dtype))
    assert models[1, 0] == models[1, 1] == models[1, 2]


@pytest.mark.parametrize(("method", "files"), [("fedavg", 1), ("fedavgm", 1), ("scaffold", 2)])
def test_files_as_long_as_a_model_go_both_ways_in_each_round(scenario, method, files):
    model = len(dump(initial_weights(scenario.architectures[0], 0)))
    for entry in play(method, scenario).metrics:
        assert entry.cost.bytes_up == entry.cost.bytes_down == files * model * entry.round


def test_fedprox_changes_models_unless_mu_is_0(scenario, models):
    play("fedavg", scenario)
    far = dump(models[2, 0][0])
    models.clear()
    play("fedprox", scenario)
    assert dump(models[2, 0][0]) != far
    models.clear()
    play("fedprox", replace(scenario, settings=scenario.settings.model_copy(update={"fedprox_mu": 0.0})))
    assert dump(models[2, 0][0]) == far


def test_fedavgm_is_fedavg_bit_for_bit_without_momentum_and_in_the_first_round(scenario, models):
    play("fedavg", scenario)
    plain = {place: dump(found[0]) for place, found in models.items()}
    models.clear()
    play("fedavgm", with_settings(scenario, server_momentum=0.0))
    assert {place: dump(found[0]) for place, found in models.items()} == plain
    models.clear()
    play("fedavgm", scenario)
    assert dump(models[1, 0][0]) == plain[1, 0]
    assert dump(models[2, 0][0]) != plain[2, 0]


def test_fedavgm_is_the_papers_algorithm(scenario, current):
    play("fedavgm", with_settings(scenario, num_rounds=3, server_momentum=0.7))
    sizes = [len(private) for private in scenario.private]
    generators = [generator_state(0, index) for index in range(3)]
    shared = initial_weights(scenario.architectures[0], 0)
    momentum = {name: torch.zeros_like(tensor) for name, tensor in shared.items()}
    for round in (1, 2, 3):
        ends = []
        for index in range(3):
            learner = make_learner(scenario, index, simulated_runtime(scenario))
            work = training(learner, LocalPhase(), shared, generators[index])
            ended = InlineEngine().submit(work).result()
            generators[index] = ended.generator
            ends.append(ended.weights)
        for name, tensor in shared.items():
            mean = sum(end[name] * size for end, size in zip(ends, sizes, strict=True)) / sum(sizes)
            momentum[name] = 0.7 * momentum[name] + (tensor - mean)
        shared = {name: tensor - momentum[name] for name, tensor in shared.items()}
        for name, tensor in current[round][0][0].items():
            torch.testing.assert_close(tensor, shared[name], rtol=1e-3, atol=1e-4)
    assert current[3][0] is current[3][1] is current[3][2]


def test_scaffold_is_fedavg_in_the_first_round_with_the_same_work_steps(scenario, models, tmp_path):
    once = with_settings(scenario, num_rounds=1, learning_rate_schedule="cosine")
    perform("fedavg", once, engine=ResultCache(InlineEngine(), tmp_path))
    plain = {place: dump(found[0]) for place, found in models.items()}
    models.clear()
    perform("scaffold", once, engine=ResultCache(InterruptedEngine(after=0), tmp_path))
    assert {place: dump(found[0]) for place, found in models.items()} == plain


def test_scaffold_is_the_papers_algorithm(scenario, current):
    """Recomputed with SGD by hand; K eta is the sum of all weights that a gradient has in the later steps."""
    cosine = with_settings(scenario, num_rounds=3, learning_rate_schedule="cosine")
    play("scaffold", cosine)
    sizes = [len(private) for private in scenario.private]
    learners = [make_learner(cosine, index, simulated_runtime(cosine)) for index in range(3)]
    draws = [torch.Generator() for _ in range(3)]
    for index, generator in enumerate(draws):
        generator.set_state(generator_state(0, index))
    start = initial_weights(scenario.architectures[0], 0)
    shared = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    own = [shared] * 3

    def mean(parts):
        return {n: sum(part[n] * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes) for n in start}

    for round in (1, 2, 3):
        ends, variates = [], []
        for learner, generator, variate in zip(learners, draws, own, strict=True):
            network, settings = learner.model(start), learner.training
            buffers = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
            rates: list[float] = []
            seen = 0
            for x, y in (batch for _ in range(settings.epochs) for batch in learner.training_batches(generator)):
                share = (round - 1 + seen / (settings.epochs * len(learner.private))) / 3
                rates.append(settings.learning_rate * (1 + math.cos(math.pi * share)) / 2)
                seen += len(x)
                loss = torch.nn.functional.cross_entropy(network(x), y)
                parameters = dict(network.named_parameters())
                gradients = torch.autograd.grad(loss, list(parameters.values()))
                with torch.no_grad():
                    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                        corrected = gradient + settings.weight_decay * parameter - variate[name] + shared[name]
                        buffers[name] = settings.momentum * buffers[name] + corrected
                        parameter -= rates[-1] * buffers[name]
            distance = sum(rate * settings.momentum**age for k, rate in enumerate(rates) for age in range(k + 1))
            end = {name: tensor.detach() for name, tensor in network.named_parameters()}
            ends.append(end)
            variates.append({n: variate[n] - shared[n] + (start[n] - end[n]) / distance for n in start})
        start, own, shared = mean(ends), variates, mean(variates)
        for name, tensor in current[round][0][0].items():
            torch.testing.assert_close(tensor, start[name], rtol=1e-3, atol=1e-4)
    assert current[3][0] is current[3][1] is current[3][2]
    play("fedavg", cosine)
    assert max(float((start[name] - tensor).abs().max()) for name, tensor in current[3][0][0].items()) > 0.01


def test_corrections_of_scaffold_balance_each_other(scenario):
    """Weighted by samples they sum to 0, so on average entities follow their own gradients."""
    corrections: list[Weights] = []

    class Engine(InlineEngine):
        def submit(self, work):
            if "correction" in work.arguments:
                corrections.append(work.arguments["correction"])
            return super().submit(work)

    perform("scaffold", scenario, engine=Engine())
    assert len(corrections) == 3, "none in the first round"
    for name, first in corrections[0].items():
        sizes = [len(private) for private in scenario.private]
        total = sum(each[name] * size for each, size in zip(corrections, sizes, strict=True)) / sum(sizes)
        torch.testing.assert_close(total, torch.zeros_like(first), rtol=0, atol=1e-6)
        assert first.abs().max() > 1e-4


def test_finetuned_trains_each_entity_from_the_last_shared_model_of_fedavg(scenario, models):
    cosine = {"learning_rate_schedule": "cosine"}
    longer = replace(scenario, settings=scenario.settings.model_copy(update=cosine | {"num_rounds": 3}))
    shorter = replace(scenario, settings=scenario.settings.model_copy(update=cosine | {"num_rounds": 2}))
    shared = play("fedavg", shorter).metrics
    before = dict(models)
    models.clear()
    own = play("finetuned", longer).metrics
    # A generator of the entities has drawn two local phases: the third continues where these ended.
    assert [dump(models[2, index][0]) for index in range(3)] == [dump(before[2, 0][0])] * 3
    runtime, engine = simulated_runtime(longer), InlineEngine()
    for index in range(3):
        learner, generator = make_learner(longer, index, runtime), generator_state(0, index)
        starts = [initial_weights(longer.architectures[0], 0), before[1, 0][0], before[2, 0][0]]
        for start, span in zip(starts, (span_of(1, 2), span_of(2, 2), FINE_TUNING), strict=True):
            work = training(learner, LocalPhase(), start, generator, span=span)
            ended = engine.submit(work).result()
            generator = ended.generator
        assert dump(models[3, index][0]) == dump(ended.weights)
    trained = [entry.cost.samples_trained for entry in own]
    assert trained[:6] == [entry.cost.samples_trained for entry in shared]
    assert [2 * samples for samples in trained[6:]] == [3 * samples for samples in trained[3:6]]
    assert own[-1].cost.bytes_up == shared[-1].cost.bytes_up  # the last models are not sent


@pytest.mark.parametrize("method", ["local", "kuber", "fedavg", "finetuned", "ensemble"])
def test_accuracies_are_those_of_logits_adjusted_to_the_prior_that_suits_each(scenario, models, method):
    metrics = [entry for entry in play(method, with_strategy(scenario, method)).metrics if entry.round == 2]
    runtime = simulated_runtime(scenario)
    counts = [scenario.class_counts(index) for index in range(3)]
    pooled, alone = frequencies([sum(column) for column in zip(*counts, strict=True)]), list(map(frequencies, counts))
    carried = {"kuber": uniform(10), "fedavg": pooled, "ensemble": geometric_mean(alone)}
    labels = torch.from_numpy(scenario.held_out.labels)
    for entry in metrics:
        learner, prior = make_learner(scenario, entry.entity, runtime), alone[entry.entity]
        networks = [learner.model(model) for model in models[2, entry.entity]]
        batches = [learner.ordered_batches(scenario.held_out) for _ in networks]
        logits = torch.stack([*map(partial(compute_logits, runtime=runtime), networks, batches)]).mean(0)
        general, own = [], []
        for power in (0.0, 0.5, 1.0):
            flat = logits - power * torch.tensor(carried.get(method, prior)).log()
            general.append((flat.argmax(1) == labels).double().mean().item())
            right = ((flat + torch.tensor(prior).log()).argmax(1) == labels).double()
            recalls = [right[labels == label].mean().item() for label in range(10)]
            own.append(accuracy_on(counts[entry.entity], recalls))
        assert min(abs(entry.evaluation.accuracy - value) for value in general) < 0.005
        personal = models.get((2, -1 - entry.entity))
        assert (personal is None) == (method == "ensemble")
        if personal is not None:
            batches = learner.ordered_batches(scenario.held_out)
            right = compute_logits(learner.model(personal[0]), batches, runtime=runtime).argmax(1) == labels
            recalls = [right[labels == label].double().mean().item() for label in range(10)]
            own = [accuracy_on(counts[entry.entity], recalls)]
        assert min(abs(entry.own_accuracy - value) for value in own) < 0.005


def test_the_prior_of_a_plain_model_counts_as_far_as_samples_for_decisions_say(scenario):
    learner = make_learner(scenario, 0, simulated_runtime(scenario))
    weights = initial_weights(scenario.architectures[0], 0)
    rare = (*(0.999 / 9,) * 3, 1e-30, *(0.999 / 9,) * 6)  # without this prior every answer is class 3
    labels = scenario.held_out.labels
    others, threes = (scenario.held_out.take(np.flatnonzero(kind)) for kind in (labels != 3, labels == 3))
    answers = mean_logits(learner, [weights])
    count = partial(correct_answers, answers, scenario.held_out, class_counts=[(1,) * 10])
    everything = [0, 0, 0, len(threes), 0, 0, 0, 0, 0, 0]
    assert count(carried=rare, deciding=threes).tolist() == [everything, everything]
    as_it_is = count(carried=uniform(10), deciding=threes).tolist()
    assert count(carried=rare, deciding=others).tolist() == as_it_is


def test_a_correction_is_added_to_the_gradient():
    network = torch.nn.Linear(2, 1)
    slope = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([-1.0])}
    (network(torch.ones(1, 2)).sum() + linear(network, slope)()).backward()
    assert network.weight.grad.tolist() == [[4.0, 5.0]]
    assert network.bias.grad.tolist() == [0.0]
    with pytest.raises(KeyError, match="bias"):
        linear(network, {"weight": slope["weight"]})


def test_the_proximal_term_is_half_mu_times_the_squared_distance():
    network = torch.nn.Linear(2, 1, bias=False)
    penalty = proximal(network, 0.01)
    assert penalty().item() == 0
    with torch.no_grad():
        network.weight += torch.tensor([[3.0, 4.0]])
    penalty().backward()
    assert penalty().item() == pytest.approx(0.01 / 2 * 25)
    assert network.weight.grad is not None
    torch.testing.assert_close(network.weight.grad, 0.01 * torch.tensor([[3.0, 4.0]]))


def test_central_trains_as_many_samples_as_all_entities(scenario):
    def trained_samples(method):
        return sum(entry.cost.samples_trained for entry in play(method, scenario).metrics if entry.round == 2)

    assert trained_samples("central") == pytest.approx(trained_samples("fedavg"), rel=0.01)


def test_central_has_the_samples_of_all_entities(scenario):
    runtime = simulated_runtime(scenario)
    engine = InlineEngine()
    recorder = MetricsRecorder(scenario, engine, make_learners(scenario, runtime))
    rows = pooled(SynchronousEntities(scenario, runtime, engine, recorder)).private.rows
    assert sorted(rows.tolist()) == sorted(row for private in scenario.private for row in private.rows.tolist())


@pytest.mark.parametrize(("method", "rounds"), [("central", 1), ("fedavg", 2)])
def test_latency_counts_in_rounds_with_transfers(scenario, method, rounds):
    # The data are moved once, models in every round; each there and back.
    far = replace(scenario, world=scenario.world.change(1, link=Link(latency=3.0)))
    near, late = (max(entry.time for entry in play(method, world).metrics) for world in (scenario, far))
    assert late - near == pytest.approx(2 * 3.0 * rounds)


def test_fedmd_moves_logits_and_no_weights(scenario):
    entry = play("fedmd", scenario).metrics[-1]
    assert entry.cost.bytes_up == entry.cost.bytes_down == 2 * 100 * 10 * 4
    # The public set twice, what may be deployed (the model at the end of each round, and one average), and the head.
    private = len(scenario.private[entry.entity])
    assert entry.cost.samples_forward == 2 * 100 + (3 + 2) * len(scenario.common) + 2 * private


def test_fedmd_changes_the_distance_between_models(scenario, models):
    """Training towards the consensus changes how far models are apart after their private epochs."""

    def disagreement():
        found = [models[2, entity][0] for entity in range(3)]
        return sum(float((found[0][name] - other[name]).norm()) for other in found[1:] for name in other)

    play("local", scenario)
    apart = disagreement()
    play("fedmd", scenario)
    assert disagreement() != apart


@pytest.mark.parametrize("method", sorted(PUBLIC))
def test_without_a_public_set_it_is_refused(scenario, method):
    with pytest.raises(SettingsError, match="--public-dataset"):
        play(method, replace(scenario, public=None))


def test_a_public_set_of_another_shape_is_refused(tmp_path: Path):
    import numpy as np

    other = tmp_path / "other.npz"
    draws = np.random.default_rng(0)
    np.savez(other, x=draws.normal(size=(600, 5)).astype(np.float32), y=draws.integers(0, 3, 600))
    settings = Settings(
        dataset="digits", architecture="mlp", batch_size=16, public_dataset=str(other), cache_dir=tmp_path
    )
    with pytest.raises(SettingsError, match="same shape"):
        load_scenario(settings)


def test_finetuned_deploys_an_own_model_in_the_last_round(scenario, models):
    play("finetuned", scenario)
    assert models[1, 0][0] is models[1, 1][0], "the shared model"
    last = [models[2, entity][0] for entity in range(3)]
    assert len({dump(model) for model in last}) == 3


@pytest.mark.parametrize("method", ["local", "central", "ensemble", "fedmd"])
def test_reported_models_are_the_best_on_the_common_test_set(scenario, models, current, method):
    play(method, scenario)
    learner = make_learner(scenario, 0, simulated_runtime(scenario))

    def accuracy(weights):
        return common_evaluation(learner, weights).do(lambda share: None).evaluation.accuracy

    for entity in range(3):
        if not current:  # strategies choose in the entity; what they deploy is no worse than their first model
            assert accuracy(models[2, entity][0]) >= accuracy(models[1, entity][0])
            continue
        for place, weights in enumerate(models[2, entity]):
            first, second = current[1][entity][place], current[2][entity][place]
            average = merge([second, first], [1.0, 1.0])
            assert accuracy(weights) == max(map(accuracy, (first, second, average)))

"""Private networks: they learn from the merged proxy at the end of each round, and never leave the entity."""

from dataclasses import replace

import pytest
import torch

from kuber.domain.prior import accuracy_on, frequencies, uniform
from kuber.domain.strategies import Kuber
from kuber.domain.strategy import Guidance
from kuber.entity.deployment import PERSONAL_FILE
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.learner import PhaseTeacher, TeacherModel
from kuber.entity.work.pair import SHARES, choose_share
from kuber.entity.work.personal import PersonalResult, personalise
from kuber.entity.work.steps import train_locally, training
from kuber.experiment.entity_factory import make_learner, make_private_learner
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import simulated_runtime
from kuber.learning.architectures import initial_weights
from kuber.learning.weights import load
from kuber.settings import Settings
from kuber.strategies import ProxyPolicy
from kuber.views.run import RunView

from .scripted_entities import ARCHITECTURE, PRIVATE, Killed, Script


def silent(share):
    pass


class Watched(Script):
    """Notes the private phases; a personal head has this own accuracy."""

    def __init__(self, percentages, *, own_with_head=0.0, until=10**6):
        super().__init__(percentages, until=until)
        self.phases = []
        self._own_with_head = own_with_head

    def __call__(self, work):
        if work.function is personalise:
            return PersonalResult(
                weights=work.arguments["weights"], before=0.1, after=self._own_with_head, forward=30, seconds=0.2
            )
        if work.function is train_locally and work.arguments["learner"].architecture == PRIVATE:
            self.phases.append(work.arguments)
        return super().__call__(work)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_private_network_learns_from_the_merged_proxy_at_the_end_of_each_round(world):
    world.entity("other", rounds=1, strategy="kuber", execute=Script([60] * 9)).run()
    policy = ProxyPolicy(temperature=3.0, weight=0.5)
    script = Watched([60] * 20)
    world.entity("a", rounds=2, strategy=Kuber(proxy=policy), execute=script, private=True).run()
    folder = world.folder / "a"
    checkpoints, last = Checkpoints(folder), Checkpoints(folder).latest()
    first, second = script.phases
    for round, phase in ((1, first), (2, second)):
        (teacher,) = phase["teachers"]
        assert teacher.model.architecture == ARCHITECTURE
        assert same(teacher.model.weights, checkpoints.load_round(round, ARCHITECTURE)), "the merged proxy"
        assert phase["phase"].loss == "balanced-softmax"
        assert phase["phase"].guidance == Guidance(
            temperature=3.0, weight=0.5, sharpness=0.0, augmented=True, advantage=0.0, own_class=True
        )
    assert last.phase_start is not None, "a merge was stepped beyond"
    assert first["weights"]["own"].tolist() == [0.0]
    assert second["weights"]["own"].tolist() == [0.5]
    assert last.private["own"].tolist() == [1.0]
    assert torch.equal(first["generator"], torch.Generator().manual_seed(1).get_state())
    kinds = [kind for kind in world.kinds("a") if kind in ("trained", "published", "absorbed", "private-trained")]
    assert kinds[-4:] == ["trained", "published", "absorbed", "private-trained"]


def test_the_pair_is_deployed_and_its_cost_counts(world):
    world.entity("a", rounds=2, strategy="local-balanced", execute=Watched([40, 70]), private=True).run()
    folder = world.folder / "a"
    ends = [end["deployed"] for end in world.events("a", "round-ended")]
    assert [(end["private"], end["share"], end["accuracy"]) for end in ends] == [
        ("private-0001.safetensors", 0.25, 0.9),
        ("private-0002.safetensors", 0.25, 0.9),
    ]
    for number, end in enumerate(ends, 1):
        assert load((folder / end["private"]).read_bytes(), PRIVATE)["own"].tolist() == [number / 2]
    assert [end["forward"] for end in ends] == [20, 20 + 100 + 30]  # with an average and a personal head
    view = RunView.of(read_events(world.folder / FILE_NAME), rounds=2).entity("a")
    assert (view.deployed[2].private, view.deployed[2].share) == ("private-0002.safetensors", 0.25)
    assert view.samples_trained == 2 * (10 + 10)
    assert view.architecture == "mine"
    (joined,) = world.events("a", "joined")
    assert joined["proxy"] == "mlp"


@pytest.mark.parametrize(("own_with_head", "kept"), [(0.89, False), (0.9, False), (0.91, True)])
def test_a_personal_head_of_the_proxy_is_kept_if_it_beats_the_pair(world, own_with_head, kept):
    script = Watched([40], own_with_head=own_with_head)
    world.entity("a", rounds=1, strategy="local-balanced", execute=script, private=True).run()
    (end,) = world.events("a", "round-ended")
    assert ("personal" in end["deployed"]) == (world.folder / "a" / PERSONAL_FILE).exists() == kept


def test_a_process_that_is_killed_in_a_private_phase_repeats_it(world):
    killed = Watched([40], until=3)  # after the local phase and its evaluation
    with pytest.raises(Killed):
        world.entity("a", rounds=1, strategy="local-balanced", execute=killed, private=True).run()
    state = Checkpoints(world.folder / "a").latest()
    assert (state.stage, state.private["own"].tolist()) == ("trained", [0.0])
    world.restart("a")
    again = Watched([])
    world.entity("a", rounds=1, strategy="local-balanced", execute=again, private=True).run()
    (first,), (second,) = killed.phases, again.phases
    assert torch.equal(first["generator"], second["generator"])
    assert same(first["weights"], second["weights"])
    assert same(first["teachers"][0].model.weights, second["teachers"][0].model.weights)


def test_without_a_file_of_the_deployed_proxy_that_of_the_last_round_answers(world):
    class Removing(Watched):
        def __call__(self, work):
            if work.function is train_locally and len(self.phases) == 1:
                (world.folder / "a" / "round-0001.safetensors").unlink(missing_ok=True)
            return super().__call__(work)

    world.entity("a", rounds=2, strategy="local-balanced", execute=Removing([70, 40]), private=True).run()
    _, end = world.events("a", "round-ended")
    assert (end["deployed"]["model"], end["deployed"]["checkpoint"]) == ("last", "round-0002.safetensors")
    assert end["deployed"]["private"] == "private-0002.safetensors"


@pytest.fixture(scope="module")
def pair():
    """Learners of a proxy and of a private network on digits, class counts, and weights after an epoch of each."""
    settings = Settings(dataset="digits", num_entities=2, dirichlet_alpha=0.3, architecture="cnn,mlp", local_epochs=2)
    scenario = load_scenario(settings)
    runtime = simulated_runtime(scenario)
    learners = make_learner(scenario, 1, runtime), make_private_learner(scenario, 1, runtime)
    assert [learner.architecture.name for learner in learners] == ["cnn", "mlp"]
    draws = torch.Generator().get_state()
    phase = Kuber().local_phase()
    weights = [
        training(learner, phase, initial_weights(learner.architecture, 0), draws).do(silent).weights
        for learner in learners
    ]
    return learners, scenario.class_counts(1), weights


def probabilities(learner, weights, samples):
    network = learner.model(weights).eval()
    with torch.no_grad():
        return torch.cat([network(x).softmax(1) for x, *_ in learner.ordered_batches(samples)])


@pytest.mark.parametrize("carried", ["uniform", "own"])
def test_the_share_is_the_best_on_the_common_test_set(pair, carried):
    (proxy, private), counts, (weights, private_weights) = pair
    prior = uniform(10) if carried == "uniform" else frequencies(counts)
    result = choose_share(
        proxy,
        weights,
        private_learner=private,
        private_weights=private_weights,
        carried=prior,
        class_counts=counts,
        progress=silent,
    )
    labels = torch.from_numpy(proxy.common.labels)
    first, second = probabilities(proxy, weights, proxy.common), probabilities(private, private_weights, proxy.common)

    def right(share, target):
        scaled = (share * first + (1 - share) * second) * torch.tensor(target) / torch.tensor(prior)
        return scaled.argmax(1) == labels

    general = {share: right(share, uniform(10)).double().mean().item() for share in SHARES}
    assert len(set(general.values())) > 1
    assert result.accuracy == max(general.values()) == general[result.share]
    assert result.private_accuracy == general[0.0]
    own = right(result.share, frequencies(counts))
    recalls = [own[labels == label].double().mean().item() for label in range(10)]
    assert result.own_accuracy == pytest.approx(accuracy_on(counts, recalls))
    assert result.forward == 2 * len(proxy.common)


def test_a_private_phase_draws_the_network_towards_its_proxy(pair):
    """And changes nothing without weight."""
    (proxy, private), _, (weights, private_weights) = pair
    teacher = PhaseTeacher(
        model=TeacherModel(architecture=proxy.architecture, weights=weights), recalls=(1.0,) * proxy.classes
    )
    draws = torch.Generator().get_state()

    def distance(weight):
        guidance = Guidance(weight=weight, sharpness=0.0, augmented=True, advantage=0.0, own_class=True)
        phase = replace(Kuber().local_phase(), guidance=guidance)
        result = training(private, phase, private_weights, draws, (teacher,)).do(silent)
        assert result.forward == result.samples == 2 * len(private.private)
        found = probabilities(private, result.weights, private.common)
        return (found - probabilities(proxy, weights, proxy.common)).abs().sum(1).mean().item(), result.weights

    alone, unguided = distance(0.0)
    assert distance(5.0)[0] < 0.9 * alone
    plain = training(private, Kuber().local_phase(), private_weights, draws).do(silent)
    assert same(unguided, plain.weights)

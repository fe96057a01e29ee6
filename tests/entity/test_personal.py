"""The personal head of a deployed model: when an entity makes one, and when it keeps it."""

import torch

from kuber.domain.prior import uniform
from kuber.entity.deployment import PERSONAL_FILE
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.personal import PersonalResult, personalise
from kuber.experiment.entity_factory import make_learner
from kuber.experiment.scenario import load_scenario
from kuber.experiment.simulation.simulator import simulated_runtime
from kuber.learning.architectures import initial_weights
from kuber.learning.weights import load
from kuber.settings import Settings
from kuber.views.run import RunView

from .scripted_entities import ARCHITECTURE, Script


class Personal(Script):
    """Notes the models that get a personal head, and gives each the same one."""

    def __init__(self, percentages):
        super().__init__(percentages)
        self.models, self.carried = [], []

    def __call__(self, work):
        if work.function is not personalise:
            return super().__call__(work)
        self.models.append(work.arguments["weights"])
        self.carried.append(work.arguments["carried"])
        weights = {name: tensor + 1.0 for name, tensor in work.arguments["weights"].items()}
        return PersonalResult(weights=weights, before=0.5, after=0.6, forward=30, seconds=0.2)


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_model_deployed_after_the_last_round_gets_a_personal_head(world):
    script = Personal([40, 70, 60])
    world.entity("a", rounds=3, execute=script, strategy="local-balanced").run()
    folder = world.folder / "a"
    best = Checkpoints(folder).load_round(2, ARCHITECTURE)
    (model,) = script.models  # once, of the best round
    assert same(model, best)
    assert script.carried == [uniform(3)]
    ends = [end["deployed"] for end in world.events("a", "round-ended")]
    assert [end.get("personal") for end in ends] == [None, None, PERSONAL_FILE]
    assert ends[2]["forward"] == 100 + 30
    stored = load((folder / PERSONAL_FILE).read_bytes(), ARCHITECTURE)
    assert same(stored, {name: tensor + 1.0 for name, tensor in best.items()})
    assert same(Checkpoints(folder).load_round(3, ARCHITECTURE), Checkpoints(folder).latest().weights)
    view = RunView.of(read_events(world.folder / FILE_NAME), rounds=3)
    assert view.entity("a").deployed[3].personal == PERSONAL_FILE


def test_no_personal_head_leaves_no_file(world):
    world.entity("a", rounds=1, execute=Script([40]), strategy="local").run()
    (end,) = world.events("a", "round-ended")
    assert "personal" not in end["deployed"]
    assert not (world.folder / "a" / PERSONAL_FILE).exists()


def digits():
    """A learner on digits, its class counts, and weights that have learned nothing."""
    scenario = load_scenario(Settings(dataset="digits", num_entities=2, dirichlet_alpha=0.3))
    learner = make_learner(scenario, 0, simulated_runtime(scenario))
    return learner, scenario.class_counts(0), initial_weights(learner.architecture, 0)


def test_a_head_on_the_features_of_an_untrained_model_is_better_on_the_own_mixture():
    learner, counts, weights = digits()
    result = personalise(learner, weights, carried=uniform(10), class_counts=counts, progress=lambda share: None)
    assert result.after > result.before + 0.2
    changed = [name for name, tensor in weights.items() if not torch.equal(tensor, result.weights[name])]
    assert len(changed) == 2  # weight and bias of the last layer
    assert result.forward == 2 * len(learner.private) + 2 * len(learner.common)
    again = personalise(learner, weights, carried=uniform(10), class_counts=counts, progress=lambda share: None)
    assert same(result.weights, again.weights)


def test_a_head_that_is_no_better_is_not_kept():
    learner, counts, weights = digits()
    first = personalise(learner, weights, carried=uniform(10), class_counts=counts, progress=lambda share: None)
    own = tuple((count + 1) / (sum(counts) + 10) for count in counts)
    again = personalise(learner, first.weights, carried=own, class_counts=counts, progress=lambda share: None)
    assert again.before >= first.after
    assert again.weights is None or again.after > again.before

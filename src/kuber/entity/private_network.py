"""The private network of an entity that exchanges a proxy: it learns from the merged proxy, and never leaves."""

from dataclasses import replace

from kuber.domain.policies import ProxyPolicy
from kuber.domain.prior import carried_prior
from kuber.domain.strategy import Guidance, LocalPhase, Strategy
from kuber.entity.deployment import Decision
from kuber.entity.managed_model import ManagedModel
from kuber.entity.state.journal import Journal
from kuber.entity.work.learner import PhaseTeacher, TeacherModel
from kuber.entity.work.steps import TrainingResult
from kuber.entity.work.weight_store import WeightStore
from kuber.learning.training import Span
from kuber.learning.weights import Weights


def private_phase(strategy: Strategy) -> LocalPhase:
    """Return the local phase of a private network: its proxy's, with distillation from that in place of guides."""
    phase, policy = strategy.local_phase(), getattr(strategy, "proxy", None) or ProxyPolicy()
    guidance = Guidance(
        temperature=policy.temperature,
        weight=policy.weight,
        sharpness=0.0,  # there is one teacher
        augmented=True,
        advantage=0.0,
        own_class=True,
    )
    return replace(phase, guidance=guidance)


class PrivateNetwork:
    """The private network beside the proxy that is the entity's model; its state is part of the entity's."""

    def __init__(
        self, proxy: ManagedModel, own: ManagedModel, strategy: Strategy, journal: Journal, weights: WeightStore
    ) -> None:
        """`own` has the entity's own architecture, and the samples of the proxy."""
        self._proxy = proxy
        self._own = own
        self._strategy = strategy
        self._journal = journal
        self._weights = weights

    def train(self, span: Span) -> TrainingResult:
        """Train for a local phase with the proxy as it is now as the teacher.

        The state is left as it is, so that a process which is killed in this round repeats the same phase.
        """
        state = self._journal.state
        assert state.private is not None, "the state of an entity with a private network has its weights"
        assert state.private_generator is not None, "and its generator"
        merged = TeacherModel(architecture=self._proxy.architecture, weights=state.weights)
        teacher = PhaseTeacher(model=merged, recalls=(1.0,) * self._proxy.learner.classes)
        phase = private_phase(self._strategy)
        result = self._own.train(phase, state.private, state.private_generator, (teacher,), span)
        detail = {
            "samples": result.samples,
            "forward": result.forward,
            "loss": result.loss,
            "seconds": result.seconds,
        }
        self._journal.append("private-trained", detail)
        return result

    def answer_with(self, decision: Decision, deployed: Weights, trained: TrainingResult) -> Decision:
        """Return the decision that the deployed proxy answers together with the private network as it was trained.

        From now on the state has the private network so.
        """
        weights = self._weights.keep(trained.weights)
        self._journal.change(private=weights, private_generator=trained.generator)
        carried = carried_prior(self._strategy.local_phase(), self._proxy.class_counts)
        return decision.with_private(weights, self._proxy.share(deployed, self._own, weights, carried))

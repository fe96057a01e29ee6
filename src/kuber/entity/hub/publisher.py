"""What an entity shares of itself: its weights, and a signed record of what they are worth."""

from collections.abc import Callable, Mapping

from kuber import tracing
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft
from kuber.domain.ports import Registry, Vault
from kuber.domain.task import Task
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.trust import Trust
from kuber.entity.state.journal import Journal
from kuber.learning.weights import Weights, dump, to_bfloat16, to_float32

Consents = Callable[[Evaluation, int], bool]
Forms = Callable[[Weights], dict[str, bytes]]  # the weights to publish -> artifact kind -> its bytes


def as_weights(weights: Weights) -> dict[str, bytes]:
    """Weights alone."""
    return {WEIGHTS: dump(weights)}


class Publisher:
    """Publishes where that is consented to."""

    def __init__(
        self,
        *,
        task: Task,
        architecture: Architecture,
        sample_count: int | None,
        class_counts: tuple[int, ...] | None,
        registry: Registry,
        vault: Vault,
        journal: Journal,
        trust: Trust,
        retrieval: Discovery,
        outbox: Outbox,
        consents: Consents,
        narrow: bool,
        forms: Forms,
    ) -> None:
        """`narrow` weights travel as bfloat16; `forms` makes what is published."""
        self._task = task
        self._architecture = architecture
        self._sample_count = sample_count
        self._class_counts = class_counts
        self._registry = registry
        self._vault = vault
        self._journal = journal
        self._trust = trust
        self._retrieval = retrieval
        self._outbox = outbox
        self._consents = consents
        self._narrow = narrow
        self._forms = forms

    def publish_start(self) -> None:
        """Publish the weights before the first round. This does not wait: others may begin from them."""
        journal = self._journal
        own = self._retrieval.evaluated(journal.state.weights, stage="initial")
        if not self._consents(own, 0):
            return
        data = dump(journal.state.weights)
        artifact, sent = Artifact.of(data), 0
        with tracing.span("publish"):
            # Entities of one seed have one initial checkpoint: only the first sends it.
            if self._vault.size(artifact.digest) is None:
                self._vault.put(data)
                sent = artifact.size
            knowledge = self._registry.publish(self._draft(own, {WEIGHTS: artifact}), key=journal.key("initial"))
        detail = {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": sent}
        journal.append("published", detail)
        self._count(own)

    def publish(self, own: Evaluation) -> None:
        """Publish the weights of this round. What is claimed was measured on the very weights that are sent."""
        journal = self._journal
        weights = journal.state.weights
        if self._narrow:
            weights = to_bfloat16(weights)
            own = self._retrieval.evaluated(to_float32(weights), stage="narrowed")
        if not self._consents(own, journal.state.round):
            return
        forms = self._forms(weights)
        draft = self._draft(own, {kind: Artifact.of(data) for kind, data in forms.items()})
        self._outbox.publish(draft, list(forms.values()), key=journal.key(f"publish/{draft.sequence}"))
        self._count(own)

    def _draft(self, own: Evaluation, artifacts: Mapping[str, Artifact]) -> Draft:
        state = self._journal.state
        assert state.member is not None
        draft = Draft(
            entity=state.member,
            task=self._task,
            architecture=self._architecture,
            artifacts=artifacts,
            evaluation=own,
            round=state.round,
            parents=state.parents,
            origin=state.origin,
            sample_count=self._sample_count,
            class_counts=self._class_counts,
            sequence=state.published + 1,
        )
        return self._trust.signed(draft)

    def _count(self, own: Evaluation) -> None:
        self._journal.change(parents=(), shared=own, published=self._journal.state.published + 1)

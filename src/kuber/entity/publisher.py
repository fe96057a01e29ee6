"""What an entity shares of itself: its weights, and a signed record of what they are worth."""

from collections.abc import Callable, Generator
from typing import Any

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft
from kuber.domain.ports import Registry, Vault
from kuber.domain.task import Task
from kuber.entity.journal import Journal
from kuber.entity.learner import Learner
from kuber.entity.outbox import Outbox
from kuber.entity.retrieval import Retrieval
from kuber.entity.trust import Trust
from kuber.entity.work import Work
from kuber.learning.weights import dump, narrowed, widened

Consents = Callable[[Evaluation, int], bool]


class Publisher:
    """Publishes where that is consented to."""

    def __init__(
        self,
        *,
        task: Task,
        learner: Learner,
        class_counts: tuple[int, ...],
        registry: Registry,
        vault: Vault,
        journal: Journal,
        trust: Trust,
        retrieval: Retrieval,
        outbox: Outbox,
        consents: Consents,
        narrow: bool,
    ) -> None:
        """`narrow` weights travel as bfloat16."""
        self._task = task
        self._learner = learner
        self._class_counts = class_counts
        self._registry = registry
        self._vault = vault
        self._journal = journal
        self._trust = trust
        self._retrieval = retrieval
        self._outbox = outbox
        self._consents = consents
        self._narrow = narrow

    def publish_start(self) -> Generator[Work, Any, None]:
        """Publish the weights before the first round. This does not wait: others may begin from them."""
        journal = self._journal
        own = yield from self._retrieval.evaluated(journal.state.weights, stage="initial")
        if not self._consents(own, 0):
            return
        data = dump(journal.state.weights)
        artifact, sent = _artifact(data), 0
        # Entities of one seed have one initial checkpoint: only the first sends it.
        if self._vault.size(artifact.digest) is None:
            self._vault.put(data)
            sent = artifact.size
        knowledge = self._registry.publish(self._draft(own, artifact), key=journal.key("initial"))
        detail = {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": sent}
        journal.append("published", detail)
        self._count(own)

    def publish(self, own: Evaluation) -> Generator[Work, Any, None]:
        """Publish the weights of this round. What is claimed was measured on the very weights that are sent."""
        journal = self._journal
        weights = journal.state.weights
        if self._narrow:
            weights = narrowed(weights)
            own = yield from self._retrieval.evaluated(widened(weights), stage="narrowed")
        if not self._consents(own, journal.state.round):
            return
        data = dump(weights)
        self._outbox.publish(self._draft(own, _artifact(data)), data, key=journal.key("publish"))
        self._count(own)

    def _draft(self, own: Evaluation, artifact: Artifact) -> Draft:
        state = self._journal.state
        assert state.member is not None
        draft = Draft(
            entity=state.member,
            task=self._task,
            architecture=self._learner.architecture,
            artifacts={WEIGHTS: artifact},
            evaluation=own,
            round=state.round,
            parents=state.parents,
            origin=state.origin,
            sample_count=len(self._learner.private),
            class_counts=self._class_counts,
            sequence=state.published + 1,
        )
        return self._trust.signed(draft)

    def _count(self, own: Evaluation) -> None:
        self._journal.change(parents=(), shared=own, published=self._journal.state.published + 1)


def _artifact(data: bytes) -> Artifact:
    return Artifact(digest=Digest.of(data), size=len(data))

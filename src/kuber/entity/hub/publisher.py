"""Publish an entity's weights, and a signed record of their evaluation."""

from collections.abc import Mapping

from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import EvaluationSet, disclosed
from kuber.domain.knowledge import WEIGHTS, Artifact, CarriedPrior, Draft
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import Sharing
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.trust import Trust
from kuber.entity.state.journal import Journal
from kuber.learning.weights import dump, to_bfloat16, to_float32


class Publisher:
    """Publishes each model that its owner approves."""

    def __init__(
        self, journal: Journal, evaluator: Evaluator, sharing: Sharing, *, outbox: Outbox, trust: Trust
    ) -> None:
        self._journal = journal
        self._evaluator = evaluator
        self._sharing = sharing
        self._outbox = outbox
        self._trust = trust

    def publish_initial(self) -> None:
        """Publish the weights before the first round, at once: other entities may start from them.

        The entity continues without that record when the hub rejects it. Raises ServiceUnavailableError.
        """
        journal = self._journal
        evaluation = self._evaluator.own(journal.state.weights, stage="initial")
        if not self._approve(evaluation, 0):
            return
        data = dump(journal.state.weights)
        draft = self._draft(evaluation, {WEIGHTS: Artifact.of(data)})
        if self._outbox.publish_now(draft, [data], key=journal.key("initial")):
            self._count(evaluation)

    def publish(self, evaluation: Evaluation, *, prior: CarriedPrior | None = None) -> bool:
        """Publish the weights of this round, of which this is the evaluation; return whether they are published now.

        `prior` is that which their logits carry, if it is known.

        Rounded weights are evaluated again. Before the entity has joined, nothing is published or queued.
        """
        journal = self._journal
        if journal.state.entity_id is None:
            return False
        weights = journal.state.weights
        if self._sharing.transfer_dtype == "bfloat16":
            weights = to_bfloat16(weights)
            evaluation = self._evaluator.own(to_float32(weights), stage="narrowed")
        if not self._approve(evaluation, journal.state.round):
            return False
        blobs = self._evaluator.model.artifacts(weights)
        if not blobs:  # nothing could be exported, which has been said
            return False
        draft = self._draft(evaluation, {kind: Artifact.of(data) for kind, data in blobs.items()}, prior=prior)
        sent = self._outbox.publish(draft, list(blobs.values()), key=journal.key(f"publish/{draft.sequence}"))
        self._count(evaluation)
        return sent

    def _approve(self, evaluation: Evaluation, round: int) -> bool:
        """Return whether the owner approves of publishing what is to be claimed."""
        return self._sharing.approve(disclosed(evaluation, self._evaluator.model.task)[0], round)

    def _draft(
        self, evaluation: Evaluation, artifacts: Mapping[str, Artifact], *, prior: CarriedPrior | None = None
    ) -> Draft:
        state, model = self._journal.state, self._evaluator.model
        assert state.entity_id is not None
        claim, cells = disclosed(evaluation, model.task)
        since = state.evaluated_since
        own = model.task.test_set is None and since is not None and since[0] == evaluation.test_set
        sample_count, class_counts = self._disclosed_counts()
        draft = Draft(
            entity=state.entity_id,
            task=model.task,
            architecture=model.architecture,
            artifacts=artifacts,
            evaluation=claim,
            round=state.round,
            parents=state.parents,
            origin=state.origin,
            sample_count=sample_count,
            class_counts=class_counts,
            sequence=state.sequence + 1,
            evaluation_set=EvaluationSet(since=since[1], cells=cells) if own and since else None,
            prior=prior,
        )
        return self._trust.sign(draft)

    def _disclosed_counts(self) -> tuple[int | None, tuple[int, ...] | None]:
        """Return the number of training samples, in all and of each class, as far as the owner publishes them."""
        model = self._evaluator.model
        if self._sharing.counts is None:
            return None, None
        if self._sharing.counts == "exact" or model.class_counts is None:
            return model.sample_count, model.class_counts
        rounded = tuple((count + 5) // 10 * 10 for count in model.class_counts)
        return sum(rounded), rounded

    def _count(self, evaluation: Evaluation) -> None:
        sequence = self._journal.state.sequence + 1
        self._journal.change(parents=(), published_evaluation=evaluation, sequence=sequence)

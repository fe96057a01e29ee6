"""Where entities of one task and architecture begin: at the oldest initial checkpoint among them."""

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Architecture
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.publisher import Publisher
from kuber.entity.state.journal import Journal
from kuber.errors import KnowledgeError
from kuber.learning.weights import dump


def agree_on_initial_checkpoint(
    journal: Journal, architecture: Architecture, retrieval: Discovery, publisher: Publisher
) -> None:
    """Begin from the oldest initial checkpoint of our task and architecture, or publish ours as the first."""
    there = next(retrieval.initial_checkpoints(architecture), None) is not None
    # Ours is there when we were killed right after publishing it: the same act again only writes it to the log.
    if not there or retrieval.has_published():
        publisher.publish_start()
    # Asked again even so: of several that published at once, all begin from the oldest.
    if not _adopt_oldest(journal, architecture, retrieval):
        publisher.publish_start()
        _adopt_oldest(journal, architecture, retrieval)


def _adopt_oldest(journal: Journal, architecture: Architecture, retrieval: Discovery) -> bool:
    """Begin from the oldest sound initial checkpoint; False when there is none."""
    for knowledge in retrieval.initial_checkpoints(architecture):
        digest = knowledge.artifacts[WEIGHTS].digest
        if digest != Digest.of(dump(journal.state.weights)):
            teacher = retrieval.pull(knowledge)
            if teacher is None:
                continue
            try:
                retrieval.evaluated(teacher.weights, stage="candidate", of=knowledge, teacher=teacher)
            except KnowledgeError as error:  # sound weights can still speak nonsense
                retrieval.refuse(knowledge, error.message, 0)
                continue
            journal.change(weights=teacher.weights)
        journal.change(origin=digest, parents=(knowledge.id,))
        return True
    return False

"""Agree on an initial checkpoint: entities of one task and architecture start from the oldest one."""

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS
from kuber.entity.hub.session import HubSession
from kuber.entity.state.journal import Journal
from kuber.errors import KUberError
from kuber.learning.weights import dump


def agree_on_initial_checkpoint(journal: Journal, session: HubSession) -> None:
    """Adopt the oldest initial checkpoint of the entity's task and architecture, or publish its own as the first.

    Raises ServiceUnavailableError when the hub is unreachable.
    """
    exists = next(session.discovery.initial_checkpoints(), None) is not None
    # If a kill followed our publication, the record exists already: publishing it again only logs it.
    if not exists or session.published_count() > 0:
        session.publisher.publish_initial()
    # Discover again: when several entities publish at once, all of them adopt the oldest.
    if not _adopt_oldest(journal, session):
        session.publisher.publish_initial()
        _adopt_oldest(journal, session)


def agree_if_reachable(journal: Journal, session: HubSession) -> bool:
    """Agree on an initial checkpoint as above; warn and return False when that fails, as without a hub."""
    reason = session.availability.reason
    if session.joined and reason is None:
        try:
            agree_on_initial_checkpoint(journal, session)
        except KUberError as error:
            reason = error.message
    if journal.state.origin is not None:
        return True
    sentence = "There is no common initial checkpoint, so that this model is not merged with others in this process."
    session.alerts.warn(f"{sentence} {reason or ''}".rstrip(), cause="no initial checkpoint")
    return False


def _adopt_oldest(journal: Journal, session: HubSession) -> bool:
    """Adopt the oldest sound initial checkpoint; return whether there is one."""
    discovery = session.discovery
    for knowledge in discovery.initial_checkpoints():
        digest = knowledge.artifacts[WEIGHTS].digest
        if digest != Digest.of(dump(journal.state.weights)):
            candidate = discovery.evaluate(knowledge, weights_only=True)
            if candidate is None:
                continue
            journal.change(weights=candidate.model.weights)
        journal.change(origin=digest, parents=(knowledge.id,))
        return True
    return False

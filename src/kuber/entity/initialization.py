"""The common start of relatives: initial weights that entities of one task and architecture begin from.

What KUber makes itself is computed from the architecture, so that nobody decides it for the others. Owners'
networks have no factory here: their entities adopt the oldest initial checkpoint that is a sound start.
"""

from collections.abc import Sequence

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Knowledge
from kuber.entity.hub.candidate_models import PulledCandidate
from kuber.entity.hub.session import HubSession
from kuber.entity.state.journal import Journal
from kuber.errors import KUberError, ServiceUnavailableError
from kuber.learning.start_check import start_fault
from kuber.learning.weights import Weights, dump

COMMON_SEED = 0  # of the weights that all entities compute; by default also those of earlier versions began from it
MAX_TRIED = 10  # checkpoints that are pulled, one of each publisher


def begin_in_common(journal: Journal, session: HubSession, starts: Sequence[Weights]) -> None:
    """Begin from weights that others compute too: the first of `starts` that is published, else the first of all.

    It is published unless it is already. Raises ServiceUnavailableError when the hub is unreachable; no record and no
    other answer of the hub keeps the entity from beginning.
    """
    known = {Digest.of(dump(weights)): weights for weights in starts}
    record = _find(session, list(known))
    start = next(iter(known)) if record is None else record.artifacts[WEIGHTS].digest
    journal.change(weights=known[start])
    # If a kill followed our publication, the record exists already: publishing it again only logs it.
    if record is None or _has_published(session):
        session.publisher.publish_initial()
    record = _find(session, [start])  # again: when several entities publish at once, the oldest is the parent
    journal.change(origin=start, parents=() if record is None else (record.id,))


def agree_on_initial_checkpoint(journal: Journal, session: HubSession) -> None:
    """Adopt the oldest initial checkpoint that is a sound start for this entity's model, or publish its own.

    Raises ServiceUnavailableError when the hub is unreachable.
    """
    exists = next(session.discovery.initial_checkpoints(), None) is not None
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


def _has_published(session: HubSession) -> bool:
    return session.availability.call(session.published_count, 0, action="read this entity's member") > 0


def _find(session: HubSession, digests: Sequence[Digest]) -> Knowledge | None:
    """Return what `_published` returns; None with an alert when the hub fails. Raises ServiceUnavailableError."""
    try:
        return _published(session, digests)
    except ServiceUnavailableError:
        raise
    except KUberError as error:
        session.alerts.failed("discover the initial checkpoint", error)
        return None


def _published(session: HubSession, digests: Sequence[Digest]) -> Knowledge | None:
    """Return the oldest initial checkpoint that has the first of these digests that is published."""
    found: dict[Digest, Knowledge] = {}
    for record in session.discovery.initial_checkpoints():
        digest = record.artifacts[WEIGHTS].digest
        found.setdefault(digest, record)
        if digest == digests[0]:
            break
    return next((found[digest] for digest in digests if digest in found), None)


def _adopt_oldest(journal: Journal, session: HubSession) -> bool:
    """Adopt the oldest initial checkpoint that is a sound start; return whether there is one."""
    own = journal.state.weights
    digest = Digest.of(dump(own))

    def flaw(candidate: PulledCandidate) -> str | None:
        fault = start_fault(candidate.model.weights, own)
        return None if fault is None else f"It is no start for a model: {fault}."

    for record in _candidates(session, digest):
        if record.artifacts[WEIGHTS].digest != digest:
            candidate = session.discovery.models.evaluate(record, weights_only=True, flaw=flaw)
            if candidate is None:
                continue
            journal.change(weights=candidate.model.weights)
        journal.change(origin=record.artifacts[WEIGHTS].digest, parents=(record.id,))
        return True
    return False


def _candidates(session: HubSession, own: Digest) -> list[Knowledge]:
    """Return the initial checkpoints to try, oldest first: one of each publisher, up to one that has our weights."""
    tried: dict[str, Knowledge] = {}
    for record in session.discovery.initial_checkpoints():
        if record.artifacts[WEIGHTS].digest == own:
            return [*tried.values(), record]
        if len(tried) < MAX_TRIED:
            tried.setdefault(record.entity, record)
    return list(tried.values())

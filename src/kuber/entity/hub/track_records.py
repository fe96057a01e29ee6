"""Track records of publishers, in the state of an entity that has examined their models."""

from collections.abc import Iterable
from enum import IntEnum

from kuber.domain import examination
from kuber.domain.knowledge import Knowledge
from kuber.domain.publisher_record import (
    NEW,
    PublisherRecord,
    PublisherRecords,
    after_refusal,
    after_sound,
    after_useless,
)
from kuber.entity.state.journal import Journal

MAX_PUBLISHERS = 1000  # whose track record is kept: those of the latest examinations


class RefusalCause(IntEnum):
    """Cause for which a model is refused, the graver one greater."""

    OTHER = 0  # not the publisher's, such as a file that the vault lacks
    MODEL = 1  # a model that is damaged, answers nonsense, or cannot be run here
    CLAIM = 2  # a claim that the model does not keep


class TrackRecords:
    """Track records of the publishers whose models this entity has examined."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def all(self) -> PublisherRecords:
        """Track records by entity id."""
        return self._journal.state.publishers

    def present(self, candidates: Iterable[Knowledge]) -> list[Knowledge]:
        """Return the candidates whose publishers are not absent in this round."""
        return examination.present(candidates, self.all, self._journal.state.round)

    def count_absent(self) -> int:
        """Return the number of publishers that are absent in this round."""
        return sum(record.is_absent(self._journal.state.round) for record in self.all.values())

    def add_refusal(self, publisher: str, fault: RefusalCause) -> None:
        """Add a model of this publisher that was refused for this fault, if it is the publisher's."""
        if fault is not RefusalCause.OTHER:
            false_claim = fault is RefusalCause.CLAIM
            record = after_refusal(self._of(publisher), self._journal.state.round, false_claim=false_claim)
            self._change(publisher, record)

    def add_sound(self, publisher: str, *, useful: bool) -> None:
        """Add a sound model of this publisher, and whether it was of use."""
        record = self._of(publisher)
        round = self._journal.state.round
        self._change(publisher, after_sound(record) if useful else after_useless(record, round))

    def _of(self, publisher: str) -> PublisherRecord:
        return self.all.get(publisher, NEW)

    def _change(self, publisher: str, record: PublisherRecord) -> None:
        others = [(id, other) for id, other in self.all.items() if id != publisher]
        self._journal.change(publishers=dict([*others, (publisher, record)][-MAX_PUBLISHERS:]))

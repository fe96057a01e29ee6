"""Attesters: the evaluations of other entities, weighed by how well they have agreed with own findings."""

from kuber.domain.attester_record import compared, is_doubted
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.state.journal import Journal

MAX_ATTESTERS = 1000  # whose track record is kept: the latest ones
MAX_READ = 1000  # attestations of one record that are weighed


class Attesters:
    """Reads attestations of candidates, and keeps track of those who made them."""

    def __init__(self, journal: Journal, hub: HubAccess, availability: HubAvailability) -> None:
        self._journal = journal
        self._registry = hub.registry
        self._availability = availability
        self._doubted: set[str] = set()  # ids of records

    @property
    def have_reason(self) -> bool:
        """Whether claims have turned out false before, so that attestations are worth a request."""
        return bool(self._journal.state.attesters)

    def doubt(self, record: Knowledge) -> bool:
        """Return whether attesters of enough weight contradict the claim of this record."""
        doubted = is_doubted(record, self._attestations(record), self._journal.state.attesters)
        if doubted:
            self._doubted.add(record.id)
        return doubted

    def compare(self, record: Knowledge, found: Evaluation, *, was_false: bool) -> None:
        """Compare the attestations of a record with the own evaluation of it, if its claim was false or doubted."""
        if not (was_false or record.id in self._doubted):
            return
        after = compared(self._journal.state.attesters, self._attestations(record), found, was_false=was_false)
        self._journal.change(attesters=dict([*after.items()][-MAX_ATTESTERS:]))

    def _attestations(self, record: Knowledge) -> list[Attestation]:
        """Return the attestations of others on the test set of the task; none when the hub does not answer."""
        read = getattr(self._registry, "attestations", None)  # ports of older programs lack it
        if read is None or record.task.test_set is None:
            return []

        def answer() -> tuple[Attestation, ...]:
            with self._availability.using("registry"):
                found: tuple[Attestation, ...] = read(record.id)
                return found

        none: tuple[Attestation, ...] = ()
        found = self._availability.call(answer, none, action="read attestations")[:MAX_READ]
        classes, others = record.task.classes, {self._journal.state.entity_id, record.entity}
        return [
            attestation
            for attestation in found
            if attestation.entity not in others
            and attestation.evaluation.test_set == record.task.test_set
            and len(attestation.evaluation.total) == classes
        ]

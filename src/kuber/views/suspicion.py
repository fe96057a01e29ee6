"""Suspicions by publisher: whose records are contradicted by whom, and who publishes copies."""

from collections.abc import Iterable
from dataclasses import dataclass

from kuber.domain.suspicion import Suspicion
from kuber.views.formatting import percent, printable


@dataclass(frozen=True, kw_only=True, slots=True)
class PublisherSuspicion:
    """Suspicions about the records of one publisher."""

    entity: str  # id
    publisher: str  # name
    records: tuple[Suspicion, ...]  # newest first

    @property
    def contradicted(self) -> tuple[Suspicion, ...]:
        """Records whose claim some entity contradicts."""
        return tuple(record for record in self.records if record.refused_by)

    @property
    def copies(self) -> int:
        """Number of records with a file of another publisher."""
        return sum(record.copy_of is not None for record in self.records)

    @property
    def grave(self) -> int:
        """Number of copies, and of records that more entities contradict than support."""
        return sum(record.copy_of is not None or len(record.refused_by) > record.agreed for record in self.records)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the entities that contradict it, those of most records first."""
        names = [name for record in self.records for name in record.refused_by]
        return tuple(sorted(set(names), key=lambda name: (-names.count(name), name)))

    @property
    def copied(self) -> tuple[str, ...]:
        """Names of the publishers whose files it copied."""
        return tuple(sorted({record.first_publisher for record in self.records if record.first_publisher}))

    @property
    def facts(self) -> str:
        """The suspicions in words."""
        parts = []
        if self.contradicted:
            worst = max(self.contradicted, key=lambda record: record.claimed - (record.found or 0.0))
            figures = f"{percent(worst.claimed)} claimed, {percent(worst.found or 0.0)} found"
            parts.append(f"{len(self.contradicted)} refused by {_named(self.refused_by)} ({figures})")
        if self.copies:
            parts.append(f"{self.copies} copied from {_named(self.copied)}")
        return "; ".join(parts)


def by_publisher(suspicions: Iterable[Suspicion]) -> list[PublisherSuspicion]:
    """Return the suspicions by publisher, first those with most copies and records that more contradict than support.

    Where few contradict, it may be those few who lie.
    """
    found: dict[str, list[Suspicion]] = {}
    for each in suspicions:
        found.setdefault(each.entity, []).append(each)
    grouped = [
        PublisherSuspicion(entity=entity, publisher=records[0].publisher, records=tuple(records))
        for entity, records in found.items()
    ]
    return sorted(grouped, key=lambda each: (-each.grave, -len(each.refused_by), each.publisher))


def _named(names: tuple[str, ...], shown: int = 3) -> str:
    """Return the first names, and the number of the rest."""
    if len(names) == 0:
        return "another"
    texts = [printable(name) for name in names[:shown]]
    return ", ".join(texts) + (f" and {len(names) - shown} more" if len(names) > shown else "")

"""Whether a registry and its vault agree: every record's blobs are there and pinned, and every pin has its record."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from kuber.domain.ports import Registry
from kuber.domain.query import MAX_LIMIT, Page, Query, all_pages
from kuber.domain.verification import Standing
from kuber.errors import KUberError

SETTLED = timedelta(hours=1)  # a younger pin may be of a record that is being published


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Where the two disagree, in one sentence, and whether it was put right."""

    sentence: str
    repaired: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyReport:
    """What was compared, and where the two disagree."""

    records: int
    blobs: int
    pins: int
    faults: tuple[Fault, ...]


def compare(
    registry: Registry, vault: HttpVault, *, now: datetime, settled: timedelta = SETTLED, repair: bool = False
) -> ConsistencyReport:
    """Compare what runs, while it runs; with `repair`, pin what records name and unpin what none does.

    Pins come before their record. So those without one are looked for among the pins read before the records, and
    records without pins are held against the pins read after them.
    """
    before, _ = _pins(vault)
    # What is quarantined is found by no other question, and kept all the same. It is asked for twice, so that what is
    # quarantined or released meanwhile is not missed.
    found = {
        record.id: record
        for standing in (Standing.QUARANTINED, None, Standing.QUARANTINED)
        for record in all_pages(partial(_found, registry, standing))
    }
    records = list(found.values())
    pins, youngest = _pins(vault)
    blobs = all_pages(lambda cursor: vault.blobs(limit=MAX_LIMIT, cursor=cursor))
    sizes = {blob.digest.hex: blob.size for blob in blobs}
    faults: list[Fault] = []
    for record in records:
        faults += _faults(record, sizes, pins.get(record.id, set()), vault, repair)
    for holder in sorted((before.keys() & pins.keys()) - found.keys()):
        if youngest[holder] <= now - settled:
            if repair:
                vault.unpin(holder)
            faults.append(Fault(sentence=f"Pins are held for {holder}, which is no record.", repaired=repair))
    held = sum(len(digests) for digests in pins.values())
    return ConsistencyReport(records=len(records), blobs=len(sizes), pins=held, faults=tuple(faults))


def _found(registry: Registry, standing: Standing | None, cursor: str | None) -> Page[Knowledge]:
    return registry.discover(Query(standing=standing, order="newest", limit=MAX_LIMIT, cursor=cursor))


def _pins(vault: HttpVault) -> tuple[dict[str, set[str]], dict[str, datetime]]:
    """The digests that each holder has pinned, and when it last did."""
    held: dict[str, set[str]] = defaultdict(set)
    youngest: dict[str, datetime] = {}
    for pin in all_pages(lambda cursor: vault.pins(limit=MAX_LIMIT, cursor=cursor)):
        held[pin.holder].add(pin.digest.hex)
        youngest[pin.holder] = max(pin.pinned_at, youngest.get(pin.holder, pin.pinned_at))
    return held, youngest


def _faults(
    record: Knowledge, sizes: dict[str, int], pinned: set[str], vault: HttpVault, repair: bool
) -> Iterator[Fault]:
    """What is wrong with the blobs of one record."""
    unpinned = False
    for kind, artifact in record.artifacts.items():
        size = sizes.get(artifact.digest.hex)
        if size is None:
            yield Fault(
                sentence=f"The {kind} of {record.id} are missing; put {artifact.digest} into the vault again."
            )
        elif size != artifact.size:
            yield Fault(sentence=f"The {kind} of {record.id} have {size} bytes, and its record says {artifact.size}.")
        unpinned |= artifact.digest.hex not in pinned
    if not unpinned:
        return
    repaired, reason = False, ""
    if repair:
        try:
            vault.pin(record.id, record.artifacts.items())
            repaired = True
        except KUberError as error:
            reason = f" ({error})"
    yield Fault(sentence=f"The blobs of {record.id} are not all pinned{reason}.", repaired=repaired)

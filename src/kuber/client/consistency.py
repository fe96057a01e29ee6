"""Consistency of a registry and its vault: all blobs of records are stored and pinned, all pins have a record."""

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

SETTLED = timedelta(hours=1)  # a younger pin may belong to a record that is being published


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """An inconsistency, in one sentence, and whether it was repaired."""

    sentence: str
    repaired: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyReport:
    """Numbers of compared objects, and the inconsistencies."""

    records: int
    blobs: int
    pins: int
    faults: tuple[Fault, ...]


def compare(
    registry: Registry, vault: HttpVault, *, now: datetime, settled: timedelta = SETTLED, repair: bool = False
) -> ConsistencyReport:
    """Compare a running registry and vault; with `repair`, pin unpinned blobs of records and unpin those without.

    A pin is made before its record. So pins without a record are sought among those listed before the records, and
    records without pins are compared with the pins listed after them.
    """
    before, _ = _pins(vault)
    # Quarantined records are found only by their standing, and their blobs are kept. They are queried twice, so that
    # none is missed that is quarantined or released meanwhile.
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
            faults.append(Fault(sentence=f"Blobs are pinned for {holder}, which is not a record.", repaired=repair))
    count = sum(len(digests) for digests in pins.values())
    return ConsistencyReport(records=len(records), blobs=len(sizes), pins=count, faults=tuple(faults))


def _found(registry: Registry, standing: Standing | None, cursor: str | None) -> Page[Knowledge]:
    return registry.discover(Query(standing=standing, order="newest", limit=MAX_LIMIT, cursor=cursor))


def _pins(vault: HttpVault) -> tuple[dict[str, set[str]], dict[str, datetime]]:
    """Return the pinned digests of each holder, and the time of its last pin."""
    pinned: dict[str, set[str]] = defaultdict(set)
    youngest: dict[str, datetime] = {}
    for pin in all_pages(lambda cursor: vault.pins(limit=MAX_LIMIT, cursor=cursor)):
        pinned[pin.holder].add(pin.digest.hex)
        youngest[pin.holder] = max(pin.pinned_at, youngest.get(pin.holder, pin.pinned_at))
    return pinned, youngest


def _faults(
    record: Knowledge, sizes: dict[str, int], pinned: set[str], vault: HttpVault, repair: bool
) -> Iterator[Fault]:
    """Yield the inconsistencies of one record's blobs."""
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

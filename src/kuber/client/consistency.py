"""Consistency of a registry and its vault: all blobs of records are stored and pinned, all pins have a record."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Artifact, Knowledge
from kuber.domain.ports import RegistryAdmin
from kuber.domain.query import MAX_LIMIT, Page, Query, all_pages, pages
from kuber.domain.verification import Standing
from kuber.errors import KnowledgeNotFoundError, KUberError

SETTLED = timedelta(hours=1)  # younger pins are not removed: their record may be about to be published
PUBLISHING_SECONDS = 10.0  # within which a publication that has pinned its blobs has its record
PAUSE = 0.5  # seconds between two looks at what is being published


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
    registry: RegistryAdmin, vault: HttpVault, *, now: datetime, settled: timedelta = SETTLED, repair: bool = False
) -> ConsistencyReport:
    """Compare a running registry and vault; with `repair`, pin unpinned blobs of records and unpin those without.

    A pin is made before its record. So pins without a record are sought among those listed before the records, and
    records without pins are compared with the pins listed after them.
    """
    before, _ = _pins(vault)
    # Quarantined records are found only by their standing, and their blobs are kept. They are queried twice, so that
    # none is missed that is quarantined or released meanwhile.
    found: dict[str, Mapping[str, Artifact]] = {}  # not the whole records: they may not fit in memory
    omitted: set[str] = set()
    for standing in (Standing.QUARANTINED, None, Standing.QUARANTINED):
        for page in pages(partial(_found, registry, standing)):
            found |= {record.id: record.artifacts for record in page.items}
            omitted.update(page.omitted)
    pins, youngest = _pins(vault)
    blobs = all_pages(lambda cursor: vault.blobs(limit=MAX_LIMIT, cursor=cursor))
    sizes = {blob.digest.hex: blob.size for blob in blobs}
    faults: list[Fault] = []
    for id, artifacts in found.items():
        faults += _faults(id, artifacts, sizes, pins.get(id, set()), vault, repair)
    for id in sorted(omitted):
        sentence = f"The record {id} is too large for any page, so that no entity finds it; withdraw it."
        faults.append(Fault(sentence=sentence))
    missing = sorted((before.keys() & pins.keys()) - found.keys() - omitted)
    for holder in missing:
        if youngest[holder] <= now - settled:
            if repair:
                vault.unpin(holder)
            faults.append(Fault(sentence=f"Blobs are pinned for {holder}, which is not a record.", repaired=repair))
    young = _unpublished(registry, vault, [holder for holder in missing if youngest[holder] > now - settled])
    if young:
        faults.append(
            Fault(
                sentence=f"The vault has pinned the blobs of {young} records within the last "
                f"{settled.total_seconds():g} s that the registry does not have. If it has lost them, restore a "
                "backup."
            )
        )
    if sizes and not found and not omitted and not registry.members(limit=1).items:
        faults.append(
            Fault(
                sentence=f"The registry is empty, but the vault has {len(sizes)} blobs: the registry's database was "
                "lost, or is another one. Stop the vault before it removes them, and restore a backup."
            )
        )
    count = sum(len(digests) for digests in pins.values())
    return ConsistencyReport(records=len(found) + len(omitted), blobs=len(sizes), pins=count, faults=tuple(faults))


def _found(registry: RegistryAdmin, standing: Standing | None, cursor: str | None) -> Page[Knowledge]:
    return registry.discover(Query(standing=standing, order="newest", limit=MAX_LIMIT, cursor=cursor))


def _unpublished(registry: RegistryAdmin, vault: HttpVault, holders: list[str]) -> int:
    """Return how many of these have no record, even after the time that a publication takes, and keep their pins."""
    end = time.monotonic() + PUBLISHING_SECONDS
    while holders := [holder for holder in holders if not _is_known(registry, holder)]:
        if time.monotonic() > end:
            pinned, _ = _pins(vault)
            return len(pinned.keys() & set(holders))
        time.sleep(PAUSE)
    return 0


def _is_known(registry: RegistryAdmin, id: str) -> bool:
    try:
        registry.knowledge(id)
    except KnowledgeNotFoundError:
        return False
    return True


def _pins(vault: HttpVault) -> tuple[dict[str, set[str]], dict[str, datetime]]:
    """Return the pinned digests of each holder, and the time of its last pin."""
    pinned: dict[str, set[str]] = defaultdict(set)
    youngest: dict[str, datetime] = {}
    for pin in all_pages(lambda cursor: vault.pins(limit=MAX_LIMIT, cursor=cursor)):
        pinned[pin.holder].add(pin.digest.hex)
        youngest[pin.holder] = max(pin.pinned_at, youngest.get(pin.holder, pin.pinned_at))
    return pinned, youngest


def _faults(
    id: str,
    artifacts: Mapping[str, Artifact],
    sizes: dict[str, int],
    pinned: set[str],
    vault: HttpVault,
    repair: bool,
) -> Iterator[Fault]:
    """Yield the inconsistencies of one record's blobs."""
    unpinned = False
    for kind, artifact in artifacts.items():
        size = sizes.get(artifact.digest.hex)
        if size is None:
            yield Fault(sentence=f"The {kind} of {id} are missing; put {artifact.digest} into the vault again.")
        elif size != artifact.size:
            yield Fault(sentence=f"The {kind} of {id} have {size} bytes, and its record says {artifact.size}.")
        unpinned |= artifact.digest.hex not in pinned
    if not unpinned:
        return
    repaired, reason = False, ""
    if repair:
        try:
            vault.pin(id, artifacts.items())
            repaired = True
        except KUberError as error:
            reason = f" ({error})"
    yield Fault(sentence=f"The blobs of {id} are not all pinned{reason}.", repaired=repaired)

"""Records, attestations and signatures of a hub, and the operator's access to it."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

from kuber.client.admin import AdminClient
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from kuber.domain.record_memory import record_memory
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, KUberError
from kuber.signing import check_keys, check_signature
from kuber.views.suspicion import PublisherSuspicion, by_publisher
from kuber.wire.signing_payloads import record_bytes, succession_bytes

CACHE_SIZE, CACHE_BYTES = 1000, 64 << 20  # records, and bytes of memory that they take
SUSPICION_SECONDS = 10.0  # for which suspicions are kept
MAX_ANCESTORS, MAX_GENERATIONS = 20, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """Result of checking a record's signature, and a sentence about it."""

    state: Literal["valid", "missing", "wrong"]
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """Ancestors of a record, `depth` steps back."""

    depth: int
    records: tuple[Knowledge, ...]


class HubReader:
    """Reads a hub with the dashboard's own credentials. Calls block, so run them in a thread."""

    def __init__(self, registry: HttpRegistry, vault: HttpVault, *, ca: Path | None = None) -> None:
        self.registry = registry
        self.vault = vault
        self._ca = ca
        self._records: OrderedDict[str, tuple[Knowledge, int]] = OrderedDict()  # with their bytes of memory
        self._memory = 0
        self._lock = Lock()
        self._suspicions: tuple[float, list[PublisherSuspicion]] | None = None  # and when they were read

    def knowledge(self, id: str, *, fresh: bool = False) -> Knowledge:
        """Return the record with this id. Without `fresh`, its verification may be out of date."""
        known = self._records.get(id)
        if known is not None and not fresh:
            return known[0]
        record = self.registry.knowledge(id)
        with self._lock:
            self._memory -= self._records.pop(id, (record, 0))[1]
            self._records[id] = record, record_memory(record)
            self._memory += self._records[id][1]
            while len(self._records) > CACHE_SIZE or self._memory > CACHE_BYTES:
                self._memory -= self._records.popitem(last=False)[1][1]
        return record

    def signature(self, knowledge: Knowledge) -> Signature:
        """Check the record's signature, and the chain of keys that the registry has for its publisher."""
        try:
            member = self.registry.member(knowledge.entity)
            check_keys(member, succession_bytes)
            key = member.key_for(knowledge.sequence)
            if not member.keys:
                return Signature(
                    state="missing", sentence="Its publisher has no key, so its origin cannot be checked."
                )
            if knowledge.signature is None:
                raise CorruptKnowledgeError(
                    "The record is not signed, although its publisher has a key; do not use it."
                )
            if key is None:
                raise CorruptKnowledgeError(
                    "None of the publisher's keys is valid for the sequence number of this record; do not use it."
                )
            check_signature(key.public_key, knowledge.signature, record_bytes(knowledge), "The record")
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Signature(state="wrong", sentence=error.message)
        short = f"{key.public_key[:8]}…{key.public_key[-8:]}"
        return Signature(state="valid", sentence=f"Signed by {member.name} with the Ed25519 key {short}.")

    def ancestors(self, knowledge: Knowledge) -> list[Generation]:
        """Return the records it learned from, their parents, and so on; each once, nearest first."""
        seen = {knowledge.id}
        generations: list[Generation] = []
        parents = knowledge.parents
        while parents and len(seen) <= MAX_ANCESTORS and len(generations) < MAX_GENERATIONS:
            fresh = [id for id in dict.fromkeys(parents) if id not in seen][: MAX_ANCESTORS + 1 - len(seen)]
            records = tuple(self.knowledge(id) for id in fresh)
            seen.update(fresh)
            if records:
                generations.append(Generation(depth=len(generations) + 1, records=records))
            parents = tuple(parent for record in records for parent in record.parents)
        return generations

    def suspicions(self) -> list[PublisherSuspicion]:
        """Return suspicions by publisher, at most some seconds old; none of a registry that knows none."""
        now = time.monotonic()
        if self._suspicions is None or now - self._suspicions[0] > SUSPICION_SECONDS:
            try:
                found = by_publisher(self.registry.suspicions())
            except KUberError:  # such as a registry of an earlier version, or none that answers
                found = []
            self._suspicions = now, found
        return self._suspicions[1]

    @contextmanager
    def operator(self, token: str) -> Iterator[AdminClient]:
        """Yield an admin client with the token that a user entered."""
        with AdminClient(self.registry.url, token, patience=0, ca=self._ca) as operator:
            yield operator

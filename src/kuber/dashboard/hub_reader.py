"""Records, attestations and signatures of a hub, and the operator's access to it."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Literal

from kuber.client.admin import AdminClient
from kuber.client.record_files import ENDINGS, signed_by
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from kuber.domain.record_memory import record_memory
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, KUberError
from kuber.views.suspicion import PublisherSuspicion, by_publisher

CACHE_SIZE, CACHE_BYTES = 1000, 64 << 20  # records, and bytes of memory that they take
SUSPICION_SECONDS = 10.0  # for which suspicions are kept
MAX_ANCESTORS, MAX_GENERATIONS = 20, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """Result of checking a record's signature, and a sentence about it."""

    state: Literal["valid", "wrong"]
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """Ancestors of a record, `depth` steps back."""

    depth: int
    records: tuple[Knowledge, ...]


class HubReader:
    """Reads a hub with the dashboard's own credentials. Calls block, so run them in a thread."""

    def __init__(
        self,
        registry: HttpRegistry,
        vault: HttpVault,
        *,
        ca: Path | None = None,
        pinned_keys: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`pinned_keys` are public keys by entity id, as an entity of this machine first saw them."""
        self.registry = registry
        self.vault = vault
        self._ca = ca
        self._pinned_keys = pinned_keys
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
        """Check the record's signature, and the keys of its publisher."""
        try:
            member = signed_by(knowledge, self.registry, self._pinned_keys)
            key = member.key_for(knowledge.sequence)
        except CorruptKnowledgeError as error:
            return Signature(state="wrong", sentence=error.message)
        assert key is not None  # of a signed record
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

    def file(self, id: str, kind: str) -> tuple[bytes, str]:
        """Return a file of a record, and its name. Raises CorruptKnowledgeError unless the record is signed."""
        record = self.knowledge(id)
        artifact = record.artifacts.get(kind)
        if artifact is None or kind not in ENDINGS:
            raise KnowledgeNotFoundError(f"The record {id[:100]!r} has no file of the kind {kind[:100]!r}.")
        signed_by(record, self.registry, self._pinned_keys)
        return self.vault.get(artifact.digest), f"{record.id}.{ENDINGS[kind]}"

    @contextmanager
    def operator(self, token: str) -> Iterator[AdminClient]:
        """Yield an admin client with the token that a user entered."""
        with AdminClient(self.registry.url, token, patience=0, ca=self._ca) as operator:
            yield operator

"""What the pages ask a hub for beside its events: records, attestations, blobs; and the operator's acts."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kuber.client.admin import AdminClient
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.signing import check_keys, check_signature
from kuber.wire import record_bytes, succession_bytes

REMEMBERED = 1000  # records
ANCESTORS, GENERATIONS = 20, 3  # most records of a family that are asked for, and how far back


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What became of checking a record's signature: one sentence says more."""

    state: Literal["valid", "missing", "wrong"]
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """Records, and how many steps they lie before the one that was asked about."""

    depth: int
    records: tuple[Knowledge, ...]


class HubReader:
    """A hub's registry and vault, read with the dashboard's own credentials; calls block, so run them in a thread."""

    def __init__(self, registry: HttpRegistry, vault: HttpVault, *, ca: Path | None = None) -> None:
        self.registry = registry
        self.vault = vault
        self._ca = ca
        self._records: OrderedDict[str, Knowledge] = OrderedDict()

    def knowledge(self, id: str, *, fresh: bool = False) -> Knowledge:
        """The record with this id. What the hub found out may be of a while ago, unless it is to be `fresh`."""
        known = self._records.get(id)
        if known is None or fresh:
            known = self.registry.knowledge(id)
            self._records[id] = known
            while len(self._records) > REMEMBERED:
                self._records.popitem(last=False)
        return known

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """What entities found out about a record."""
        return self.registry.attestations(id)

    def signature(self, knowledge: Knowledge) -> Signature:
        """Whether the record is signed with the key that the registry names for its publisher, and those before."""
        try:
            member = self.registry.member(knowledge.entity)
            check_keys(member, succession_bytes)
            key = member.key_for(knowledge.sequence)
            if not member.keys:
                return Signature(
                    state="missing", sentence="Its publisher has no key, so nobody can check who wrote it."
                )
            if knowledge.signature is None:
                raise CorruptKnowledgeError("It is not signed, though its publisher has a key; do not use it.")
            if key is None:
                raise CorruptKnowledgeError(
                    "None of its publisher's keys signs records of its sequence; do not use it."
                )
            check_signature(key.public_key, knowledge.signature, record_bytes(knowledge), "The record")
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Signature(state="wrong", sentence=error.message)
        told = f"{key.public_key[:8]}…{key.public_key[-8:]}"
        return Signature(state="valid", sentence=f"Signed by {member.name} with key {told} (Ed25519), and checked.")

    def ancestors(self, knowledge: Knowledge) -> list[Generation]:
        """The records that it learnt from, those that these learnt from, and so on, each once; the nearest first."""
        seen = {knowledge.id}
        generations: list[Generation] = []
        wave = knowledge.parents
        while wave and len(seen) <= ANCESTORS and len(generations) < GENERATIONS:
            fresh = [id for id in dict.fromkeys(wave) if id not in seen][: ANCESTORS + 1 - len(seen)]
            records = tuple(self.knowledge(id) for id in fresh)
            seen.update(fresh)
            if records:
                generations.append(Generation(depth=len(generations) + 1, records=records))
            wave = tuple(parent for one in records for parent in one.parents)
        return generations

    @contextmanager
    def operator(self, token: str) -> Iterator[AdminClient]:
        """The registry, asked with the token of a visitor."""
        with AdminClient(self.registry.url, token, patience=0, ca=self._ca) as operator:
            yield operator

"""Publishing a record: checks, pins in the vault, one transaction, and unpinning what is not kept."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, select

from kuber.domain.auth import PUBLISH
from kuber.domain.blob import Owner
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft, Knowledge, Manifest
from kuber.domain.member import Member
from kuber.domain.publication_checks import (
    check_known_manifest,
    check_missing,
    check_repeated,
    check_storable,
    check_text,
    check_weights,
    invalid_artifact,
)
from kuber.domain.record_memory import member_memory
from kuber.domain.safetensors_header import read_file_manifest
from kuber.errors import ConflictError, RequestRejectedError, ServiceError
from kuber.services.db.cache import BoundedCache
from kuber.services.db.database import Database
from kuber.services.registry.audit import add_entry
from kuber.services.registry.copies import Owners, claim_files, copied_record, shared_files
from kuber.services.registry.knowledge_reader import KnowledgeReader, read_record
from kuber.services.registry.knowledge_writer import InternedRows, insert_knowledge
from kuber.services.registry.members import advance_sequence, registered_member
from kuber.services.registry.retention import retire
from kuber.services.registry.schema import knowledge
from kuber.signing import check_record
from kuber.wire.record_size import check_size
from kuber.wire.registry import DraftBody, PublicationBody
from kuber.wire.sent_blobs import check_sent
from kuber.wire.signing_payloads import prior_bytes, signed_and_whole

_EARLIER = select(knowledge.c.seq, knowledge.c.draft).where(
    knowledge.c.entity == bindparam("entity"), knowledge.c.key == bindparam("key")
)

log = logging.getLogger(__name__)


class BlobSource(Protocol):
    """The part of a vault that a registry uses; RegistryVault implements it over HTTP."""

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Pin as the port does; a vault of an earlier version returns no manifests."""

    def store_and_pin(
        self, holder: str, artifacts: Iterable[tuple[str, Artifact]], *, owner: str, blobs: Mapping[Digest, str]
    ) -> Mapping[Digest, Manifest]:
        """Store small blobs for their owner, and pin. RequestRejectedError from a vault of an earlier version."""

    def unpin(self, holder: str) -> None:
        """Unpin as the port does."""

    def head(self, digest: Digest, length: int) -> bytes:
        """Return the first `length` bytes of a blob, or all of a shorter one."""

    def owner(self, digest: Digest) -> Owner | None:
        """Return the owner of a blob; None when it is not stored or the vault cannot say."""


class Publications:
    """Stores records in a registry's database. Safe to use from several threads."""

    def __init__(
        self,
        database: Database,
        *,
        vault: BlobSource,
        reader: KnowledgeReader,
        publishers: BoundedCache[Member],
        clock: Callable[[], datetime],
        ids: Callable[[], str],
        keep_best: int,
        hub: str,
        forget: Callable[[str], None],
    ) -> None:
        """Cache members by id in `publishers`, which is invalidated when a key changes; `forget` drops a record."""
        self._forget = forget
        self._database = database
        self._vault = vault
        self._reader = reader
        self._publishers = publishers
        self._clock = clock
        self._ids = ids
        self._keep_best = keep_best
        self._hub = hub
        self._interned = InternedRows(shared=database.shared)

    def publish(self, body: DraftBody, *, key: str) -> tuple[Knowledge, bool]:
        """Store a record, and the blobs that came with it; return it, and whether it is new."""
        check_text(key, "The key of a publication")
        draft = body.value()
        blobs = body.blobs if isinstance(body, PublicationBody) else {}
        check_sent(blobs, draft.artifacts.values())
        check_storable(draft.architecture)
        signed, content = signed_and_whole(body)
        check_size(body, len(content))
        digest = Digest.of(content)
        version = self._publishers.version
        with self._database.read_snapshot() as connection:
            earlier = _find_earlier(connection, draft, key, digest)
            if earlier is not None:
                return earlier, False
            publisher = self._publisher(connection, draft.entity, version)
            check_references(connection, draft.parents)
            check_record(publisher, draft, signed, prior=prior_bytes(draft), hub=self._hub)
            check_known_manifest(draft.architecture)
            self._interned.learn(connection, draft)
            shared = shared_files(connection, draft)
        owners = {digest: owner for digest in shared if (owner := self._vault.owner(digest)) is not None}
        id = self._ids()
        if blobs:
            manifests = self._vault.store_and_pin(id, draft.artifacts.items(), owner=draft.entity, blobs=blobs)
        else:
            manifests = self._vault.pin(id, draft.artifacts.items())
        try:
            self._check_weights(draft, manifests)
            record = Knowledge.from_draft(draft, id=id, published_at=self._clock())
            stored, retired = self._insert(record, owners, key=key, digest=digest, size=len(content))
        except (RequestRejectedError, ConflictError):
            self.unpin(id)
            raise
        new = stored.id == id
        # A concurrent request with the same key may have been first: its record has its own pins.
        for unpinned in retired if new else [id]:
            self.unpin(unpinned)
        return stored, new

    def unpin(self, id: str) -> None:
        """Have the vault unpin the blobs of a record that is refused or withdrawn.

        When the database or the vault fails instead, the pins stay, as the record may be stored: `kuber hub check`
        finds those without a record.
        """
        try:
            self._vault.unpin(id)
        except ServiceError as error:
            log.warning("the pins of %s stay until `kuber hub check --repair`: %s", id, error)

    def forget(self, pin: str) -> None:
        """Forget an architecture whose pin the operator has removed."""
        self._interned.architectures.forget(pin)

    def _publisher(self, connection: Connection, id: str, version: int) -> Member:
        """Return the member with this id; only its sequence may be outdated. RequestRejectedError without one."""
        member = self._publishers.get(id)
        if member is None:
            member = registered_member(connection, id)
            self._publishers.put(id, member, version=version, weight=member_memory(member))
        return member

    def _check_weights(self, draft: Draft, manifests: Mapping[Digest, Manifest]) -> None:
        weights = draft.artifacts.get(WEIGHTS)
        if weights is None:
            return
        manifest = manifests.get(weights.digest)
        if manifest is None:
            try:
                manifest = read_file_manifest(partial(self._vault.head, weights.digest), size=weights.size)
            except ValueError as error:
                raise invalid_artifact(weights.digest, WEIGHTS, str(error)) from None
        check_weights(draft, manifest)

    def _insert(
        self, record: Knowledge, owners: Owners, *, key: str, digest: Digest, size: int
    ) -> tuple[Knowledge, list[str]]:
        """Commit the record, its event and what it retires; return the stored record and the ids of the retired."""

        def transaction(connection: Connection) -> tuple[Knowledge, int | None, list[str], list[str]]:
            earlier = _find_earlier(connection, record, key, digest)
            if earlier is not None:
                return earlier, None, [], []
            check_references(connection, record.parents)  # again: a withdrawn one may have been removed meanwhile
            advance_sequence(connection, record)
            new = replace(record, copy_of=copied_record(connection, record, owners))
            copies = claim_files(connection, new, owners) if owners else []
            seq = insert_knowledge(connection, self._interned, new, key=key, draft=digest.hex)
            add_entry(connection, record.published_at, record.entity, PUBLISH, record.id, _event_detail(record))
            return new, seq, copies, retire(connection, record, best=self._keep_best)

        stored, seq, copies, retired = self._database.write(transaction)
        for id in copies:
            self._forget(id)
        if seq is not None:
            self._reader.keep(seq, stored, size)
        return stored, retired


def check_references(connection: Connection, ids: Iterable[str]) -> None:
    """Raise RequestRejectedError unless the registry has all knowledge with these ids."""
    if not (wanted := set(ids)):
        return
    check_missing(wanted - set(connection.scalars(select(knowledge.c.id).where(knowledge.c.id.in_(wanted)))))


def _find_earlier(connection: Connection, draft: Draft, key: str, digest: Digest) -> Knowledge | None:
    """Return the publisher's record under this key, if any. ConflictError when it was made of another draft."""
    row = connection.execute(_EARLIER, {"entity": draft.entity, "key": key}).one_or_none()
    if row is None:
        return None
    check_repeated(Digest(row.draft), digest)
    return read_record(connection, row.seq)


def _event_detail(record: Knowledge) -> dict[str, Any]:
    """Return the details of a publication event, so that its followers need not fetch each record."""
    own = record.task.test_set is None
    return {
        "round": record.round,
        "accuracy": record.claimed_accuracy,
        "task": record.task.name,
        "architecture": record.architecture.name,
        "bytes": sum(artifact.size for artifact in record.artifacts.values()),
        **({"test_set": str(record.evaluation.test_set)} if own else {}),
    }

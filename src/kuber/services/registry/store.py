"""Registry store: the Registry port on a database."""

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, update

from kuber.domain.architecture_pin import ArchitecturePin
from kuber.domain.auth import REPORT, VERIFIER
from kuber.domain.delivery import Delivery
from kuber.domain.entity_names import normalised
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.domain.message_limits import check_key_count, check_report, reported_counts
from kuber.domain.publication_checks import check_attestation, check_owner, check_text
from kuber.domain.query import MAX_LIMIT, Page, Query, all_pages
from kuber.domain.ranking import recall_rank
from kuber.domain.record_memory import record_memory
from kuber.domain.suspicion import Suspicion
from kuber.domain.verification import Attestation, Verification
from kuber.errors import KnowledgeNotFoundError
from kuber.services.db.cache import BoundedCache
from kuber.services.db.database import Database
from kuber.services.http import pagination as cursors
from kuber.services.registry.architecture_pins import PINS, pin_sizes, read_pins, remove_pin
from kuber.services.registry.audit import add_entry
from kuber.services.registry.deliveries import delivery_sizes, insert_delivery, is_recorded, read_deliveries
from kuber.services.registry.discovery import discover_statement, read_rank
from kuber.services.registry.hub_identity import HubIdentity
from kuber.services.registry.judgements import (
    insert_attestation,
    insert_verification,
    quarantine,
    read_attestations,
    release,
)
from kuber.services.registry.knowledge_reader import BY_ID, FoundRecords, KnowledgeReader
from kuber.services.registry.latest import published_classes, update_newest
from kuber.services.registry.members import (
    add_member,
    find_named,
    insert_key,
    last_sequence,
    member_sizes,
    note_hub,
    read_member,
    read_members,
    registered_member,
)
from kuber.services.registry.publishing import BlobSource, Publications, check_references
from kuber.services.registry.schema import architectures, deliveries, entities, knowledge
from kuber.services.registry.suspicions import read_suspicions
from kuber.signing import check_new_key
from kuber.wire.registry import DeliveryBody, DraftBody
from kuber.wire.signing_payloads import succession_bytes

MATCHES = 6  # ids that are returned for a part of one
SEARCHED = 20_000  # newest records whose ids are searched for their end
CACHED = 32 << 20  # bytes of records, and as many of publishers


def sortable_id() -> str:
    """Return a new id of 32 hex digits; ids sort by the millisecond in which they were made."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def _position(connection: Connection, query: Query, page: FoundRecords) -> tuple[float | int, ...]:
    """Return the position of a page's last record in the order of the query, for a cursor."""
    assert page.last is not None
    if query.order in ("newest", "oldest"):
        return (page.last,)
    seq, record = page.records[-1] if page.records else (None, None)
    if record is None or seq != page.last:  # it is omitted
        return read_rank(connection, query, page.last), page.last
    rank = record.trusted.accuracy if query.order == "accuracy" else recall_rank(record.trusted, query.classes)
    return rank, page.last


class RegistryStore:
    """The Registry port on a database: the path of a SQLite file, or the URL of a PostgreSQL database.

    Other processes may share a PostgreSQL database. Safe to use from several threads. Raises SettingsError for an
    invalid URL, ServiceError when the database cannot be used; every method raises ServiceUnavailableError when the
    database fails.
    """

    def __init__(
        self,
        database: Path | str,
        *,
        vault: BlobSource,
        clock: Callable[[], datetime] = utc_now,
        ids: Callable[[], str] = sortable_id,
        keep_best: int = 0,
    ) -> None:
        """`keep_best` is how many records of an entity on a task are kept besides its newest; 0 keeps all."""
        self._clock = clock
        self._ids = ids
        self.database = Database(database, history="registry")
        self.hub = HubIdentity.load_or_create(self.database)
        self._reader = KnowledgeReader()
        # Changing objects are cached only where no other process changes them.
        cached = 0 if self.database.shared else CACHED
        self._records: BoundedCache[Knowledge] = BoundedCache(cached)  # by id
        self._publishers: BoundedCache[Member] = BoundedCache(cached)  # by id
        self._publications = Publications(
            self.database,
            vault=vault,
            reader=self._reader,
            publishers=self._publishers,
            clock=clock,
            ids=ids,
            keep_best=keep_best,
            hub=self.hub.id,
            forget=self.forget,
        )

    def forget(self, id: str) -> None:
        """Forget a record that was removed, or has become a copy."""
        self._records.invalidate(id)

    def close(self) -> None:
        """Finish pending writes and close the database."""
        self.database.close()

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name. Idempotent for the same key."""

        def work(connection: Connection) -> Member:
            member = find_named(connection, name)
            if member is None:
                keys = () if public_key is None else (Key(public_key=public_key),)
                member = Member(id=self._ids(), name=normalised(name), registered_at=self._clock(), keys=keys)
                add_member(connection, member)
            check_owner(member, public_key)
            return member

        return self.database.write(work)

    def hub_id(self) -> str:
        """Return the id of the hub."""
        return self.hub.id

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """Return the registered entities, earliest first."""
        query = select(entities).order_by(entities.c.seq)
        with self.database.read_snapshot() as connection:
            found, after = cursors.fetch_page(connection, query, entities.c.seq, limit, cursor, size_of=member_sizes)
            return Page(items=read_members(connection, found), cursor=after)

    def member(self, id: str) -> Member:
        """Return the entity with this id and its keys. KnowledgeNotFoundError when there is none."""
        with self.database.read_snapshot() as connection:
            return read_member(connection, id)

    def change_key(self, id: str, key: Key) -> Member:
        """Add a key, signed with the previous one, for records from sequence `key.since` on."""

        def work(connection: Connection) -> Member:
            member = read_member(connection, id)
            if key in member.keys:
                return member
            check_key_count(member)
            check_new_key(member, key, succession_bytes(id, key), last_sequence(connection, id), hub=self.hub.id)
            note_hub(connection, id, key.hub)
            insert_key(connection, id, key, position=len(member.keys))
            add_entry(connection, self._clock(), id, "change-key", id)
            return replace(member, keys=(*member.keys, key))

        changed = self.database.write(work)
        self._publishers.invalidate()
        return changed

    def forget_keys(self) -> None:
        """Read the keys of members again: one of them may be new."""
        self._publishers.invalidate()

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record once its blobs are pinned in the vault and its weights match the manifest."""
        return self.accept(DraftBody.of(draft), key=key)[0]

    def accept(self, body: DraftBody, *, key: str) -> tuple[Knowledge, bool]:
        """Publish a draft; return the record, and whether it is new."""
        return self._publications.publish(body, key=key)

    def pins(self, *, limit: int = 100, cursor: str | None = None) -> Page[ArchitecturePin]:
        """Return the pins of architectures, earliest first."""
        with self.database.read_snapshot() as connection:
            found, after = cursors.fetch_page(connection, PINS, architectures.c.seq, limit, cursor, size_of=pin_sizes)
            return Page(items=read_pins(connection, found), cursor=after)

    def remove_pin(self, pin: str) -> None:
        """Remove the pin of an architecture: the next record with its name and arguments decides its tensors.

        Raises KnowledgeNotFoundError when there is none.
        """
        now = self._clock()
        self.database.write(lambda connection: remove_pin(connection, pin, now))
        self._publications.forget(pin)

    def discover(self, query: Query) -> Page[Knowledge]:
        """Return the matching knowledge, in the order of the query."""
        with self.database.read_latest() as connection:
            found = self._reader.read_page(connection, *discover_statement(query), limit=query.limit)
            position = None if found.last is None else _position(connection, query, found)
        return Page(
            items=tuple(record for _, record in found.records),
            cursor=None if position is None else cursors.encode(query.order, *position),
            omitted=tuple(found.omitted),
        )

    def knowledge(self, id: str) -> Knowledge:
        """Return one record. KnowledgeNotFoundError when there is none."""
        cached = self._records.get(id)
        if cached is not None:
            return cached
        version = self._records.version
        with self.database.read_latest() as connection:
            found = self._reader.read(connection, BY_ID, {"id": id})
        if not found:
            raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")
        record = found[0]
        self._records.put(id, record, version=version, weight=record_memory(record))
        return record

    def ids_matching(self, part: str) -> tuple[str, ...]:
        """Return some ids of records that begin with this part or, among the newest, end with it; earliest first.

        Withdrawn and quarantined records are among them.
        """
        if not part:
            return ()
        column, last = knowledge.c.id, func.max(knowledge.c.seq)
        begins = select(column).where(column >= part, column < part + "\x7f").limit(MATCHES)
        newest = knowledge.c.seq > select(func.coalesce(last, 0) - SEARCHED).scalar_subquery()
        ends = select(column).where(newest, column.endswith(part, autoescape=True)).limit(MATCHES)
        with self.database.read_latest() as connection:
            found = {*connection.scalars(begins), *connection.scalars(ends)}
        return tuple(sorted(found))

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Store this entity's own evaluation of another's knowledge, in place of its previous one."""
        check_attestation(self.knowledge(id), self.member(entity), evaluation)
        now = self._clock()
        self.database.write(lambda connection: insert_attestation(connection, id, entity, evaluation, now))

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """Return the entities' attestations of this knowledge, in order of entity id."""
        return tuple(all_pages(lambda cursor: self.attested(id, cursor=cursor)))

    def attested(self, id: str, *, limit: int = MAX_LIMIT, cursor: str | None = None) -> Page[Attestation]:
        """Return a page of them."""
        with self.database.read_snapshot() as connection:
            return read_attestations(connection, id, limit=limit, cursor=cursor)

    def suspicions(self) -> list[Suspicion]:
        """Return the records that attestations contradict, and the copies of others; newest first."""
        with self.database.read_snapshot() as connection:
            return read_suspicions(connection, self._reader)

    def verify(self, id: str, verification: Verification) -> None:
        """Store the hub's verification of a record, in place of its previous one."""

        def work(connection: Connection, record: Knowledge, now: datetime) -> None:
            insert_verification(connection, record, verification, now)
            found = verification.evaluation
            detail = {"accuracy": found.accuracy} if found is not None else {}
            add_entry(connection, now, VERIFIER, verification.standing.value, id, detail)

        self._judge(id, work)

    def quarantine(self, id: str, reason: str) -> None:
        """Quarantine a record for the operator: it is no longer discovered, whatever the verifier finds.

        The last reason holds. Raises KnowledgeNotFoundError when there is no such record.
        """
        check_text(reason, "The reason of a quarantine")
        self._judge(id, lambda connection, record, now: quarantine(connection, record.id, reason, now))

    def release(self, id: str) -> None:
        """End the quarantine of a record for the operator, also the verifier's. Idempotent.

        Raises KnowledgeNotFoundError when there is no such record.
        """
        self._judge(id, release)

    def _judge(self, id: str, work: Callable[[Connection, Knowledge, datetime], None]) -> None:
        """Change the judgement of a record."""
        record, now = self.knowledge(id), self._clock()
        self.database.write(lambda connection: work(connection, record, now))
        self._records.invalidate(id)

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Report that the entity is alive, its round, and how good its model is."""
        self.member(id)
        now = self._clock()
        detail: dict[str, Any] = {"round": round}
        if evaluation is not None:
            with self.database.read_latest() as connection:
                check_report(evaluation, published_classes(connection, id))
            detail |= reported_counts(evaluation)
        self.database.write(lambda connection: add_entry(connection, now, id, REPORT, id, detail))

    def withdraw(self, id: str, *, actor: str | None = None) -> None:
        """Withdraw a record: it is no longer discovered, only read by its id, and its blobs are unpinned. Idempotent.

        The row stays, since other records may name it as a parent.
        """
        self.hide(id, actor=actor)
        self.unpin(id)

    def hide(self, id: str, *, actor: str | None = None) -> None:
        """Withdraw a record, but leave its blobs pinned. Idempotent."""
        owner, now = self.knowledge(id).entity, self._clock()

        def work(connection: Connection) -> None:
            chosen = knowledge.c.id == id, knowledge.c.withdrawn_at.is_(None)
            seq = connection.scalar(select(knowledge.c.seq).where(*chosen))
            if seq is not None:
                connection.execute(update(knowledge).where(knowledge.c.seq == seq).values(withdrawn_at=now))
                update_newest(connection, seq)
                add_entry(connection, now, actor or owner, "withdraw", id)

        self.database.write(work)

    def unpin(self, id: str) -> None:
        """Have the vault unpin the blobs of a withdrawn record."""
        self._publications.unpin(id)

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store the outcome of a delivery. Idempotent for the same key."""
        check_text(key, "The key of a delivery")
        now = self._clock()

        def work(connection: Connection) -> None:
            if is_recorded(connection, delivery.student, key):
                return
            registered_member(connection, delivery.student)
            check_references(connection, delivery.teachers)
            insert_delivery(connection, delivery, key=key, now=now)
            body = DeliveryBody.of(delivery).model_dump(mode="json", exclude={"student"}, exclude_none=True)
            add_entry(connection, now, delivery.student, "deliver", delivery.teachers[0], body)

        self.database.write(work)

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """Return the recorded deliveries, earliest first."""
        query = select(deliveries).order_by(deliveries.c.seq)
        with self.database.read_snapshot() as connection:
            found, after = cursors.fetch_page(
                connection, query, deliveries.c.seq, limit, cursor, size_of=delivery_sizes
            )
            return Page(items=read_deliveries(connection, found), cursor=after)

"""The registry on a database: who takes part, what was published, what became of it."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Row, ScalarSelect, Select, and_, exists, func, insert, or_, select

from kuber.domain.admission import check_text, check_weights
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Draft, Knowledge
from kuber.domain.member import Member
from kuber.domain.query import MAX_LIMIT, RECALL_UNIT, Page, Query
from kuber.domain.ranking import recall_rank
from kuber.errors import ConflictError, KnowledgeNotFoundError, RequestRejectedError, ServiceError
from kuber.services import cursor as cursors
from kuber.services.database import Database
from kuber.services.registry_rows import check_pinned, draft_digest, insert_knowledge, read_knowledge
from kuber.services.registry_tables import class_evaluations, deliveries, delivery_teachers, entities, knowledge

log = logging.getLogger(__name__)


class BlobSource(Protocol):
    """What the registry needs of the vault. RegistryVault is one over HTTP, and VaultStore is one too."""

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> None:
        """As the Vault port's."""
        ...

    def unpin(self, holder: str) -> None:
        """As the Vault port's."""
        ...

    def head(self, digest: Digest, length: int) -> bytes:
        """The first `length` bytes of a blob, or all of a shorter one."""
        ...


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def sortable_id() -> str:
    """A new id of 32 hex digits; those made later sort later, to the millisecond."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


class RegistryStore:
    """The Registry port on a SQLite file. Safe to use from several threads, closed by `close`.

    Raises ServiceError when the database cannot be used; every method raises ServiceUnavailableError when it fails.
    """

    def __init__(
        self,
        database: Path,
        *,
        vault: BlobSource,
        clock: Callable[[], datetime] = utc_now,
        ids: Callable[[], str] = sortable_id,
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._database = Database(database, history="registry")

    def close(self) -> None:
        """Finish what is being written and let go of the database."""
        self._database.close()

    def register(self, name: str) -> Member:
        """Join under this name; the same name gives the same member again."""
        return self.enrol(name)[0]

    def enrol(self, name: str) -> tuple[Member, bool]:
        """As `register`, and whether the member is new."""
        check_text(name, "The name of an entity")
        known = select(entities).where(entities.c.name == name)
        with self._database.read() as connection:
            row = connection.execute(known).one_or_none()
        if row is not None:
            return _member(row), False
        member = Member(id=self._ids(), name=name, registered_at=self._clock())

        def work(connection: Connection) -> tuple[Member, bool]:
            row = connection.execute(known).one_or_none()
            if row is not None:
                return _member(row), False
            connection.execute(
                insert(entities), {"id": member.id, "name": name, "registered_at": member.registered_at}
            )
            return member, True

        return self._database.write(work)

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """The registered entities, first come first."""
        query = select(entities).order_by(entities.c.seq)
        with self._database.read() as connection:
            found, after = _page(connection, query, entities.c.seq, limit, cursor)
        return Page(items=tuple(_member(row) for row in found), cursor=after)

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record once its blobs are pinned in the vault and its weights have the tensors it tells of."""
        return self.accept(draft, key=key)[0]

    def accept(self, draft: Draft, *, key: str) -> tuple[Knowledge, bool]:
        """As `publish`, and whether the record is new."""
        check_text(key, "The key of a publication")
        digest = draft_digest(draft)
        with self._database.read() as connection:
            earlier = _earlier(connection, draft, key, digest)
            if earlier is not None:
                return earlier, False
            _check_named(connection, draft.entity, draft.parents)
            check_pinned(connection, draft.architecture)
        id = self._ids()
        self._vault.pin(id, draft.artifacts.items())
        try:
            stored, new = self._insert(draft, id=id, key=key, digest=digest)
        except (RequestRejectedError, ConflictError):
            self._release(id)
            raise
        if not new:  # another request with this key was faster, and its record has pins of its own
            self._release(id)
        return stored, new

    def _insert(self, draft: Draft, *, id: str, key: str, digest: str) -> tuple[Knowledge, bool]:
        check_weights(draft, self._vault.head)
        record = Knowledge.from_draft(draft, id=id, published_at=self._clock())

        def work(connection: Connection) -> tuple[Knowledge, bool]:
            earlier = _earlier(connection, draft, key, digest)
            if earlier is not None:
                return earlier, False
            insert_knowledge(connection, record, key=key, draft=digest)
            return record, True

        return self._database.write(work)

    def _release(self, id: str) -> None:
        """Have the vault forget a record that was refused. When the database or the vault failed instead, the pins
        stay, as the record may be stored: `kuber hub check` finds those without one."""
        try:
            self._vault.unpin(id)
        except ServiceError as error:
            log.warning("the pins of %s stay until `kuber hub check --repair`: %s", id, error)

    def discover(self, query: Query) -> Page[Knowledge]:
        """The knowledge that matches, in the order asked for."""
        with self._database.read() as connection:
            found = read_knowledge(connection, discovery(query))
        items = tuple(found[: query.limit])
        if len(found) <= query.limit:
            return Page(items=items, cursor=None)
        with self._database.read() as connection:
            seq: int = connection.execute(select(knowledge.c.seq).where(knowledge.c.id == items[-1].id)).scalar_one()
        last = items[-1].evaluation
        positions = {
            "accuracy": (last.accuracy, seq),
            "newest": (seq,),
            "classes": (recall_rank(last, query.classes), seq),
        }
        return Page(items=items, cursor=cursors.encode(query.order, *positions[query.order]))

    def knowledge(self, id: str) -> Knowledge:
        """One record; KnowledgeNotFoundError when there is none."""
        with self._database.read() as connection:
            found = read_knowledge(connection, select(knowledge).where(knowledge.c.id == id))
        if not found:
            raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")
        return found[0]

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store what became of a delivery; the same key again changes nothing."""
        check_text(key, "The key of a delivery")
        now = self._clock()

        def work(connection: Connection) -> None:
            used = select(deliveries.c.seq).where(deliveries.c.student == delivery.student, deliveries.c.key == key)
            if connection.scalar(used) is not None:
                return
            _check_named(connection, delivery.student, delivery.teachers)
            told = {name: getattr(delivery, name) for name in _DELIVERY}
            done = connection.execute(insert(deliveries), {**told, "recorded_at": now, "key": key})
            assert done.inserted_primary_key is not None
            teachers = [
                {"delivery": done.inserted_primary_key[0], "position": position, "knowledge": teacher}
                for position, teacher in enumerate(delivery.teachers)
            ]
            connection.execute(insert(delivery_teachers), teachers)

        self._database.write(work)

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """The recorded deliveries, first come first."""
        query = select(deliveries).order_by(deliveries.c.seq)
        with self._database.read() as connection:
            found, after = _page(connection, query, deliveries.c.seq, limit, cursor)
            parts = select(delivery_teachers).where(delivery_teachers.c.delivery.in_([row.seq for row in found]))
            teachers: dict[int, list[str]] = {row.seq: [] for row in found}
            for part in connection.execute(parts.order_by(delivery_teachers.c.position)):
                teachers[part.delivery].append(part.knowledge)
        items = tuple(
            Delivery(**{name: getattr(row, name) for name in _DELIVERY}, teachers=tuple(teachers[row.seq]))
            for row in found
        )
        return Page(items=items, cursor=after)


_DELIVERY = ("student", "method", "round", "accuracy_before", "accuracy_after", "kept")


def discovery(query: Query) -> Select[Any]:
    """The statement that answers a query: the rows of knowledge of one page and one more."""
    row = knowledge.c
    told = select(knowledge).limit(query.limit + 1)
    if query.task is not None:
        told = told.where(row.task_name == query.task)
    if query.test_set is not None:
        told = told.where(row.test_set == query.test_set.hex)
    if query.min_accuracy is not None:
        told = told.where(row.accuracy >= query.min_accuracy)
    if query.exclude_entity is not None:
        told = told.where(row.entity != query.exclude_entity)
    if query.initial is not None:
        told = told.where(row.round == 0 if query.initial else row.round > 0)
    if query.origin is not None:
        told = told.where(row.origin == query.origin.hex)
    if query.latest:
        newer = knowledge.alias("newer").c
        same = [newer.entity == row.entity, newer.task_name == row.task_name, newer.test_set == row.test_set]
        if query.initial is False:  # a new initial checkpoint hides nothing that was trained
            same.append(newer.round > 0)
        told = told.where(~exists().where(*same, newer.seq > row.seq))
    if query.order == "classes":
        rank = _recall_rank(query)
        if query.cursor is not None:
            last, seq = cursors.decode(query.cursor, "classes", int, int)
            told = told.where(or_(rank < last, and_(rank == last, row.seq > seq)))
        return told.order_by(rank.desc(), row.seq)
    if query.order == "newest":
        if query.cursor is not None:
            (seq,) = cursors.decode(query.cursor, "newest", int)
            told = told.where(row.seq < seq)
        return told.order_by(row.seq.desc())
    if query.cursor is not None:
        accuracy, seq = cursors.decode(query.cursor, "accuracy", float, int)
        # The first condition bounds the walk over the index, the second leaves out what was on the page before.
        told = told.where(and_(row.accuracy <= accuracy, or_(row.accuracy < accuracy, row.seq > seq)))
    return told.order_by(row.accuracy.desc(), row.seq)


def _recall_rank(query: Query) -> ScalarSelect[int]:
    """As `kuber.domain.ranking.recall_rank`, of a row of knowledge."""
    part = class_evaluations.c
    summed = func.coalesce(func.sum(part.correct * RECALL_UNIT // part.total), 0)
    of_row = select(summed).where(part.knowledge == knowledge.c.seq, part.label.in_(query.classes), part.total > 0)
    return of_row.scalar_subquery()


def _earlier(connection: Connection, draft: Draft, key: str, digest: str) -> Knowledge | None:
    """What this publisher stored under this key before; ConflictError when that was another draft."""
    used = select(knowledge).where(knowledge.c.entity == draft.entity, knowledge.c.key == key)
    row = connection.execute(used).one_or_none()
    if row is None:
        return None
    if row.draft != digest:
        raise ConflictError("This key was used for another publication; choose a new key for each.")
    return read_knowledge(connection, used)[0]


def _check_named(connection: Connection, entity: str, named: Iterable[str]) -> None:
    """RequestRejectedError unless the entity and all the knowledge named are in the registry."""
    if connection.scalar(select(entities.c.seq).where(entities.c.id == entity)) is None:
        raise RequestRejectedError(f"No entity {entity[:100]!r} is registered here; register first.")
    wanted = set(named)
    missing = wanted - set(connection.scalars(select(knowledge.c.id).where(knowledge.c.id.in_(wanted))))
    if missing:
        raise RequestRejectedError(f"The registry has no knowledge {min(missing)[:100]!r}; name only what it has.")


def _page(
    connection: Connection, query: Select[Any], seq: Any, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """The rows of one page of a listing in order of `seq`, and the cursor of the next."""
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestRejectedError(f"A page has 1 to {MAX_LIMIT} entries; ask for that many.")
    if cursor is not None:
        query = query.where(seq > cursors.decode(cursor, seq.table.name, int)[0])
    found = list(connection.execute(query.limit(limit + 1)).all())
    if len(found) <= limit:
        return found, None
    return found[:limit], cursors.encode(seq.table.name, found[limit - 1].seq)


def _member(row: Row[Any]) -> Member:
    return Member(id=row.id, name=row.name, registered_at=row.registered_at.replace(tzinfo=UTC))

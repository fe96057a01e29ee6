"""The Registry port in memory: for simulations and tests. It behaves as the service, and has no clock of its own."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from threading import RLock
from typing import TypeVar

from kuber.client.memory.latest import LatestRecords, RecallIndex, SortedRecallIndex, Subject
from kuber.client.memory.vault import check_limit, foreign_cursor
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.domain.ports import VaultAdmin
from kuber.domain.publication_checks import check_attestation, check_owner, check_text, check_weights
from kuber.domain.query import Page, Query
from kuber.domain.ranking import recall_rank
from kuber.domain.task import Task
from kuber.domain.verification import Attestation, Standing, Verification
from kuber.errors import ConflictError, KnowledgeNotFoundError, RequestRejectedError
from kuber.signing import check_new_key, check_record, check_sequence
from kuber.wire import (
    ArchitectureBody,
    DeliveryBody,
    DraftBody,
    EvaluationBody,
    VerificationBody,
    canonical,
    record_bytes,
    succession_bytes,
)

T = TypeVar("T")


class MemoryRegistry:
    """The Registry port in memory. Safe to use from several threads; the caller gives the clock and the ids."""

    def __init__(
        self,
        *,
        vault: VaultAdmin,
        clock: Callable[[], datetime],
        ids: Callable[[], str],
        recalls: Callable[[], RecallIndex] = SortedRecallIndex,
    ) -> None:
        """`recalls` makes what ranks by classes."""
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._lock = RLock()
        self._members: dict[str, Member] = {}  # by name, first come first
        self._names: dict[str, str] = {}  # id -> name
        self._sequences: dict[str, int] = {}  # id -> of its last signed record
        self._records: list[Knowledge] = []
        self._places: dict[str, int] = {}  # id -> index into _records
        self._best: list[tuple[float, int]] = []  # (-accuracy, index), sorted: best first, older first among equals
        self._latest = LatestRecords(recalls)
        self._latest_trained = LatestRecords(recalls)  # the same without initial checkpoints
        self._of_subject: dict[Subject, list[int]] = {}  # indices, oldest first
        self._published: dict[tuple[str, str], tuple[Digest, int]] = {}  # (entity, key) -> draft, index
        self._withdrawn: set[int] = set()  # indices into _records
        self._attested: dict[str, dict[str, Attestation]] = {}  # id -> entity -> what it found
        # Records share the tasks and architectures that they tell of: less to hold, and quick to compare.
        self._tasks: dict[Task, Task] = {}
        self._architectures: dict[bytes, Architecture] = {}  # by name and arguments: the one that is pinned
        self._deliveries: dict[tuple[str, str], Delivery] = {}  # by (student, key)

    def __repr__(self) -> str:
        return f"<MemoryRegistry: entities={len(self._members)}, records={len(self._records) - len(self._withdrawn)}>"

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name; the same name with the same key gives the same member again."""
        check_text(name, "The name of an entity")
        with self._lock:
            if name not in self._members:
                keys = () if public_key is None else (Key(public_key=public_key),)
                member = Member(id=self._ids(), name=name, registered_at=self._clock(), keys=keys)
                self._members[name] = member
                self._names[member.id] = name
            check_owner(self._members[name], public_key)
            return self._member(name)

    def member(self, id: str) -> Member:
        """The entity with this id, with its keys; KnowledgeNotFoundError when there is none."""
        with self._lock:
            if id not in self._names:
                raise KnowledgeNotFoundError(f"The registry has no entity {id[:100]!r}.")
            return self._member(self._names[id])

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Nothing is kept: in memory nobody asks for reports."""
        self.member(id)

    def change_key(self, id: str, key: Key) -> Member:
        """Let a new key, vouched for by the one before, sign what comes from `key.since` on."""
        with self._lock:
            member = self.member(id)
            if key in member.keys:
                return member
            check_new_key(member, key, succession_bytes(id, key), self._sequences.get(id, 0))
            self._members[member.name] = replace(member, keys=(*member.keys, key))
            return self._members[member.name]

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """The registered entities, first come first."""
        with self._lock:
            return _page([self._member(name) for name in self._members], "entities", limit, cursor)

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record once its blobs are pinned in the vault and its weights have the tensors it tells of."""
        check_text(key, "The key of a publication")
        body = DraftBody.of(draft)
        told, digest = body.value(), Digest.of(canonical(body))
        with self._lock:
            earlier = self._published.get((told.entity, key))
            if earlier is not None:
                if earlier[0] != digest:
                    raise ConflictError("This key was used for another publication; choose a new key for each.")
                return self._records[earlier[1]]
            self._check_named(told.entity, told.parents)
            check_record(self.member(told.entity), told, record_bytes(told))
            if told.signature is not None:
                check_sequence(told, self._sequences.get(told.entity, 0))
            pin = _pin(told.architecture)
            pinned = self._architectures.get(pin, draft.architecture)
            if dict(pinned.manifest) != dict(told.architecture.manifest):
                raise ConflictError(
                    f"The architecture {told.architecture.name!r} with these arguments is pinned to other tensors by "
                    "its first publisher; publish yours under another name."
                )
            id = self._ids()
            manifests = self._vault.pin(id, told.artifacts.items())
            try:
                if WEIGHTS in told.artifacts:
                    check_weights(told, manifests[told.artifacts[WEIGHTS].digest])
            except RequestRejectedError:
                self._vault.unpin(id)
                raise
            self._architectures[pin] = pinned
            told = replace(told, task=self._tasks.setdefault(told.task, draft.task), architecture=pinned)
            record = Knowledge.from_draft(told, id=id, published_at=self._clock())
            if told.signature is not None:
                self._sequences[told.entity] = told.sequence
            self._published[told.entity, key] = digest, len(self._records)
            insort(self._best, (-record.evaluation.accuracy, len(self._records)))
            subject = _subject(record)
            self._of_subject.setdefault(subject, []).append(len(self._records))
            self._latest.set(subject, len(self._records), record)
            if record.round > 0:
                self._latest_trained.set(subject, len(self._records), record)
            self._places[id] = len(self._records)
            self._records.append(record)
            return record

    def discover(self, query: Query) -> Page[Knowledge]:
        """The knowledge that matches, in the order asked for."""
        found: list[Knowledge] = []
        with self._lock:
            for place in self._order(query):
                record = self._records[place]
                # The best come first, so nothing after the first that is too low can match.
                if query.order == "accuracy" and record.trusted.accuracy < (query.min_accuracy or 0):
                    break
                if place in self._withdrawn:
                    continue
                if _matches(record, query):
                    found.append(record)
                if len(found) > query.limit:
                    break
        items = tuple(found[: query.limit])
        more = len(found) > query.limit
        return Page(items=items, cursor=f"{query.order}:{self._places[items[-1].id]}" if more else None)

    def knowledge(self, id: str) -> Knowledge:
        """One record; KnowledgeNotFoundError when there is none."""
        with self._lock:
            place = self._places.get(id)
            if place is None:
                raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")
            return self._records[place]

    def withdraw(self, id: str) -> None:
        """Take a record back: it is found no more, only read by its id. Again: nothing."""
        with self._lock:
            record = self.knowledge(id)
            self._withdrawn.add(self._places[id])
            self._recount(record)
            self._vault.unpin(id)

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Tell what our own evaluation of somebody's knowledge found; again: what was found last."""
        told = EvaluationBody.of(evaluation).value()
        with self._lock:
            check_attestation(self.knowledge(id), self.member(entity), told)
            found = Attestation(entity=entity, evaluation=told, at=self._clock())
            self._attested.setdefault(id, {})[entity] = found

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """What entities found about this knowledge, in order of their ids."""
        with self._lock:
            return tuple(found for _, found in sorted(self._attested.get(id, {}).items()))

    def verify(self, id: str, verification: Verification) -> None:
        """Say what the hub found out; again: what it found last."""
        told = VerificationBody.of(verification).value()
        with self._lock:
            record, place = self.knowledge(id), self._places[id]
            del self._best[bisect_left(self._best, (-record.trusted.accuracy, place))]
            self._records[place] = replace(record, verification=told)
            insort(self._best, (-self._records[place].trusted.accuracy, place))
            self._recount(record)

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store what became of a delivery; the same key again changes nothing."""
        check_text(key, "The key of a delivery")
        told = DeliveryBody.of(delivery).value()
        with self._lock:
            if (told.student, key) in self._deliveries:
                return
            self._check_named(told.student, told.teachers)
            self._deliveries[told.student, key] = told

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """The recorded deliveries, first come first."""
        with self._lock:
            return _page(list(self._deliveries.values()), "deliveries", limit, cursor)

    def _order(self, query: Query) -> Iterable[int]:
        """Indices of records in the order of the query, from after its cursor on."""
        after = None if query.cursor is None else _place(query.cursor, query.order, len(self._records))
        latest = self._latest_of(query) if query.latest else None
        count = len(self._records)
        if query.order == "newest":
            return latest.newest(after) if latest else range(count if after is None else after)[::-1]
        if query.order == "oldest":
            return latest.oldest(after) if latest else range(0 if after is None else after + 1, count)
        if query.order == "classes":
            beyond = None if after is None else self._ranked(after, query)
            if latest:
                return latest.recalls.ranked(query.classes, beyond)
            ranked = sorted(self._ranked(place, query) for place in range(count))
            return (place for _, place in ranked[0 if beyond is None else bisect_right(ranked, beyond) :])
        reached = None if after is None else (-self._records[after].trusted.accuracy, after)
        if latest:
            return latest.best(reached)
        start = 0 if reached is None else bisect_right(self._best, reached)
        return (self._best[at][1] for at in range(start, len(self._best)))

    def _latest_of(self, query: Query) -> LatestRecords:
        """Where only trained knowledge is asked for, a new initial checkpoint does not hide it."""
        return self._latest_trained if query.initial is False else self._latest

    def _ranked(self, place: int, query: Query) -> tuple[int, int]:
        return -recall_rank(self._records[place].trusted, query.classes), place

    def _recount(self, record: Knowledge) -> None:
        """Find anew which record is the latest of this one's subject."""
        subject = _subject(record)
        left = [
            place
            for place in self._of_subject[subject]
            if place not in self._withdrawn and _in_sight(self._records[place], Query())
        ]
        trained = [place for place in left if self._records[place].round > 0]
        for latest, places in ((self._latest, left), (self._latest_trained, trained)):
            latest.clear(subject)
            if places:
                latest.set(subject, places[-1], self._records[places[-1]])

    def _member(self, name: str) -> Member:
        member = self._members[name]
        return replace(member, sequence=self._sequences.get(member.id, 0))

    def _check_named(self, entity: str, named: Iterable[str]) -> None:
        if entity not in self._names:
            raise RequestRejectedError(f"No entity {entity[:100]!r} is registered here; register first.")
        missing = [id for id in named if id not in self._places]
        if missing:
            raise RequestRejectedError(
                f"The registry has no knowledge {min(missing)[:100]!r}; name only what it has."
            )


def _matches(record: Knowledge, query: Query) -> bool:
    return (
        (query.task is None or record.task.name == query.task)
        and (query.test_set is None or record.evaluation.test_set == query.test_set)
        and (query.min_accuracy is None or record.trusted.accuracy >= query.min_accuracy)
        and (query.exclude_entity is None or record.entity != query.exclude_entity)
        and (query.initial is None or query.initial == (record.round == 0))
        and _in_sight(record, query)
        and (query.origin is None or record.origin == query.origin)
    )


def _in_sight(record: Knowledge, query: Query) -> bool:
    """What the hub quarantined is found only by those who ask for it."""
    standing = record.verification and record.verification.standing
    if query.pending:
        return standing is None
    return standing is query.standing if query.standing else standing is not Standing.QUARANTINED


def _subject(record: Knowledge) -> Subject:
    """Whose it is, and on which task."""
    return record.entity, record.task.name, record.evaluation.test_set


def _pin(architecture: Architecture) -> bytes:
    """What one manifest is pinned to: the name and the arguments, their types included."""
    # Who tells of no tensors keeps nobody from telling which they are.
    told = b"" if architecture.manifest else b"no tensors "
    return told + canonical(ArchitectureBody.of(architecture).model_copy(update={"manifest": {}}))


def _page(items: list[T], listing: str, limit: int, cursor: str | None) -> Page[T]:
    check_limit(limit)
    start = 0 if cursor is None else _place(cursor, listing, len(items)) + 1
    end = start + limit
    return Page(items=tuple(items[start:end]), cursor=f"{listing}:{end - 1}" if end < len(items) else None)


def _place(cursor: str, listing: str, length: int) -> int:
    """The place of the last item of the page before; RequestRejectedError when the cursor is not of this listing."""
    name, _, digits = cursor.partition(":")
    if name != listing or not (digits.isascii() and digits.isdecimal()) or len(digits) > 18 or int(digits) >= length:
        raise foreign_cursor()
    return int(digits)

"""The Registry port in memory, for simulations and tests; it behaves like the service."""

import secrets
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from threading import RLock
from typing import TypeVar

from kuber.client.memory.latest import LatestRecords, RecallIndex, SortedRecallIndex, Subject
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.entity_names import check_distinct, normalised, skeletons
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Draft, Knowledge
from kuber.domain.member import HUB_LENGTH, Key, Member
from kuber.domain.message_limits import check_key_count, check_report
from kuber.domain.ports import VaultAdmin
from kuber.domain.publication_checks import (
    check_attestation,
    check_known_manifest,
    check_missing,
    check_owner,
    check_pinned,
    check_repeated,
    check_storable,
    check_text,
    check_weights,
    not_registered,
)
from kuber.domain.query import Page, Query, check_limit, invalid_cursor
from kuber.domain.ranking import recall_rank
from kuber.domain.significance import is_clearly_worse, proportion
from kuber.domain.task import Task
from kuber.domain.verification import Attestation, Standing, Verification
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError
from kuber.signing import check_new_key, check_record, check_sequence
from kuber.wire.base import canonical
from kuber.wire.record_size import check_size
from kuber.wire.registry import ArchitectureBody, DeliveryBody, DraftBody, EvaluationBody, VerificationBody
from kuber.wire.signing_payloads import prior_bytes, record_bytes, succession_bytes

T = TypeVar("T")


class MemoryRegistry:
    """The Registry port in memory. Safe to use from several threads; clock and ids are arguments."""

    def __init__(
        self,
        *,
        vault: VaultAdmin,
        clock: Callable[[], datetime],
        ids: Callable[[], str],
        recalls: Callable[[], RecallIndex] = SortedRecallIndex,
        hub: str | None = None,
    ) -> None:
        """`recalls` makes the index that ranks by classes. `hub` is the id of the hub; if not given, a random one."""
        self._hub = hub or secrets.token_hex(HUB_LENGTH // 2)
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._lock = RLock()
        self._members: dict[str, Member] = {}  # by name, earliest first
        self._names: dict[str, str] = {}  # id -> name
        self._alike: dict[str, str] = {}  # skeleton -> the name that has it
        self._classes: dict[str, set[int]] = {}  # entity id -> numbers of classes of its records' tasks
        self._sequences: dict[str, int] = {}  # entity id -> sequence of its last signed record
        self._records: list[Knowledge] = []
        self._places: dict[str, int] = {}  # id -> index into _records
        self._best: list[tuple[float, int]] = []  # (-accuracy, index), sorted: older first among equals
        self._latest = LatestRecords(recalls)
        self._latest_sound = LatestRecords(recalls)  # without initial checkpoints
        self._of_subject: dict[Subject, list[int]] = {}  # indices, oldest first
        self._published: dict[tuple[str, str], tuple[Digest, int]] = {}  # (entity, key) -> draft, index
        self._withdrawn: set[int] = set()  # indices into _records
        self._first_of: dict[Digest, int] = {}  # index of the first trained record, by file
        self._attested: dict[str, dict[str, Attestation]] = {}  # record id -> entity id -> attestation
        # Records share their tasks and architectures: less memory, and quick to compare.
        self._tasks: dict[Task, Task] = {}
        self._architectures: dict[bytes, Architecture] = {}  # by name and arguments, as pinned by the first record
        self._deliveries: dict[tuple[str, str], Delivery] = {}  # by (student, key)

    def __repr__(self) -> str:
        return f"<MemoryRegistry: entities={len(self._members)}, records={len(self._records) - len(self._withdrawn)}>"

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name. Idempotent for the same key."""
        with self._lock:
            if name not in self._members:
                name = normalised(name)
            if name not in self._members:
                alike = skeletons(name)
                check_distinct(name, next((self._alike[text] for text in alike if text in self._alike), None))
                self._alike |= dict.fromkeys(alike, name)
                keys = () if public_key is None else (Key(public_key=public_key),)
                member = Member(id=self._ids(), name=name, registered_at=self._clock(), keys=keys)
                self._members[name] = member
                self._names[member.id] = name
            check_owner(self._members[name], public_key)
            return self._member(name)

    def hub_id(self) -> str:
        """Return the id of the hub."""
        return self._hub

    def member(self, id: str) -> Member:
        """Return the entity with this id and its keys. KnowledgeNotFoundError when there is none."""
        with self._lock:
            if id not in self._names:
                raise KnowledgeNotFoundError(f"The registry has no entity {id[:100]!r}.")
            return self._member(self._names[id])

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Check the report; reports are not stored."""
        self.member(id)
        if evaluation is not None:
            check_report(evaluation, self._classes.get(id, ()))

    def change_key(self, id: str, key: Key) -> Member:
        """Add a key, signed with the previous one, for records from sequence `key.since` on."""
        with self._lock:
            member = self.member(id)
            if key in member.keys:
                return member
            check_key_count(member)
            check_new_key(member, key, succession_bytes(id, key), self._sequences.get(id, 0), hub=self._hub)
            self._members[member.name] = replace(member, keys=(*member.keys, key))
            return self._members[member.name]

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """Return the registered entities, earliest first."""
        with self._lock:
            return _page([self._member(name) for name in self._members], "entities", limit, cursor)

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record once its blobs are pinned in the vault and its weights match the manifest."""
        check_text(key, "The key of a publication")
        body = DraftBody.of(draft)
        check_storable(draft.architecture)
        content = canonical(body)
        check_size(body, len(content))
        sent, digest = body.value(), Digest.of(content)
        with self._lock:
            earlier = self._published.get((sent.entity, key))
            if earlier is not None:
                check_repeated(earlier[0], digest)
                return self._records[earlier[1]]
            self._check_names(sent.entity, sent.parents)
            check_record(self.member(sent.entity), sent, record_bytes(sent), prior=prior_bytes(sent), hub=self._hub)
            if sent.signature is not None:
                check_sequence(sent, self._sequences.get(sent.entity, 0))
            pin, pinned = self._pinned(sent.architecture, draft.architecture)
            id = self._ids()
            manifests = self._vault.pin(id, sent.artifacts.items())
            try:
                if WEIGHTS in sent.artifacts:
                    check_weights(sent, manifests[sent.artifacts[WEIGHTS].digest])
            except RequestRejectedError:
                self._vault.unpin(id)
                raise
            self._architectures[pin] = pinned
            shared = replace(sent, task=self._tasks.setdefault(sent.task, draft.task), architecture=pinned)
            record, place = Knowledge.from_draft(shared, id=id, published_at=self._clock()), len(self._records)
            record = replace(record, copy_of=self._copied_record(record))
            if sent.signature is not None:
                self._sequences[sent.entity] = sent.sequence
            self._published[sent.entity, key] = digest, place
            self._classes.setdefault(sent.entity, set()).add(sent.task.classes)
            insort(self._best, (-record.evaluation.accuracy, place))
            subject = _subject(record)
            self._of_subject.setdefault(subject, []).append(place)
            self._places[id] = place
            self._records.append(record)
            self._latest.set(subject, place, record)
            if record.round > 0 and self._is_sound(place):
                self._latest_sound.set(subject, place, record)
            for artifact in record.artifacts.values() if record.round else ():
                self._first_of.setdefault(artifact.digest, place)
            return record

    def discover(self, query: Query) -> Page[Knowledge]:
        """Return the matching knowledge, in the order of the query."""
        found: list[Knowledge] = []
        with self._lock:
            for place in self._order(query):
                record = self._records[place]
                # The best come first, so no record after the first that is too low can match.
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
        """Return one record. KnowledgeNotFoundError when there is none."""
        with self._lock:
            place = self._places.get(id)
            if place is None:
                raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")
            return self._records[place]

    def withdraw(self, id: str) -> None:
        """Withdraw a record: it is no longer discovered, only read by its id. Idempotent."""
        with self._lock:
            record = self.knowledge(id)
            self._withdrawn.add(self._places[id])
            self._update_latest(record)
            self._vault.unpin(id)

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Store this entity's own evaluation of another's knowledge, in place of its previous one."""
        sent = EvaluationBody.of(evaluation).value()
        with self._lock:
            check_attestation(self.knowledge(id), self.member(entity), sent)
            attestation = Attestation(entity=entity, evaluation=sent, at=self._clock())
            self._attested.setdefault(id, {})[entity] = attestation

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """Return the entities' attestations of this knowledge, in order of entity id."""
        with self._lock:
            return tuple(found for _, found in sorted(self._attested.get(id, {}).items()))

    def verify(self, id: str, verification: Verification) -> None:
        """Store the hub's verification of a record, in place of its previous one."""
        sent = VerificationBody.of(verification).value()
        with self._lock:
            record, place = self.knowledge(id), self._places[id]
            del self._best[bisect_left(self._best, (-record.trusted.accuracy, place))]
            self._records[place] = replace(record, verification=sent)
            insort(self._best, (-self._records[place].trusted.accuracy, place))
            self._update_latest(record)

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store the outcome of a delivery. Idempotent for the same key."""
        check_text(key, "The key of a delivery")
        sent = DeliveryBody.of(delivery).value()
        with self._lock:
            if (sent.student, key) in self._deliveries:
                return
            self._check_names(sent.student, sent.teachers)
            self._deliveries[sent.student, key] = sent

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """Return the recorded deliveries, earliest first."""
        with self._lock:
            return _page(list(self._deliveries.values()), "deliveries", limit, cursor)

    def _order(self, query: Query) -> Iterable[int]:
        """Yield indices of records in the order of the query, starting after its cursor."""
        after = None if query.cursor is None else _place(query.cursor, query.order, len(self._records))
        latest = self._latest_of(query) if query.latest else None
        count = len(self._records)
        if query.order == "newest":
            return latest.newest(after) if latest else range(count if after is None else after)[::-1]
        if query.order == "oldest":
            return latest.oldest(after) if latest else range(0 if after is None else after + 1, count)
        if query.order == "classes":
            rank = None if after is None else self._ranked(after, query)
            if latest:
                return latest.recalls.ranked(query.classes, rank)
            ranked = sorted(self._ranked(place, query) for place in range(count))
            return (place for _, place in ranked[0 if rank is None else bisect_right(ranked, rank) :])
        last = None if after is None else (-self._records[after].trusted.accuracy, after)
        if latest:
            return latest.best(last)
        start = 0 if last is None else bisect_right(self._best, last)
        return (self._best[at][1] for at in range(start, len(self._best)))

    def _latest_of(self, query: Query) -> LatestRecords:
        """Return the latest records of the query; initial checkpoints hide no sound record."""
        return self._latest_sound if query.only_sound else self._latest

    def _ranked(self, place: int, query: Query) -> tuple[int, int]:
        return -recall_rank(self._records[place].trusted, query.classes), place

    def _update_latest(self, record: Knowledge) -> None:
        """Find the latest record again for the subject of this record."""
        subject = _subject(record)
        visible = [place for place in self._of_subject[subject] if self._is_visible(place)]
        trained = [place for place in visible if self._records[place].round > 0]
        newest = next(reversed(visible), None)
        sound = next((place for place in reversed(trained) if self._is_sound(place)), None)
        for latest, found in ((self._latest, newest), (self._latest_sound, sound)):
            latest.clear(subject)
            if found is not None:
                latest.set(subject, found, self._records[found])

    def _is_sound(self, place: int) -> bool:
        """Return whether a record is not clearly worse than the best earlier one of the same origin."""
        record = self._records[place]
        earlier = [
            self._records[other].trusted
            for other in self._of_subject[_subject(record)]
            if other < place and self._records[other].round > 0 and self._is_visible(other)
            if self._records[other].origin == record.origin
        ]
        if not earlier:
            return True
        best = max(earlier, key=lambda found: found.accuracy)
        return not is_clearly_worse(proportion(best), proportion(record.trusted))

    def _pinned(self, sent: Architecture, architecture: Architecture) -> tuple[bytes, Architecture]:
        """Return the pin of a sent architecture, and the object that its records share: by default this one.

        A pin goes with its last visible record. ConflictError when it is pinned to another manifest.
        """
        check_known_manifest(sent)
        pin = _pin(sent)
        pinned = self._architectures.get(pin, architecture)
        if dict(pinned.manifest) != dict(sent.manifest):
            records = enumerate(self._records)
            if any(record.architecture is pinned and self._is_visible(place) for place, record in records):
                check_pinned(sent, pinned.manifest)
            return pin, architecture
        return pin, pinned

    def _is_visible(self, place: int) -> bool:
        return place not in self._withdrawn and _has_standing(self._records[place], Query())

    def _copied_record(self, record: Knowledge) -> str | None:
        """Return the id of the first record with a file of this one, if another entity published it."""
        if record.round == 0:
            return None
        first = [
            self._first_of[artifact.digest]
            for artifact in record.artifacts.values()
            if artifact.digest in self._first_of
        ]
        others = [place for place in first if self._records[place].entity != record.entity]
        return self._records[min(others)].id if others else None

    def _member(self, name: str) -> Member:
        member = self._members[name]
        return replace(member, sequence=self._sequences.get(member.id, 0))

    def _check_names(self, entity: str, records: Iterable[str]) -> None:
        if entity not in self._names:
            raise not_registered(entity)
        check_missing(id for id in records if id not in self._places)


def _matches(record: Knowledge, query: Query) -> bool:
    return (
        (query.task is None or record.task.name == query.task)
        and (query.test_set is None or record.evaluation.test_set == query.test_set)
        and (query.min_accuracy is None or record.trusted.accuracy >= query.min_accuracy)
        and (query.exclude_entity is None or record.entity != query.exclude_entity)
        and (query.initial is None or query.initial == (record.round == 0))
        and _has_standing(record, query)
        and (query.origin is None or record.origin == query.origin)
    )


def _has_standing(record: Knowledge, query: Query) -> bool:
    """Return whether the record has the query's standing; quarantined records match only by theirs."""
    standing = record.verification and record.verification.standing
    if query.pending:
        return standing is None
    return standing is query.standing if query.standing else standing is not Standing.QUARANTINED


def _subject(record: Knowledge) -> Subject:
    """Return the subject of a record: its publisher and task."""
    return record.entity, record.task.name, record.evaluation.test_set


def _pin(architecture: Architecture) -> bytes:
    """Return the key that a manifest is pinned to: the name and the arguments with their types."""
    # A record without a manifest does not pin the tensors of the records that have one.
    prefix = b"" if architecture.manifest else b"no tensors "
    return prefix + canonical(ArchitectureBody.of(architecture).model_copy(update={"manifest": {}}))


def _page(items: list[T], listing: str, limit: int, cursor: str | None) -> Page[T]:
    check_limit(limit)
    start = 0 if cursor is None else _place(cursor, listing, len(items)) + 1
    end = start + limit
    return Page(items=tuple(items[start:end]), cursor=f"{listing}:{end - 1}" if end < len(items) else None)


def _place(cursor: str, listing: str, length: int) -> int:
    """Return the position of the last item of the previous page. RequestRejectedError for an invalid cursor."""
    name, _, digits = cursor.partition(":")
    if name != listing or not (digits.isascii() and digits.isdecimal()) or len(digits) > 18 or int(digits) >= length:
        raise invalid_cursor()
    return int(digits)

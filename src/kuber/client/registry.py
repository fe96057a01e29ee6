"""The Registry port over HTTP."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from kuber.client.credentials import Credentials
from kuber.client.http import HttpService, Trusted
from kuber.domain.auth import AuditEntry
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.domain.query import MAX_LIMIT, Page, Query, all_pages
from kuber.domain.suspicion import Suspicion
from kuber.domain.verification import Attestation, Verification
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceError,
)
from kuber.signing import check_signature
from kuber.wire.base import sentence
from kuber.wire.registry import (
    AttestationBody,
    AuditBody,
    ChallengeBody,
    ChallengeRequest,
    DeliveryBody,
    DraftBody,
    EnrolledBody,
    EnrolmentBody,
    EvaluationBody,
    KeyBody,
    KnowledgeBody,
    MemberBody,
    PageBody,
    RecordPageBody,
    ReportBody,
    SuspicionBody,
    VerificationBody,
)
from kuber.wire.sent_blobs import MAX_SENT_BYTES, encode_blobs
from kuber.wire.signing_payloads import challenge_bytes, enrolment_bytes

N = TypeVar("N", Knowledge, Member)  # what has an id

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


def record_path(id: str) -> str:
    """Return the path of the record with this id. KnowledgeNotFoundError for an invalid id."""
    if not _ID.fullmatch(id):
        raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")
    return f"/v1/knowledge/{id}"


def query_parameters(query: Query) -> dict[str, Any]:
    """Return the URL parameters of a query: the fields that differ from their defaults."""
    values = {field.name: (getattr(query, field.name), field.default) for field in fields(Query)}
    return {name: value for name, (value, default) in values.items() if value != default}


class HttpRegistry(HttpService):
    """The registry at `url`, as `kuber.domain.ports.RegistryAdmin`.

    Raises the errors of the port, ServiceUnavailableError when the registry does not answer for `patience` seconds,
    and CorruptKnowledgeError for an invalid record.
    """

    def __init__(
        self, url: str, *, credentials: Credentials | None = None, patience: float = 10.0, ca: Trusted = None
    ) -> None:
        """Without credentials the client makes a key, which it does not store."""
        super().__init__(url, service="registry", patience=patience, credentials=credentials, ca=ca)
        self._hub: str | None = None  # id that the registry has proved
        self._takes_blobs = True  # until a record is refused with its blobs, and accepted without
        self._refused: str | None = None  # key of the last publication that was refused with its blobs

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name with the key of the credentials. Idempotent, with a new token each time.

        The request is signed for the hub, and for a nonce that the hub takes once. Raises ServiceError when the
        registry does not prove which hub it is, ConflictError when it passes for one that is known elsewhere.
        """
        identity = self.credentials.identity
        if public_key not in (None, identity.public_key):
            raise ConflictError("Over HTTP an entity joins with the key of its credentials; pass no other.")
        try:
            wish = EnrolmentBody(
                name=name, public_key=identity.public_key, at=utc_now(), invitation=self.credentials.invitation
            )
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None

        def signed() -> bytes:
            challenge = self._challenge()
            unsigned = wish.model_copy(update={"hub": challenge.hub, "nonce": challenge.nonce})
            signature = identity.sign(enrolment_bytes(unsigned))
            return unsigned.model_copy(update={"signature": signature}).model_dump_json().encode()

        answer = self.request("POST", "/v1/entities", content=signed, idempotent=True, anonymous=True)
        enrolled = self.parse(EnrolledBody.read, answer.data)
        member = enrolled.member.value()
        self.credentials.take(member.id, enrolled.token, lambda: self.register(name), hub=self._hub)
        return member

    def hub_id(self) -> str | None:
        """Return the id that the hub has proved, or else is known here by, or else says; None for an older one."""
        if self._hub is None:
            self._hub = self.credentials.hub or self.health().hub
        return self._hub

    def _challenge(self) -> ChallengeBody:
        """Return a nonce to sign, once the registry has proved its id with the signature of one of ours."""
        ours = secrets.token_hex(32)
        body = self.message(ChallengeRequest, nonce=ours)
        try:
            answer = self.request("POST", "/v1/challenges", content=body, idempotent=True, anonymous=True)
        except RequestRejectedError as error:
            raise ServiceError(
                f"The registry at {self.url} does not prove which hub it is, as older versions do not; have it "
                f"upgraded. ({error.message})"
            ) from None
        found = self.parse(ChallengeBody.read, answer.data)
        try:
            check_signature(found.hub, found.signature, challenge_bytes(found.hub, found.nonce, ours), "The answer")
        except CorruptKnowledgeError:
            raise ServiceError(
                f"The registry at {self.url} does not prove that it is hub {found.hub[:12]}; do not trust it."
            ) from None
        self.credentials.check_hub(found.hub)
        self._hub = found.hub
        return found

    def member(self, id: str) -> Member:
        """Return the entity with this id and its keys. KnowledgeNotFoundError when there is none."""
        if not _ID.fullmatch(id):
            raise KnowledgeNotFoundError(f"The registry has no entity {id[:100]!r}.")
        answer = self.request("GET", f"/v1/entities/{id}")
        return self._same(id, self.parse(MemberBody.read, answer.data, CorruptKnowledgeError).value())

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Report that the entity is alive, its round, and how good its model is."""
        counts = None if evaluation is None else EvaluationBody.of(evaluation)
        body = self.message(ReportBody, round=round, evaluation=counts)
        self.request("POST", f"/v1/entities/{id}/reports", content=body, idempotent=True, entity=id)

    def change_key(self, id: str, key: Key) -> Member:
        """Add a key, signed with the previous one, for records from sequence `key.since` on."""
        content = KeyBody.of(key).model_dump_json().encode()
        answer = self.request("POST", f"/v1/entities/{id}/keys", content=content, idempotent=True, entity=id)
        return self.parse(MemberBody.read, answer.data).value()

    def withdraw(self, id: str) -> None:
        """Withdraw one's own record: it is no longer discovered, only read by its id. Idempotent."""
        record = self.knowledge(id)
        self.request("DELETE", f"/v1/knowledge/{record.id}", idempotent=True, entity=record.entity)

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """Return the registered entities, earliest first."""
        answer = self.request("GET", "/v1/entities", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[MemberBody].read, answer.data).value()

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record and return it. Idempotent for the same draft and key."""
        published = self._publish(draft, DraftBody.of(draft).model_dump_json(exclude_none=True), key=key)
        if self._refused == key:  # with its blobs
            self._takes_blobs = False
        return published

    def publish_with(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> Knowledge | None:
        """Store a record and all its blobs in one request, as `publish` does.

        Return None if they are not small, or the hub, of an older version for example, refuses them together: then
        put the blobs into the vault first.
        """
        if not self._takes_blobs or not 0 < sum(map(len, blobs)) <= MAX_SENT_BYTES:
            return None
        record = DraftBody.of(draft).model_dump_json(exclude_none=True)
        try:
            return self._publish(draft, f'{record[:-1]},"blobs":{json.dumps(encode_blobs(blobs))}}}', key=key)
        except RequestRejectedError:
            self._refused = key
            return None

    def _publish(self, draft: Draft, body: str, *, key: str) -> Knowledge:
        answer = self.request("POST", "/v1/knowledge", content=body.encode(), key=key, entity=draft.entity)
        return self.parse(KnowledgeBody.read, answer.data, CorruptKnowledgeError).value()

    def watch(
        self, *, after: str | None = None, task: str | None = None, seconds: float | None = None
    ) -> Page[AuditEntry]:
        """Return the publications since the page with the cursor `after`, on this task or on all.

        Waits up to `seconds`, by default and at most 20, for the first. Without `after` it returns an empty page at
        once, or waits the given `seconds` for a new publication. The page always has a cursor. Thousands of clients
        may wait: one poll of the database serves all.
        """
        if seconds is None:
            seconds = 0.0 if after is None else 20.0
        params = {"after": after, "task": task, "seconds": seconds}
        answer = self.request("GET", "/v1/news", params=params)
        return self.parse(PageBody[AuditBody].read, answer.data).value()

    def discover(self, query: Query) -> Page[Knowledge]:
        """Return the matching knowledge, in the order of the query."""
        answer = self.request("GET", "/v1/knowledge", params=query_parameters(query))
        return self.parse(RecordPageBody.read, answer.data, CorruptKnowledgeError).value()

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Store this entity's own evaluation of another's knowledge, in place of its previous one."""
        content = EvaluationBody.of(evaluation).model_dump_json().encode()
        self.request("POST", f"{record_path(id)}/attestations", content=content, idempotent=True, entity=entity)

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """Return the entities' attestations of this knowledge, in order of entity id; the first thousand."""

        def page(cursor: str | None) -> Page[Attestation]:
            answer = self.request("GET", f"{record_path(id)}/attestations", params={"cursor": cursor})
            found: Page[Attestation] = self.parse(PageBody[AttestationBody].read, answer.data).value()
            return found

        return tuple(islice(all_pages(page), MAX_LIMIT))

    def suspicions(self) -> tuple[Suspicion, ...]:
        """Return the records that attestations contradict, and the copies of others; newest first."""
        answer = self.request("GET", "/v1/suspicions")
        return self.parse(PageBody[SuspicionBody].read, answer.data).value().items

    def verify(self, id: str, verification: Verification) -> None:
        """Store the hub's verification of a record, in place of its previous one."""
        content = VerificationBody.of(verification).model_dump_json().encode()
        self.request("PUT", f"{record_path(id)}/verification", content=content)

    def knowledge(self, id: str) -> Knowledge:
        """Return one record. KnowledgeNotFoundError when there is none."""
        answer = self.request("GET", record_path(id))
        return self._same(id, self.parse(KnowledgeBody.read, answer.data, CorruptKnowledgeError).value())

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store the outcome of a delivery. Idempotent for the same key."""
        content = DeliveryBody.of(delivery).model_dump_json().encode()
        self.request("POST", "/v1/deliveries", content=content, key=key, entity=delivery.student)

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """Return the recorded deliveries, earliest first."""
        answer = self.request("GET", "/v1/deliveries", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[DeliveryBody].read, answer.data, CorruptKnowledgeError).value()

    def _same(self, id: str, found: N) -> N:
        """Return what the registry answered. CorruptKnowledgeError unless it has the id that was asked for."""
        if found.id != id:
            raise CorruptKnowledgeError(
                f"The registry at {self.url} answers for {id[:100]!r} with {found.id[:100]!r}; do not trust it."
            )
        return found

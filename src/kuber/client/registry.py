"""The Registry port over HTTP."""

import re
from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from kuber.client.credentials import Credentials
from kuber.client.http import HttpService, Trusted
from kuber.domain.auth import AuditEntry
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.domain.query import Page, Query
from kuber.domain.verification import Attestation, Verification
from kuber.errors import ConflictError, CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError
from kuber.wire import (
    AttestationBody,
    AuditBody,
    DeliveryBody,
    DraftBody,
    EnrolledBody,
    EnrolmentBody,
    EvaluationBody,
    KeyBody,
    KnowledgeBody,
    MemberBody,
    PageBody,
    ReportBody,
    VerificationBody,
    enrolment_bytes,
    sentence,
)

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


def record_path(id: str) -> str:
    """Where the record with this id is; KnowledgeNotFoundError for what is no id."""
    if not _ID.fullmatch(id):
        raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")  # nor could a path name it
    return f"/v1/knowledge/{id}"


def query_parameters(query: Query) -> dict[str, Any]:
    """Return the URL parameters of a query: the fields that differ from their defaults."""
    values = {field.name: (getattr(query, field.name), field.default) for field in fields(Query)}
    return {name: value for name, (value, default) in values.items() if value != default}


class HttpRegistry(HttpService):
    """The registry at `url`, as `kuber.domain.ports.Registry`.

    Raises what the port tells of, ServiceUnavailableError when no answer comes within `patience` seconds, and
    CorruptKnowledgeError for a record that is not sound.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        patience: float = 10.0,
        ca: Trusted = None,
    ) -> None:
        """Without credentials the client has a key of its own, for as long as it lives."""
        super().__init__(url, service="registry", patience=patience, credentials=credentials, ca=ca)

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name, with the key of our credentials and no other; again: the same member, a new token."""
        identity = self.credentials.identity
        if public_key not in (None, identity.public_key):
            raise ConflictError("Over HTTP an entity joins with the key of its credentials, and no other.")
        try:
            wish = EnrolmentBody(
                name=name,
                public_key=identity.public_key,
                at=utc_now(),
                invitation=self.credentials.invitation,
            )
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None
        signed = wish.model_copy(update={"signature": identity.sign(enrolment_bytes(wish))})
        answer = self.ask("POST", "/v1/entities", content=signed.model_dump_json().encode(), repeatable=True)
        enrolled = self.parse(EnrolledBody.read, answer.data)
        member = enrolled.member.value()
        self.credentials.take(member.id, enrolled.token, lambda: self._renew(name))
        return member

    def member(self, id: str) -> Member:
        """The entity with this id, with its keys; KnowledgeNotFoundError when there is none."""
        if not _ID.fullmatch(id):
            raise KnowledgeNotFoundError(f"The registry has no entity {id[:100]!r}.")
        answer = self.ask("GET", f"/v1/entities/{id}")
        return self.parse(MemberBody.read, answer.data).value()

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Tell that the entity lives, in which round it is, and how good its model is."""
        told = None if evaluation is None else EvaluationBody.of(evaluation)
        body = self.message(ReportBody, round=round, evaluation=told)
        self.ask("POST", f"/v1/entities/{id}/reports", content=body, repeatable=True, acting=id)

    def change_key(self, id: str, key: Key) -> Member:
        """Let a new key, vouched for by the one before, sign what comes from `key.since` on."""
        content = KeyBody.of(key).model_dump_json().encode()
        answer = self.ask("POST", f"/v1/entities/{id}/keys", content=content, repeatable=True, acting=id)
        return self.parse(MemberBody.read, answer.data).value()

    def withdraw(self, id: str) -> None:
        """Take one's own record back: it is found no more, only read by its id. Again: nothing."""
        record = self.knowledge(id)
        self.ask("DELETE", f"/v1/knowledge/{record.id}", repeatable=True, acting=record.entity)

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """The registered entities, first come first."""
        answer = self.ask("GET", "/v1/entities", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[MemberBody].read, answer.data).value()

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record; the same draft again under the same key gives the record of the first time."""
        body = DraftBody.of(draft).model_dump_json().encode()
        answer = self.ask("POST", "/v1/knowledge", content=body, key=key, acting=draft.entity)
        return self.parse(KnowledgeBody.read, answer.data, CorruptKnowledgeError).value()

    def watch(
        self, *, after: str | None = None, task: str | None = None, seconds: float | None = None
    ) -> Page[AuditEntry]:
        """What was published, on this task or on any, since the page whose cursor `after` is.

        Waits up to `seconds`, at most and usually 20, for the first. Without `after` it says at once where one is, or
        waits the seconds that are given for what is yet to come. The cursor is always there. Thousands may wait: the
        registry looks once for all of them.
        """
        if seconds is None:
            seconds = 0.0 if after is None else 20.0
        params = {"after": after, "task": task, "seconds": seconds}
        answer = self.ask("GET", "/v1/news", params=params)
        return self.parse(PageBody[AuditBody].read, answer.data).value()

    def discover(self, query: Query) -> Page[Knowledge]:
        """The knowledge that matches, in the order asked for."""
        answer = self.ask("GET", "/v1/knowledge", params=query_parameters(query))
        return self.parse(PageBody[KnowledgeBody].read, answer.data, CorruptKnowledgeError).value()

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Tell what our own evaluation of somebody's knowledge found; again: what was found last."""
        content = EvaluationBody.of(evaluation).model_dump_json().encode()
        self.ask("POST", f"{record_path(id)}/attestations", content=content, repeatable=True, acting=entity)

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """What entities found about this knowledge, in order of their ids."""
        answer = self.ask("GET", f"{record_path(id)}/attestations")
        return self.parse(PageBody[AttestationBody].read, answer.data).value().items

    def verify(self, id: str, verification: Verification) -> None:
        """Say what the hub found out; again: what it found last."""
        content = VerificationBody.of(verification).model_dump_json().encode()
        self.ask("PUT", f"{record_path(id)}/verification", content=content)

    def knowledge(self, id: str) -> Knowledge:
        """One record; KnowledgeNotFoundError when there is none."""
        answer = self.ask("GET", record_path(id))
        return self.parse(KnowledgeBody.read, answer.data, CorruptKnowledgeError).value()

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store what became of a delivery; the same key again changes nothing."""
        content = DeliveryBody.of(delivery).model_dump_json().encode()
        self.ask("POST", "/v1/deliveries", content=content, key=key, acting=delivery.student)

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """The recorded deliveries, first come first."""
        answer = self.ask("GET", "/v1/deliveries", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[DeliveryBody].read, answer.data, CorruptKnowledgeError).value()

    def _renew(self, name: str) -> None:
        self.register(name)

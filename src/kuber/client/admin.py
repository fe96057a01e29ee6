"""Calls of a hub's operator to its registry."""

import re
from collections.abc import Iterator
from datetime import datetime

from kuber.client.credentials import Credentials
from kuber.client.http import HttpService, Trusted
from kuber.client.registry import record_path
from kuber.client.short_ids import entity_of
from kuber.domain.architecture_pin import ArchitecturePin
from kuber.domain.auth import OPERATOR_TOKEN_FILE, AuditEntry, Invitation
from kuber.domain.member import Member
from kuber.domain.query import MAX_LIMIT, Page, all_pages
from kuber.domain.suspicion import Suspicion
from kuber.errors import KnowledgeNotFoundError, NotAuthorizedError
from kuber.wire.registry import (
    AuditBody,
    CodeBody,
    InvitationBody,
    InvitationRequest,
    MemberBody,
    PageBody,
    PinnedArchitectureBody,
    QuarantineRequest,
    SuspicionBody,
)
from kuber.wire.status import RegistryStatusBody


class AdminClient(HttpService):
    """The registry at `url`, with the operator's token.

    Raises NotAuthorizedError when the token is not the operator's, ServiceUnavailableError when the registry does not
    answer within `patience` seconds.
    """

    def __init__(self, url: str, token: str, *, patience: float = 10.0, ca: Trusted = None) -> None:
        super().__init__(url, service="registry", patience=patience, credentials=Credentials(token=token), ca=ca)

    def check_token(self) -> None:
        """Raise NotAuthorizedError unless the token is the operator's."""
        try:
            self.audit(limit=1)  # a cheap request that is allowed to the operator only
        except NotAuthorizedError:
            raise NotAuthorizedError(
                f"This token is not the operator's; use the one in {OPERATOR_TOKEN_FILE} in the registry's folder."
            ) from None

    def status(self, *, timeout: float | None = None) -> RegistryStatusBody:
        """Return numbers of the registry: entities, records, events, sizes and the last backup."""
        return self.parse(RegistryStatusBody.read, self.request("GET", "/v1/status", timeout=timeout).data)

    def invite(self, name: str, *, days: float = 7.0) -> str:
        """Invite an entity; return the code, which it can use once within so many days."""
        body = self.message(InvitationRequest, name=name, days=days)
        return self.parse(CodeBody.read, self.request("POST", "/v1/invitations", content=body).data).code

    def allow_new_key(self, entity: str, *, days: float = 7.0) -> str:
        """Allow a new key for the entity with this id, whose key is lost; return the code that its owner joins with.

        Raises KnowledgeNotFoundError when there is no such entity.
        """
        answer = self.request("POST", f"/v1/entities/{entity}/rekey", params={"days": days})
        return self.parse(CodeBody.read, answer.data).code

    def invitations(self) -> tuple[Invitation, ...]:
        """Return the last invitations, without their codes."""
        page = self.parse(PageBody[InvitationBody].read, self.request("GET", "/v1/invitations").data)
        return tuple(item.value() for item in page.items)

    def void_invitations(self) -> None:
        """Make all open invitations useless."""
        self.request("DELETE", "/v1/invitations", idempotent=True)

    def entity(self, name: str) -> Member:
        """Return the entity of this name or short id. KnowledgeNotFoundError when there is none."""
        return entity_of(self, name)

    def entities(self) -> Iterator[Member]:
        """Yield all entities, earliest first."""
        return all_pages(self._members)

    def _members(self, cursor: str | None) -> Page[Member]:
        answer = self.request("GET", "/v1/entities", params={"limit": MAX_LIMIT, "cursor": cursor})
        page: Page[Member] = self.parse(PageBody[MemberBody].read, answer.data).value()
        return page

    def revoke(self, entity: str, *, block: bool = False) -> None:
        """Revoke the tokens of the entity with this id; with `block` it cannot get a new one."""
        params = {"block": "true" if block else None}
        self.request("DELETE", f"/v1/entities/{entity}/tokens", params=params, idempotent=True)

    def withdraw(self, knowledge: str) -> None:
        """Withdraw a record of any publisher."""
        self.request("DELETE", record_path(knowledge), idempotent=True)

    def quarantine(self, knowledge: str, reason: str) -> None:
        """Quarantine a record until it is released: it is no longer discovered, whatever the verifier finds.

        `reason` is one sentence; the last one holds. Raises KnowledgeNotFoundError when there is no such record,
        RequestRejectedError for a blank or too long reason.
        """
        body = self.message(QuarantineRequest, reason=reason)
        self.request("POST", f"{record_path(knowledge)}/quarantine", content=body, idempotent=True)

    def release(self, knowledge: str) -> None:
        """End the quarantine of a record, also the verifier's. Idempotent.

        The hub's earlier verification holds again; if it was the reason, or there is none, the record is pending.
        Raises KnowledgeNotFoundError when there is no such record.
        """
        self.request("DELETE", f"{record_path(knowledge)}/quarantine", idempotent=True)

    def suspicions(self) -> tuple[Suspicion, ...]:
        """Return the records that attestations contradict, and the copies of others; newest first."""
        answer = self.request("GET", "/v1/suspicions")
        page: Page[Suspicion] = self.parse(PageBody[SuspicionBody].read, answer.data).value()
        return page.items

    def pins(self, *, limit: int = 100, cursor: str | None = None) -> Page[ArchitecturePin]:
        """Return the pins of architectures, earliest first."""
        answer = self.request("GET", "/v1/architectures", params={"limit": limit, "cursor": cursor})
        page: Page[ArchitecturePin] = self.parse(PageBody[PinnedArchitectureBody].read, answer.data).value()
        return page

    def unpin(self, pin: str) -> None:
        """Remove the pin of an architecture: the next record with its name and arguments decides its tensors.

        Raises KnowledgeNotFoundError when there is none.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", pin):
            raise KnowledgeNotFoundError(f"The registry has no pin {pin[:100]!r}.")
        self.request("DELETE", f"/v1/architectures/{pin}")

    def audit_entries(
        self, *, entity: str | None = None, act: str | None = None, since: datetime | None = None
    ) -> Iterator[AuditEntry]:
        """Yield the changes of the hub, oldest first: all, or those by or of an entity, of a kind, since a time."""
        pages = all_pages(
            lambda cursor: self.audit(limit=MAX_LIMIT, cursor=cursor, entity=entity, act=act, since=since)
        )
        for entry in pages:  # a registry of an older version sends all
            if (
                (entity is None or entity in (entry.actor, entry.subject))
                and (act is None or entry.act == act)
                and (since is None or entry.time >= since)
            ):
                yield entry

    def audit(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        entity: str | None = None,
        act: str | None = None,
        since: datetime | None = None,
    ) -> Page[AuditEntry]:
        """Return the changes of the hub, oldest first: all, or those by or of an entity, of a kind, since a time."""
        wanted = {"entity": entity, "act": act, "since": None if since is None else since.isoformat()}
        answer = self.request("GET", "/v1/audit", params={"limit": limit, "cursor": cursor, **wanted})
        page: Page[AuditEntry] = self.parse(PageBody[AuditBody].read, answer.data).value()
        return page

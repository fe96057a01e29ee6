"""Calls of a hub's operator to its registry."""

from kuber.client.credentials import Credentials
from kuber.client.http import HttpService, Trusted
from kuber.client.registry import record_path
from kuber.domain.auth import OPERATOR_TOKEN_FILE, AuditEntry, Invitation
from kuber.domain.member import Member
from kuber.domain.query import MAX_LIMIT, Page, all_pages
from kuber.errors import KnowledgeNotFoundError, NotAuthorizedError
from kuber.wire import (
    AuditBody,
    CodeBody,
    InvitationBody,
    InvitationRequest,
    MemberBody,
    PageBody,
    QuarantineRequest,
)


class AdminClient(HttpService):
    """The registry at `url`, asked with the operator's token.

    Raises NotAuthorizedError when the token is not the operator's, ServiceUnavailableError when no answer comes
    within `patience` seconds.
    """

    def __init__(self, url: str, token: str, *, patience: float = 10.0, ca: Trusted = None) -> None:
        super().__init__(url, service="registry", patience=patience, credentials=Credentials(token=token), ca=ca)

    def check_token(self) -> None:
        """Return when the token is the operator's; NotAuthorizedError when it is not."""
        try:
            self.audit(limit=1)  # a cheap one of the questions that nobody else may ask
        except NotAuthorizedError:
            raise NotAuthorizedError(
                f"This token is not the operator's; that one is in {OPERATOR_TOKEN_FILE} in the registry's folder."
            ) from None

    def invite(self, name: str, *, days: float = 7.0) -> str:
        """The code that an entity of this name may join with, once."""
        body = self.message(InvitationRequest, name=name, days=days)
        return self.parse(CodeBody.read, self.ask("POST", "/v1/invitations", content=body).data).code

    def invitations(self) -> tuple[Invitation, ...]:
        """The last invitations, without their codes."""
        page = self.parse(PageBody[InvitationBody].read, self.ask("GET", "/v1/invitations").data)
        return tuple(item.value() for item in page.items)

    def entity(self, name: str) -> Member:
        """The entity of this name; KnowledgeNotFoundError when there is none."""
        for member in all_pages(self._members):
            if member.name == name:
                return member
        raise KnowledgeNotFoundError(f"The registry has no entity named {name[:100]!r}.")

    def _members(self, cursor: str | None) -> Page[Member]:
        answer = self.ask("GET", "/v1/entities", params={"limit": MAX_LIMIT, "cursor": cursor})
        page: Page[Member] = self.parse(PageBody[MemberBody].read, answer.data).value()
        return page

    def revoke(self, entity: str, *, block: bool = False) -> None:
        """End the tokens of the entity with this id; with `block` it gets no new one."""
        params = {"block": "true" if block else None}
        self.ask("DELETE", f"/v1/entities/{entity}/tokens", params=params, repeatable=True)

    def withdraw(self, knowledge: str) -> None:
        """Take a record back, whoever published it."""
        self.ask("DELETE", record_path(knowledge), repeatable=True)

    def quarantine(self, knowledge: str, reason: str) -> None:
        """Have a record found no more, whatever the verifier finds, until it is released.

        Again: for the reason given last, one sentence. Raises KnowledgeNotFoundError when there is no such record,
        RequestRejectedError for a reason that is too long or none.
        """
        body = self.message(QuarantineRequest, reason=reason)
        self.ask("POST", f"{record_path(knowledge)}/quarantine", content=body, repeatable=True)

    def release(self, knowledge: str) -> None:
        """End the quarantine of a record, also one by the verifier. Again: nothing.

        What the hub had found holds again; where that was the reason, or nothing was found, the verifier looks again.
        Raises KnowledgeNotFoundError when there is no such record.
        """
        self.ask("DELETE", f"{record_path(knowledge)}/quarantine", repeatable=True)

    def audit(self, *, limit: int = 100, cursor: str | None = None) -> Page[AuditEntry]:
        """Every change of the hub, first come first."""
        answer = self.ask("GET", "/v1/audit", params={"limit": limit, "cursor": cursor})
        page: Page[AuditEntry] = self.parse(PageBody[AuditBody].read, answer.data).value()
        return page

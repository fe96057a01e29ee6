"""The Registry port over HTTP."""

import re

from kuber.client.http import HttpService
from kuber.domain.delivery import Delivery
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Member
from kuber.domain.query import Page, Query
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.wire import DeliveryBody, DraftBody, KnowledgeBody, MemberBody, MemberRequest, PageBody

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class HttpRegistry(HttpService):
    """The registry at `url`, as `kuber.domain.ports.Registry`.

    Raises what the port tells of, ServiceUnavailableError when no answer comes within `patience` seconds, and
    CorruptKnowledgeError for a record that is not sound.
    """

    def __init__(self, url: str, *, patience: float = 10.0) -> None:
        super().__init__(url, service="registry", patience=patience)

    def register(self, name: str) -> Member:
        """Join under this name; the same name gives the same member again."""
        body = MemberRequest.of(name).model_dump_json().encode()
        answer = self.ask("POST", "/v1/entities", content=body, repeatable=True)
        return self.parse(MemberBody.read, answer.data).value()

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """The registered entities, first come first."""
        answer = self.ask("GET", "/v1/entities", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[MemberBody].read, answer.data).value()

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record; the same draft again under the same key gives the record of the first time."""
        body = DraftBody.of(draft).model_dump_json().encode()
        answer = self.ask("POST", "/v1/knowledge", content=body, key=key)
        return self.parse(KnowledgeBody.read, answer.data, CorruptKnowledgeError).value()

    def discover(self, query: Query) -> Page[Knowledge]:
        """The knowledge that matches, in the order asked for."""
        params = {
            "task": query.task,
            "test_set": None if query.test_set is None else str(query.test_set),
            "min_accuracy": query.min_accuracy,
            "exclude_entity": query.exclude_entity,
            "initial": None if query.initial is None else str(query.initial).lower(),
            "origin": None if query.origin is None else str(query.origin),
            "latest": "true" if query.latest else None,
            "classes": list(query.classes) or None,
            "order": query.order,
            "limit": query.limit,
            "cursor": query.cursor,
        }
        answer = self.ask("GET", "/v1/knowledge", params=params)
        return self.parse(PageBody[KnowledgeBody].read, answer.data, CorruptKnowledgeError).value()

    def knowledge(self, id: str) -> Knowledge:
        """One record; KnowledgeNotFoundError when there is none."""
        if not _ID.fullmatch(id):
            raise KnowledgeNotFoundError(f"The registry has no knowledge {id[:100]!r}.")  # nor could a path name it
        answer = self.ask("GET", f"/v1/knowledge/{id}")
        return self.parse(KnowledgeBody.read, answer.data, CorruptKnowledgeError).value()

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store what became of a delivery; the same key again changes nothing."""
        self.ask("POST", "/v1/deliveries", content=DeliveryBody.of(delivery).model_dump_json().encode(), key=key)

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """The recorded deliveries, first come first."""
        answer = self.ask("GET", "/v1/deliveries", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[DeliveryBody].read, answer.data, CorruptKnowledgeError).value()

"""Short ids: find the record or entity whose id begins or ends with a text."""

import re
from collections.abc import Iterable

from kuber.client.http import HttpService
from kuber.domain.auth import OPERATOR
from kuber.domain.entity_names import form_of
from kuber.domain.member import Member
from kuber.domain.query import MAX_LIMIT, Page, all_pages
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError, SettingsError
from kuber.wire.registry import IdsBody, MemberBody, PageBody

SHOWN = 5  # of the ids that match

_WHOLE = re.compile(r"[0-9a-f]{32}")
_PLURAL = {"record": "records", "entity": "entities"}


def record_id(registry: HttpService, text: str) -> str:
    """Return the id of the only record whose id is this text, or begins or ends with it; else the text itself.

    Withdrawn and quarantined records are found too. Raises SettingsError when there are several, and
    CorruptKnowledgeError when the registry answers with another one.
    """
    if _WHOLE.fullmatch(text):
        return text
    try:
        body = registry.parse(IdsBody.read, registry.request("GET", "/v1/ids", params={"part": text}).data)
    except (KnowledgeNotFoundError, RequestRejectedError):  # an older registry, or no part of an id
        return text
    for id in body.knowledge:
        if not (id.startswith(text) or id.endswith(text)):
            raise CorruptKnowledgeError(
                f"The registry at {registry.url} answers for {text[:100]!r} with {id[:100]!r}; do not trust it."
            )
    return _only(body.knowledge, text, "record")


def entity_of(registry: HttpService, text: str) -> Member:
    """Return the entity of this name or id, or the only one whose id begins or ends with the text.

    Raises SettingsError when there are several, KnowledgeNotFoundError when there is none.
    """
    matching = []
    for member in all_pages(lambda cursor: _members(registry, cursor)):
        if member.name in (text, form_of(text)):
            return member
        if text and (member.id.startswith(text) or member.id.endswith(text)):
            matching.append(member)
    exact = [member for member in matching if member.id == text]
    if exact:
        return exact[0]
    if not matching:
        raise KnowledgeNotFoundError(f"The registry has no entity named {text[:100]!r}.")
    _only([f"{member.id} ({member.name})" for member in matching], text, "entity")
    return matching[0]


def names_of_entities(registry: HttpService) -> dict[str, str]:
    """Return entity id -> name, and the operator's own name."""
    names = {member.id: member.name for member in all_pages(lambda cursor: _members(registry, cursor))}
    return {OPERATOR: OPERATOR, **names}


def _only(ids: Iterable[str], text: str, kind: str) -> str:
    found = list(ids)
    if text in found:
        return text
    if len(found) > 1:
        more = ", ..." if len(found) > SHOWN else ""
        shown = ", ".join(found[:SHOWN]) + more
        raise SettingsError(
            f"{text[:100]!r} is ambiguous: the ids of several {_PLURAL[kind]} begin or end with it ({shown}); give "
            "more characters."
        )
    return found[0] if found else text


def _members(registry: HttpService, cursor: str | None) -> Page[Member]:
    answer = registry.request("GET", "/v1/entities", params={"limit": MAX_LIMIT, "cursor": cursor})
    page: Page[Member] = registry.parse(PageBody[MemberBody].read, answer.data).value()
    return page

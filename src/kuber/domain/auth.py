"""Who asks, and what they may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

OPERATOR, VERIFIER, RETENTION = "admin", "verifier", "retention"  # as actors
PUBLISH = "publish"  # as an act
REPORT = "report"  # as an act: an entity tells that it lives
RELEASED = "released"  # as an act: the operator ends a quarantine
PRIVATE_ACTS = frozenset({"invite", "revoke", "block"})  # for the operator only
VERIFIER_TOKEN_FILE = "verifier-token"  # noqa: S105 - the names of files, in the registry's folder
OPERATOR_TOKEN_FILE = "admin-token"  # noqa: S105 - the name of a file, in the registry's folder


class Scope(StrEnum):
    """What a token is good for."""

    ENTITY = "entity"  # publish, record and withdraw what is its own; read everything
    ADMIN = "admin"  # the operator: invite, revoke, withdraw, quarantine, release, read the audit log
    VERIFIER = "verifier"  # says what it found out about records; reads everything
    SERVICE = "service"  # the other service of the hub


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who a token belongs to."""

    scope: Scope
    expires_at: datetime
    entity: str | None = None  # id, of scope entity only


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    """What an entity may join with; its code is told once, when it is made."""

    name: str  # of the entity
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """One change of the hub: who did what to what."""

    time: datetime
    actor: str  # id of an entity, or admin
    act: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict)  # what a reader would ask for next

"""Scopes, callers, invitations and audit entries."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

OPERATOR, VERIFIER, RETENTION = "admin", "verifier", "retention"  # actors other than entities
PUBLISH, REPORT, RELEASED = "publish", "report", "released"  # acts that readers of events look for
UNPIN = "unpin"  # the act of removing an architecture's pin
REKEY = "rekey"  # the act of allowing a new key in place of a lost one
PRIVATE_ACTS = frozenset({"invite", "revoke", "block", "void", UNPIN, REKEY})  # shown to the operator only
VERIFIER_TOKEN_FILE = "verifier-token"  # noqa: S105 - a file name, in the registry's folder
OPERATOR_TOKEN_FILE = "admin-token"  # noqa: S105 - a file name, in the registry's folder


_TOKEN = re.compile(r"[!-~]{1,200}")


def is_token(text: str) -> bool:
    """Return whether a text can be a token: it is sent in a header."""
    return _TOKEN.fullmatch(text) is not None


class Scope(StrEnum):
    """Permissions of a token."""

    ENTITY = "entity"  # publish, record and withdraw its own; read everything
    ADMIN = "admin"  # the operator: invite, revoke, withdraw, quarantine, release, read the audit log
    VERIFIER = "verifier"  # verify records; read everything
    SERVICE = "service"  # the other service of the hub


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Owner of a token."""

    scope: Scope
    expires_at: datetime
    entity: str | None = None  # id, for scope entity only


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    """Invitation for an entity to join; its code is shown once, when it is made."""

    name: str  # the entity's
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """A change at the hub: actor, act and subject."""

    time: datetime
    actor: str  # id of an entity, or OPERATOR, VERIFIER or RETENTION
    act: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict)  # so that a reader need not fetch the subject

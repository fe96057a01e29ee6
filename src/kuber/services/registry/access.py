"""Access control: invitations, enrolment, tokens and the audit log, in the registry's database."""

import hmac
import logging
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from kuber.domain.auth import OPERATOR, REKEY, AuditEntry, Caller, Invitation, Scope
from kuber.domain.digest import Digest
from kuber.domain.entity_names import form_of, normalised
from kuber.domain.event import utc_now
from kuber.domain.member import Key, Member
from kuber.domain.publication_checks import check_owner
from kuber.domain.query import Page
from kuber.errors import ConflictError, NotAuthorizedError, RequestRejectedError, ServiceError
from kuber.services.db.cache import BoundedCache
from kuber.services.db.database import Database
from kuber.services.http import pagination as cursors
from kuber.services.http.auth import secret_hash
from kuber.services.registry.audit import BATCH_BYTES, EVERYTHING, AuditFilter, add_entry, read_audit
from kuber.services.registry.expiry import Gap, read_gap
from kuber.services.registry.hub_identity import HubIdentity
from kuber.services.registry.members import add_member, find_named, insert_key, last_sequence, read_member
from kuber.services.registry.schema import audit, entities, entity_keys, invitations, tokens
from kuber.services.registry.used_enrolments import SKEW, check_unused, note_used
from kuber.signing import check_hub, check_signature, write_secret
from kuber.wire.registry import ChallengeBody, ChallengeRequest, EnrolmentBody
from kuber.wire.signing_payloads import enrolment_bytes, succession_bytes

TOKEN_DAYS = 30
INVITATION_DAYS = 7
CACHED = 10_000  # tokens

log = logging.getLogger(__name__)

_BY_HASH = select(tokens).where(tokens.c.hash == bindparam("key"))


class RegistryAccess:
    """Enrolment and tokens, on the database of a RegistryStore. Safe to use from several threads.

    With `open_enrolment` entities join without an invitation.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        ids: Callable[[], str],
        open_enrolment: bool = False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._open = open_enrolment
        self.on_new_key: Callable[[], None] = lambda: None  # called when a member may have another key
        self.hub = HubIdentity.load_or_create(database)
        self._callers: BoundedCache[Caller] = BoundedCache(0 if database.shared else CACHED)  # by hash of the token

    def invite(self, name: str, *, days: float = INVITATION_DAYS) -> str:
        """Invite an entity; return the code, which it can use once within so many days."""
        name = normalised(name)
        return self._invite(lambda connection: ({"name": name}, "invite", name), days)

    def allow_new_key(self, entity: str, *, days: float = INVITATION_DAYS) -> str:
        """Allow a new key for an entity whose key is lost; return the code with which its owner joins once.

        The former key is valid until then. Raises KnowledgeNotFoundError when there is no such entity.
        """

        def found(connection: Connection) -> tuple[dict[str, Any], str, str]:
            member = read_member(connection, entity)
            return {"name": member.name, "entity": member.id}, REKEY, member.id

        return self._invite(found, days)

    def _invite(self, found: Callable[[Connection], tuple[dict[str, Any], str, str]], days: float) -> str:
        """Store an invitation; `found` returns its own fields, and act and subject of the audit entry."""
        code, now = secrets.token_urlsafe(32), self._clock()
        row = {"hash": secret_hash(code), "made_at": now, "expires_at": now + timedelta(days=days)}

        def work(connection: Connection) -> None:
            fields, act, subject = found(connection)
            connection.execute(insert(invitations), {**row, **fields})
            add_entry(connection, now, OPERATOR, act, subject)

        self._database.write(work)
        return code

    def invitations(self) -> list[Invitation]:
        """Return the last thousand invitations, latest first."""
        with self._database.read_snapshot() as connection:
            rows = connection.execute(select(invitations).order_by(invitations.c.made_at.desc()).limit(1000)).all()
        return [
            Invitation(name=row.name, made_at=row.made_at, expires_at=row.expires_at, used_at=row.used_at)
            for row in rows
        ]

    def challenge(self, request: ChallengeRequest) -> ChallengeBody:
        """Return a nonce for a request to join, and the hub's proof of its id."""
        return self.hub.challenge(request, self._clock())

    def enrol(self, request: EnrolmentBody) -> tuple[Member, str, bool]:
        """Enrol an entity, or renew its token; return the member, its new token, and whether the member is new.

        A member proves itself with its key and needs no invitation. Raises CorruptKnowledgeError when the request is
        not signed with the key in it or for another hub, NotAuthorizedError when it is too old, used, uninvited or
        blocked, ConflictError when the name belongs to another key.
        """
        check_signature(request.public_key, request.signature or "", enrolment_bytes(request), "The request to join")
        now = self._clock()
        names_hub = self._check_fresh(request, now)
        used = Digest.of(enrolment_bytes(request)).hex
        token = secrets.token_urlsafe(32)

        def work(connection: Connection) -> tuple[Member, bool]:
            check_unused(connection, used, now)
            member = find_named(connection, request.name)
            new = member is None
            if member is not None:
                member = self._replace_key(connection, member, request, now)
            if member is None or member.keys[-1:] == () or member.keys[-1].public_key != request.public_key:
                # Whether a name is taken is not for strangers: they are invited, or refused in the same words.
                name = normalised(request.name)
                if not self._open:
                    self._use_invitation(connection, request, now)
                if member is not None:
                    check_owner(member, request.public_key)
                keys = (Key(public_key=request.public_key),)
                member = Member(id=self._ids(), name=name, registered_at=now, keys=keys)
                add_member(connection, member)
                add_entry(connection, now, member.id, "enrol", name)
            if connection.scalar(select(entities.c.blocked_at).where(entities.c.id == member.id)) is not None:
                raise NotAuthorizedError(f"The operator of this hub has blocked the entity {request.name!r}.")
            if names_hub:
                connection.execute(update(entities).where(entities.c.id == member.id).values(joins_hub=True))
            elif connection.scalar(select(entities.c.joins_hub).where(entities.c.id == member.id)):
                raise NotAuthorizedError(
                    f"The request to join names no hub, but {request.name!r} has joined with a version of KUber that "
                    "does; use such a version."
                )
            note_used(connection, used, member.id, now)
            # One token at a time: a new one ends the entity's others.
            connection.execute(delete(tokens).where(tokens.c.entity == member.id))
            _insert_token(connection, token, Scope.ENTITY, member.id, now)
            return member, new

        member, new = self._database.write(work)
        self._callers.invalidate()
        self.on_new_key()
        return member, token, new

    def revoke(self, entity: str, *, actor: str, block: bool = False) -> None:
        """Revoke the entity's tokens; with `block` it cannot get a new one."""
        now = self._clock()

        def work(connection: Connection) -> None:
            read_member(connection, entity)
            ended = update(tokens).where(tokens.c.entity == entity, tokens.c.revoked_at.is_(None))
            connection.execute(ended.values(revoked_at=now))
            if block:
                connection.execute(update(entities).where(entities.c.id == entity).values(blocked_at=now))
            add_entry(connection, now, actor, "block" if block else "revoke", entity)

        self._database.write(work)
        self._callers.invalidate()

    def void_invitations(self, *, actor: str) -> int:
        """Make every open invitation useless; return how many there were."""
        now = self._clock()

        def work(connection: Connection) -> int:
            unused = invitations.c.used_at.is_(None), invitations.c.expires_at > now
            names = connection.scalars(select(invitations.c.name).where(*unused)).all()
            connection.execute(update(invitations).where(*unused).values(expires_at=now))
            for name in names:
                add_entry(connection, now, actor, "void", name)
            return len(names)

        return self._database.write(work)

    def revoke_all(self, *, actor: str) -> int:
        """Revoke all tokens, also the operator's and the verifier's; return how many entities had one.

        Entities get new ones by proving their keys, and the registry writes those of operator and verifier when it
        starts.
        """
        now = self._clock()

        def work(connection: Connection) -> int:
            valid = tokens.c.revoked_at.is_(None)
            ids = connection.scalars(select(tokens.c.entity).where(valid, tokens.c.expires_at > now).distinct())
            owners = [id for id in ids if id is not None]
            connection.execute(update(tokens).where(valid).values(revoked_at=now))
            for id in owners:
                add_entry(connection, now, actor, "revoke", id)
            return len(owners)

        count = self._database.write(work)
        self._callers.invalidate()
        return count

    def caller(self, token: str) -> Caller:
        """Return the owner of a token. NotAuthorizedError when it is unknown, expired or revoked."""
        key = secret_hash(token)
        caller = self._callers.get(key)
        if caller is None:
            version = self._callers.version
            with self._database.read_latest() as connection:
                row = connection.execute(_BY_HASH, {"key": key}).one_or_none()
            if row is None or row.revoked_at is not None:
                raise NotAuthorizedError("The token is not of this registry, or was revoked; enrol again.")
            caller = Caller(scope=Scope(row.scope), entity=row.entity, expires_at=row.expires_at)
            self._callers.put(key, caller, version=version)
        if caller.expires_at <= self._clock():
            raise NotAuthorizedError("The token has expired; enrol again.")
        return caller

    def load_or_create_token(self, path: Path, scope: Scope) -> str:
        """Return the valid token in this file, or write a new one of this scope that only the file's owner can read.

        Raises ServiceError when the file cannot be used.
        """
        try:
            if path.exists():
                token = path.read_text(encoding="ascii", errors="replace").strip()
                try:
                    self.caller(token)
                except NotAuthorizedError:
                    log.warning(
                        "The token in %s is not one of this database, and is replaced. If the database should hold "
                        "records, it was lost: see `kuber hub check`, and restore a backup.",
                        path,
                    )
                else:
                    return token
            token, now = secrets.token_urlsafe(32), self._clock()
            self._database.write(lambda connection: _insert_token(connection, token, scope, None, now))
            write_secret(path, token)
        except OSError as error:
            raise ServiceError(f"The token file {path} cannot be used: {error.strerror}.") from None
        return token

    def audit(
        self, *, limit: int = 100, cursor: str | None = None, wanted: AuditFilter = EVERYTHING
    ) -> Page[AuditEntry]:
        """Return the audit log, oldest first, or those of its entries that are wanted."""
        after = 0 if cursor is None else int(cursors.decode(cursor, "audit", int)[0])
        with self._database.read_snapshot() as connection:
            found, more = read_audit(connection, after=after, limit=limit + 1, public=False, wanted=wanted)
        items = tuple(entry for _, entry in found[:limit])
        return Page(items=items, cursor=cursors.encode("audit", found[:limit][-1][0]) if more else None)

    def last_event(self) -> int:
        """Return the number of the last event, 0 before the first."""
        with self._database.read_latest() as connection:
            return connection.scalar(select(func.max(audit.c.seq))) or 0

    def gap(self) -> Gap | None:
        """Return which events were removed because of their age, None when none were."""
        with self._database.read_latest() as connection:
            return read_gap(connection)

    def events(self, *, after: int, limit: int = 100) -> list[tuple[int, AuditEntry]]:
        """Return the public events after this number, each with its number; fewer than `limit` if they are long."""
        with self._database.read_latest() as connection:
            return read_audit(connection, after=after, limit=limit, public=True, max_bytes=BATCH_BYTES)[0]

    def _check_fresh(self, request: EnrolmentBody, now: datetime) -> bool:
        """Check when and for which hub a request was signed; return whether it names the hub.

        A request of an older version says only when, by the clock of the entity.
        """
        if request.nonce is not None and request.hub is not None:
            check_hub(request.hub, self.hub.id, "The request to join")
            self.hub.check_nonce(request.nonce, now)
            return True
        if request.nonce is not None or request.hub is not None:
            raise RequestRejectedError("A request to join names both a hub and its challenge.")
        if abs(now - request.at) > SKEW:
            raise NotAuthorizedError(
                f"The request to join was signed at {request.at:%Y-%m-%d %H:%M} UTC, but the registry's clock shows "
                f"{now:%Y-%m-%d %H:%M} UTC; set the clock."
            )
        return False

    def _replace_key(self, connection: Connection, member: Member, request: EnrolmentBody, now: datetime) -> Member:
        """Replace a member's lost key, if the request has another and a code that allows it; return the member.

        The hub signs the new key, for records after the last one: earlier ones stay signed with the former key.
        """
        if request.invitation is None or not member.keys or member.keys[-1].public_key == request.public_key:
            return member
        chosen = and_(invitations.c.hash == secret_hash(request.invitation), invitations.c.entity == member.id)
        row = connection.execute(select(invitations).where(chosen)).one_or_none()
        if row is None:
            return member
        if row.used_at is not None or row.expires_at <= now:
            raise NotAuthorizedError("The code has been used or has expired; ask the operator for another.")
        if request.public_key in {key.public_key for key in member.keys}:
            raise ConflictError("This is a former key of the entity; join with a new one.")
        connection.execute(update(invitations).where(chosen).values(used_at=now))
        key = Key(
            public_key=request.public_key,
            since=last_sequence(connection, member.id) + 1,
            hub=self.hub.id,
            by_hub=True,
        )
        key = replace(key, signature=self.hub.sign(succession_bytes(member.id, key)))
        insert_key(connection, member.id, key, position=_next_position(connection, member.id))
        add_entry(connection, now, member.id, "change-key", member.id, {"by": OPERATOR})
        return replace(member, keys=(*member.keys, key))

    def _use_invitation(self, connection: Connection, request: EnrolmentBody, now: datetime) -> None:
        if request.invitation is None:
            raise NotAuthorizedError(
                f"This registry requires an invitation; ask its operator for one (`kuber hub invite {request.name}`) "
                "and join with --invitation CODE."
            )
        chosen = and_(invitations.c.hash == secret_hash(request.invitation), invitations.c.entity.is_(None))
        row = connection.execute(select(invitations).where(chosen)).one_or_none()
        if row is None or not hmac.compare_digest(form_of(row.name).encode(), form_of(request.name).encode()):
            raise NotAuthorizedError(f"The invitation is not for {request.name!r}; ask the operator for one.")
        if row.used_at is not None or row.expires_at <= now:
            raise NotAuthorizedError("The invitation has been used or has expired; ask the operator for another.")
        connection.execute(update(invitations).where(chosen).values(used_at=now))


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedAccess:
    """How many entities lost their tokens, and how many invitations were made useless."""

    tokens: int
    invitations: int


def end_access(path: Path, *, tokens: bool, invitations: bool) -> EndedAccess:
    """Revoke tokens and void invitations in the database of a registry that is not running."""
    with closing(Database(path, history="registry")) as database:
        access = RegistryAccess(database, clock=utc_now, ids=str)
        return EndedAccess(
            tokens=access.revoke_all(actor=OPERATOR) if tokens else 0,
            invitations=access.void_invitations(actor=OPERATOR) if invitations else 0,
        )


def _next_position(connection: Connection, entity: str) -> int:
    last = select(func.max(entity_keys.c.position)).where(entity_keys.c.entity == entity)
    return int(connection.scalar(last) or 0) + 1


def _insert_token(connection: Connection, token: str, scope: Scope, entity: str | None, now: datetime) -> None:
    expires = now + timedelta(days=TOKEN_DAYS if entity is not None else 100 * 365)
    row: dict[str, Any] = {"hash": secret_hash(token), "entity": entity, "scope": scope.value}
    connection.execute(insert(tokens), {**row, "made_at": now, "expires_at": expires})

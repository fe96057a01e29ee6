"""Routes of the registry for members, keys, tokens, invitations, events and the audit log."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Response
from fastapi import Path as InPath
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator

from kuber.domain.auth import OPERATOR, Caller, Scope
from kuber.domain.query import MAX_LIMIT
from kuber.errors import NotAuthorizedError
from kuber.services.http.auth import Authenticator, check_acts_for
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.audit import AuditFilter
from kuber.services.registry.event_feed import EventFeed, Notice
from kuber.services.registry.kinds_of_work import RegistryWork
from kuber.services.registry.store import RegistryStore
from kuber.wire.base import Time, only_printable
from kuber.wire.registry import (
    MISSED,
    AuditBody,
    CallerBody,
    ChallengeBody,
    ChallengeRequest,
    CodeBody,
    EnrolledBody,
    EnrolmentBody,
    IdsBody,
    InvitationBody,
    InvitationRequest,
    KeyBody,
    MemberBody,
    MissedBody,
    PageBody,
    ReportBody,
    TokenBody,
)

EVENTS = 100  # read at once for a follower
MAX_SCANNED = 20_000  # events that one answer leaves out; the next answer continues after them
MAX_WAIT = 20.0  # seconds; less than clients and proxies wait for an answer

TaskName = Annotated[str, AfterValidator(only_printable)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries of one page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="Cursor of the previous page.")]
Id = Annotated[str, InPath(max_length=200), AfterValidator(only_printable)]


def created(body: Any) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that answers 201 for a new object and 200 for a known one."""
    return {200: {"model": body, "description": "It exists already."}, 201: {"model": body}}


def add_access_routes(
    app: FastAPI, store: RegistryStore, access: RegistryAccess, guard: Authenticator, work: RegistryWork
) -> None:
    """Add the routes to the application."""
    run_read = store.database.run_read
    feed = EventFeed(
        lambda after, limit: run_read(access.events, after=after, limit=limit), lambda: run_read(access.last_event)
    )
    app.state.on_stop.append(feed.stop)
    readers, followers = guard.require(*Scope), guard.require(*Scope, kind="stream")

    @app.post("/v1/challenges", operation_id="challenge", status_code=201)
    async def challenge(body: ChallengeRequest) -> ChallengeBody:
        """Get a nonce to sign in a request to join, within minutes and once, and the hub's proof of its id."""
        return access.challenge(body)

    @app.post("/v1/entities", operation_id="enrol_entity", status_code=201, responses=created(EnrolledBody))
    async def enrol(body: EnrolmentBody, response: Response) -> EnrolledBody:
        """Join under a name, or get a new token: 201 for a new entity, 200 for a known one."""
        member, token, new = await work.write(None, lambda: access.enrol(body))
        response.status_code = 201 if new else 200
        return EnrolledBody(member=MemberBody.of(member), token=token)

    @app.get("/v1/ids", operation_id="find_ids")
    async def ids(
        caller: Annotated[Caller, readers],
        part: Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Beginning or end of an id.")],
    ) -> IdsBody:
        """List some records whose ids begin with a part or, among the newest 20,000, end with it."""
        return IdsBody(knowledge=await run_read(store.ids_matching, part))

    @app.get("/v1/entities", operation_id="list_entities")
    async def members(
        caller: Annotated[Caller, readers], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[MemberBody]:
        """List the registered entities, earliest first."""
        return PageBody[MemberBody].of(await run_read(store.members, limit=limit, cursor=cursor))

    @app.get("/v1/entities/{id}", operation_id="get_entity")
    async def member(id: Id, caller: Annotated[Caller, readers]) -> MemberBody:
        """Get an entity with its keys."""
        return MemberBody.of(await run_read(store.member, id))

    @app.post("/v1/entities/{id}/keys", operation_id="change_key")
    async def change_key(id: Id, body: KeyBody, caller: Annotated[Caller, guard.require(Scope.ENTITY)]) -> MemberBody:
        """Add a key for later records; it is signed with the last one."""
        check_acts_for(caller, id)
        return MemberBody.of(await work.write(caller, lambda: store.change_key(id, body.value())))

    @app.post("/v1/entities/{id}/reports", operation_id="report", status_code=204)
    async def report(id: Id, body: ReportBody, caller: Annotated[Caller, guard.require(Scope.ENTITY)]) -> None:
        """Report that an entity is alive, its round, and the evaluation of its model."""
        check_acts_for(caller, id)
        evaluation = body.evaluation.value() if body.evaluation else None
        await work.write(caller, lambda: store.report(id, round=body.round, evaluation=evaluation))

    @app.get("/v1/events", operation_id="stream_events", response_class=EventSourceResponse)
    async def events(
        caller: Annotated[Caller, followers],
        last_event_id: Annotated[str | None, Header(description="Id of the last event received.")] = None,
        follow: Annotated[bool, Query(description="Continue with new events as they come.")] = True,
    ) -> AsyncIterator[ServerSentEvent]:
        """Stream public changes of the hub as server-sent events; ids increase in commit order."""
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else 0
        last = await feed.clamp(after)
        if last < after:  # the hub was restored from an older backup: without data it only sets the reader's last id
            yield ServerSentEvent(id=str(last))
            after = last
        gap = await run_read(access.gap)
        if gap is not None and after < gap.through:  # without an id: the events that are left have lower ones too
            missed = MissedBody(after=after, through=gap.through, until=gap.until)
            yield ServerSentEvent(event=MISSED, raw_data=missed.model_dump_json())
        if follow:
            async for notice in feed.follow(after, limit=EVENTS):
                yield notice.event
            return
        while found := await run_read(access.events, after=after, limit=EVENTS):
            for after, entry in found:
                yield Notice.of(after, entry).event

    @app.get("/v1/news", operation_id="watch")
    async def watch(
        caller: Annotated[Caller, followers],
        after: Annotated[
            int | None,
            Query(ge=0, lt=2**63, description="Cursor of the previous answer; without it: new publications."),
        ] = None,
        task: Annotated[
            TaskName | None, Query(max_length=200, description="Name of the task; without it: any task.")
        ] = None,
        seconds: Annotated[
            float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the first publication.")
        ] = 0.0,
    ) -> PageBody[AuditBody]:
        """List publications since the previous answer, as soon as there is one; its cursor is the next `after`."""
        number = await feed.clamp(after)
        end = time.monotonic() + seconds
        scanned = 0
        while True:
            found, number = await feed.after(number, limit=MAX_LIMIT)
            scanned += len(found)
            await asyncio.sleep(0)  # other requests are served between two reads
            publications = [notice.publication for notice in found if notice.publication is not None]
            entries = [entry for entry in publications if task is None or entry.detail.get("task") == task]
            left = end - time.monotonic()
            if entries or ((left <= 0 or feed.stopped) and not found) or scanned > MAX_SCANNED:
                return PageBody[AuditBody](items=tuple(AuditBody.of(entry) for entry in entries), cursor=str(number))
            if not found:
                await feed.wait(number, left)

    @app.delete("/v1/entities/{id}/tokens", operation_id="revoke_tokens", status_code=204)
    async def revoke(
        id: Id,
        caller: Annotated[Caller, guard.require(Scope.ENTITY, Scope.ADMIN)],
        block: Annotated[bool, Query(description="Also issue no new token; for the operator only.")] = False,
    ) -> None:
        """Revoke the tokens of an entity."""
        if caller.scope is not Scope.ADMIN:
            check_acts_for(caller, id)
            if block:
                raise NotAuthorizedError("Only the operator may block an entity.")
        await work.write(caller, lambda: access.revoke(id, actor=caller.entity or OPERATOR, block=block))

    @app.post("/v1/tokens/check", operation_id="check_token")
    async def check(body: TokenBody, caller: Annotated[Caller, guard.require(Scope.SERVICE)]) -> CallerBody:
        """Get the owner of a token, for the vault; 403 when it is not valid."""
        return CallerBody.of(await run_read(access.caller, body.token))

    @app.post("/v1/invitations", operation_id="invite", status_code=201)
    async def invite(body: InvitationRequest, caller: Annotated[Caller, guard.require(Scope.ADMIN)]) -> CodeBody:
        """Invite an entity of this name."""
        return CodeBody(code=await work.write(caller, lambda: access.invite(body.name, days=body.days)))

    @app.get("/v1/invitations", operation_id="list_invitations")
    async def invitations(caller: Annotated[Caller, guard.require(Scope.ADMIN)]) -> PageBody[InvitationBody]:
        """List the last invitations, without their codes."""
        items = tuple(InvitationBody.of(invitation) for invitation in await run_read(access.invitations))
        return PageBody[InvitationBody](items=items)

    @app.post("/v1/entities/{id}/rekey", operation_id="allow_new_key", status_code=201)
    async def allow_new_key(
        id: Id,
        caller: Annotated[Caller, guard.require(Scope.ADMIN)],
        days: Annotated[float, Query(gt=0, le=366, description="Days for which the code is valid.")] = 7.0,
    ) -> CodeBody:
        """Allow a new key for an entity that has lost its own."""
        return CodeBody(code=await work.write(caller, lambda: access.allow_new_key(id, days=days)))

    @app.delete("/v1/invitations", operation_id="void_invitations", status_code=204)
    def void_invitations(caller: Annotated[Caller, guard.require(Scope.ADMIN)]) -> None:
        """Make all open invitations useless."""
        access.void_invitations(actor=OPERATOR)

    @app.get("/v1/audit", operation_id="list_audit")
    async def audit(
        caller: Annotated[Caller, guard.require(Scope.ADMIN)],
        limit: Limit = 100,
        cursor: Cursor = None,
        entity: Annotated[str | None, Query(max_length=200, description="Id of an actor or a subject.")] = None,
        act: Annotated[str | None, Query(max_length=40, description="Kind of change.")] = None,
        since: Annotated[Time | None, Query(description="Time of the earliest.")] = None,
    ) -> PageBody[AuditBody]:
        """List the changes of the hub, oldest first: all of them, or those that match."""
        wanted = AuditFilter(entity=entity, act=act, since=since)
        return PageBody[AuditBody].of(await run_read(access.audit, limit=limit, cursor=cursor, wanted=wanted))

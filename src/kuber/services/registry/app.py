"""HTTP application of the registry: routes for knowledge and deliveries."""

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Response

from kuber.domain.auth import OPERATOR, OPERATOR_TOKEN_FILE, VERIFIER_TOKEN_FILE, Caller, Scope
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Knowledge
from kuber.domain.query import MAX_LIMIT
from kuber.domain.verification import Verification
from kuber.errors import ServiceUnavailableError
from kuber.services.db.database import database_location
from kuber.services.http.application import REQUESTS_PER_MINUTE, application
from kuber.services.http.auth import FOREVER, Authenticator, Origin, check_acts_for, same_secret
from kuber.services.http.metrics import Metrics, Presence
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.access_routes import Cursor, Id, Limit, add_access_routes, created
from kuber.services.registry.expiry import periodic_expiry
from kuber.services.registry.kinds_of_work import RegistryWork
from kuber.services.registry.query_params import DiscoverQuery, openapi_parameters
from kuber.services.registry.status import read_status
from kuber.services.registry.store import RegistryStore, sortable_id
from kuber.services.registry.vault_client import RegistryVault
from kuber.wire import KEY_HEADER
from kuber.wire.record_json import published_json, record_json
from kuber.wire.registry import (
    AttestationBody,
    DeliveryBody,
    EvaluationBody,
    KnowledgeBody,
    PageBody,
    PinnedArchitectureBody,
    PublicationBody,
    QuarantineRequest,
    RecordPageBody,
    SuspicionBody,
    VerificationBody,
)
from kuber.wire.status import RegistryStatusBody

MAX_CACHED = 64 << 20  # bytes of JSON

log = logging.getLogger(__name__)

Key = Annotated[
    str, Header(alias=KEY_HEADER, min_length=1, max_length=200, description="Idempotency key of this request.")
]


@contextlib.contextmanager
def open_registry(
    folder: Path,
    *,
    vault: str,
    secret: str,
    database: str | None = None,
    open_enrolment: bool = False,
    keep_best: int = 0,
    keep_events: timedelta | None = None,
    ca: Path | None = None,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> Iterator[FastAPI]:
    """Open the registry on the data in `folder`, with the vault at this URL, which knows the same secret.

    With `database`, the URL of a PostgreSQL database, the folder holds only tokens. `ca` is a file of certificates to
    trust instead of the system's. `keep_events` is how long events, deliveries and withdrawn records are kept, for
    good if it is None.
    """
    with contextlib.closing(RegistryVault(vault, secret, ca=ca)) as link:
        store = RegistryStore(
            database_location(database, folder / "registry.sqlite"), vault=link, keep_best=keep_best
        )
        with contextlib.closing(store):
            access = RegistryAccess(store.database, clock=utc_now, ids=sortable_id, open_enrolment=open_enrolment)
            access.load_or_create_token(folder / OPERATOR_TOKEN_FILE, Scope.ADMIN)
            access.load_or_create_token(folder / VERIFIER_TOKEN_FILE, Scope.VERIFIER)
            with periodic_expiry(store.database, keep_events, on_record=store.forget):
                yield registry_app(store, access, secret, folder=folder, requests_per_minute=requests_per_minute)


def registry_app(
    store: RegistryStore,
    access: RegistryAccess,
    secret: str,
    *,
    folder: Path | None = None,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> FastAPI:
    """Return the application on these stores; `secret` authenticates its vault.

    Reads run in the event loop, which is free while a database server answers; writes run in threads. Those that wait
    for the vault and those that wait for the disk have threads of their own.
    """
    run_read = store.database.run_read
    access.on_new_key = store.forget_keys

    async def authenticate(token: str, _origin: Origin) -> Caller:
        if same_secret(token, secret):
            return Caller(scope=Scope.SERVICE, expires_at=FOREVER)
        found = await run_read(access.caller, token)
        if found.entity is not None:
            presence.note(found.entity)
        return found

    guard = Authenticator(authenticate)
    readers, entities, operator = guard.require(*Scope), guard.require(Scope.ENTITY), guard.require(Scope.ADMIN)
    description = "Members, published knowledge, and deliveries."
    metrics, presence = _metrics(store)
    app = application(
        "registry",
        description=description,
        metrics=metrics,
        secret=secret,
        requests_per_minute=requests_per_minute,
        hub=access.hub.id,
    )
    to_json = JsonCache()
    work = RegistryWork()

    # The most frequent routes come first: routes are compared with the path in order.
    @app.get("/v1/knowledge/{id}", operation_id="get_knowledge", response_model=KnowledgeBody)
    async def knowledge(id: Id, caller: Annotated[Caller, readers]) -> Response:
        """Get a record."""
        return Response(to_json(await run_read(store.knowledge, id)), media_type="application/json")

    @app.post(
        "/v1/knowledge",
        operation_id="publish",
        status_code=201,
        response_model=KnowledgeBody,
        responses=created(KnowledgeBody),
    )
    async def publish(body: PublicationBody, key: Key, caller: Annotated[Caller, entities]) -> Response:
        """Store a record: 201 when it is new, 200 when this key stored the same draft before.

        Small blobs may come with it, as base64; others must be in the vault.
        """
        check_acts_for(caller, body.entity)

        def store_record() -> tuple[bytes, bool]:
            record, new = store.accept(body, key=key)
            return published_json(body, record) if new else record_json(record), new

        data, new = await work.publications.run(store_record, by=caller.entity)
        return Response(data, status_code=201 if new else 200, media_type="application/json")

    @app.get(
        "/v1/knowledge",
        operation_id="discover",
        response_model=RecordPageBody,
        openapi_extra=openapi_parameters(),
    )
    async def discover(caller: Annotated[Caller, readers], query: DiscoverQuery) -> Response:
        """List the matching knowledge, in the order of the query; a page ends early when its records are large."""
        page = await run_read(store.discover, query)
        items = b",".join(map(to_json, page.items))
        omitted = b',"omitted":%s' % json.dumps(page.omitted).encode() if page.omitted else b""
        body = b'{"items":[%s],"cursor":%s%s}' % (items, json.dumps(page.cursor).encode(), omitted)
        return Response(body, media_type="application/json")

    add_access_routes(app, store, access, guard, work)

    @app.get("/v1/knowledge/{id}/attestations", operation_id="list_attestations")
    async def attestations(
        id: Id, caller: Annotated[Caller, readers], limit: Limit = MAX_LIMIT, cursor: Cursor = None
    ) -> PageBody[AttestationBody]:
        """List the entities' own evaluations of this knowledge."""
        await run_read(store.knowledge, id)
        return PageBody[AttestationBody].of(await run_read(store.attested, id, limit=limit, cursor=cursor))

    @app.post("/v1/knowledge/{id}/attestations", operation_id="attest", status_code=204)
    async def attest(id: Id, body: EvaluationBody, caller: Annotated[Caller, entities]) -> None:
        """Store the caller's own evaluation of another entity's knowledge."""
        entity = caller.entity
        assert entity is not None
        await work.write(caller, lambda: store.attest(id, entity=entity, evaluation=body.value()))

    @app.get("/v1/suspicions", operation_id="list_suspicions")
    async def suspicions(caller: Annotated[Caller, readers]) -> PageBody[SuspicionBody]:
        """List records that attestations contradict, and copies of the records of others; the newest 1,000."""
        found = (await run_read(store.suspicions))[:MAX_LIMIT]
        return PageBody[SuspicionBody](items=tuple(SuspicionBody.of(each) for each in found))

    @app.put("/v1/knowledge/{id}/verification", operation_id="verify", status_code=204)
    async def verify(
        id: Id, body: VerificationBody, caller: Annotated[Caller, guard.require(Scope.VERIFIER)]
    ) -> None:
        """Store the hub's verification of a record."""
        await work.write(caller, lambda: store.verify(id, body.value()))

    @app.post("/v1/knowledge/{id}/quarantine", operation_id="quarantine", status_code=204)
    async def quarantine(id: Id, body: QuarantineRequest, caller: Annotated[Caller, operator]) -> None:
        """Quarantine a record: it is no longer discovered, whatever the verifier finds. The last reason holds."""
        await work.write(caller, lambda: store.quarantine(id, body.reason))

    @app.delete("/v1/knowledge/{id}/quarantine", operation_id="release", status_code=204)
    async def release(id: Id, caller: Annotated[Caller, operator]) -> None:
        """End the quarantine of a record, also the verifier's. Idempotent."""
        await work.write(caller, lambda: store.release(id))

    @app.get("/v1/status", operation_id="status")
    async def status(caller: Annotated[Caller, operator]) -> RegistryStatusBody:
        """Return one page of numbers: entities, records, events, sizes and the last backup."""
        active = presence.count()
        return await work.operation.run(
            lambda: read_status(store.database, now=utc_now(), active=active, folder=folder)
        )

    @app.get("/v1/architectures", operation_id="list_pins")
    async def pins(
        caller: Annotated[Caller, operator], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[PinnedArchitectureBody]:
        """List the names of architectures, each pinned to the tensors of its visible records; earliest first."""
        return PageBody[PinnedArchitectureBody].of(await run_read(store.pins, limit=limit, cursor=cursor))

    @app.delete("/v1/architectures/{pin}", operation_id="unpin", status_code=204)
    async def unpin(pin: Id, caller: Annotated[Caller, operator]) -> None:
        """Remove the pin of an architecture: the next record of that name and these arguments pins it again."""
        await work.write(caller, lambda: store.remove_pin(pin))

    @app.delete("/v1/knowledge/{id}", operation_id="withdraw", status_code=204)
    async def withdraw(id: Id, caller: Annotated[Caller, guard.require(Scope.ENTITY, Scope.ADMIN)]) -> None:
        """Withdraw a record: it is no longer discovered, and its blobs are unpinned."""
        if caller.scope is not Scope.ADMIN:
            check_acts_for(caller, (await run_read(store.knowledge, id)).entity)
        await work.write(caller, lambda: store.hide(id, actor=caller.entity or OPERATOR))
        try:
            await work.publications.run(lambda: store.unpin(id), by=caller.entity)
        except ServiceUnavailableError as error:
            log.warning("the pins of %s stay until `kuber hub check --repair`: %s", id, error)

    @app.post("/v1/deliveries", operation_id="record_delivery", status_code=204)
    async def record(body: DeliveryBody, key: Key, caller: Annotated[Caller, entities]) -> None:
        """Store the outcome of a delivery. Idempotent for the same key."""
        check_acts_for(caller, body.student)
        await work.write(caller, lambda: store.record(body.value(), key=key))

    @app.get("/v1/deliveries", operation_id="list_deliveries")
    async def deliveries(
        caller: Annotated[Caller, readers], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[DeliveryBody]:
        """List the recorded deliveries, oldest first."""
        return PageBody[DeliveryBody].of(await run_read(store.deliveries, limit=limit, cursor=cursor))

    return app


class JsonCache:
    """Cache of records as JSON, valid while their verification is the same: nothing else of a record changes.

    The framework would validate at each response what the store has validated. The records themselves are not kept,
    as they take more memory than their JSON.
    """

    def __init__(self) -> None:
        self._cached: dict[str, tuple[Verification | None, bytes]] = {}  # by id
        self._size = 0  # bytes

    def __call__(self, record: Knowledge) -> bytes:
        """Return the record as JSON."""
        cached = self._cached.get(record.id)
        if cached is not None and cached[0] == record.verification:
            return cached[1]
        data = record_json(record)
        if self._size + len(data) > MAX_CACHED:
            self._cached, self._size = {}, 0
        self._size += len(data)
        self._cached[record.id] = record.verification, data
        return data


def _metrics(store: RegistryStore) -> tuple[Metrics, Presence]:
    """Return the metrics of a registry, and which entities are online."""
    metrics, presence = Metrics("registry"), Presence()
    metrics.watch_database(store.database)
    metrics.gauge(
        "kuber_entities_online", "Entities that sent a request in the last 5 to 10 minutes.", presence.count
    )
    for name, description, method, route, status in (
        ("kuber_publications", "New records.", "POST", "/v1/knowledge", 201),
        ("kuber_discoveries", "Discover requests.", "GET", "/v1/knowledge", 200),
        ("kuber_deliveries", "Recorded deliveries.", "POST", "/v1/deliveries", 204),
        ("kuber_reports", "Reports of entities that are alive.", "POST", "/v1/entities/{id}/reports", 204),
        ("kuber_withdrawals", "Withdrawals.", "DELETE", "/v1/knowledge/{id}", 204),
    ):
        metrics.count_responses(name, description, method, route, status)
    return metrics, presence

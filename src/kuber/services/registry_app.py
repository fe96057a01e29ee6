"""The registry over HTTP."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Response
from fastapi import Path as InPath
from pydantic import Field

from kuber.domain import query as domain
from kuber.domain.digest import Digest
from kuber.domain.query import MAX_LIMIT, Order
from kuber.errors import RequestRejectedError
from kuber.services.http import application
from kuber.services.registry_store import RegistryStore
from kuber.services.registry_vault import RegistryVault
from kuber.wire import (
    KEY_HEADER,
    MAX_CLASSES,
    DeliveryBody,
    DigestText,
    DraftBody,
    KnowledgeBody,
    MemberBody,
    MemberRequest,
    PageBody,
)

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries of one page.")]
Label = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]
Cursor = Annotated[str | None, Query(max_length=200, description="From the page before.")]
Key = Annotated[str, Header(alias=KEY_HEADER, min_length=1, max_length=200, description="Names this act.")]


def _created(body: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": body, "description": "It was here already."}, 201: {"model": body}}


@contextlib.contextmanager
def open_registry(folder: Path, *, vault: str) -> Iterator[FastAPI]:
    """The application on the data in `folder`, with the vault at this URL."""
    with contextlib.closing(RegistryVault(vault)) as link:
        store = RegistryStore(folder / "registry.sqlite", vault=link)
        with contextlib.closing(store):
            yield registry_app(store)


def registry_app(store: RegistryStore) -> FastAPI:
    """The routes of the registry, on this store.

    Reads are short and run in the event loop; writes wait for the vault and the disk, so they run in threads.
    """
    app = application("registry", description="Who takes part, what was published, what became of it.")

    @app.post("/v1/entities", operation_id="register_entity", status_code=201, responses=_created(MemberBody))
    def register(body: MemberRequest, response: Response) -> MemberBody:
        """Join under a name: 201 when it is new, 200 when it was here already."""
        member, new = store.enrol(body.name)
        response.status_code = 201 if new else 200
        return MemberBody.of(member)

    @app.get("/v1/entities", operation_id="list_entities")
    async def members(limit: Limit = 100, cursor: Cursor = None) -> PageBody[MemberBody]:
        """The registered entities, first come first."""
        return PageBody[MemberBody].of(store.members(limit=limit, cursor=cursor))

    @app.post("/v1/knowledge", operation_id="publish", status_code=201, responses=_created(KnowledgeBody))
    def publish(body: DraftBody, response: Response, key: Key) -> KnowledgeBody:
        """Store a record: 201 when it is new, 200 when this key stored the same one before."""
        record, new = store.accept(body.value(), key=key)
        response.status_code = 201 if new else 200
        return KnowledgeBody.of(record)

    @app.get("/v1/knowledge", operation_id="discover")
    async def discover(
        task: Annotated[str | None, Query(max_length=200, description="Name of the task.")] = None,
        test_set: Annotated[DigestText | None, Query(description="Digest of the common test set.")] = None,
        min_accuracy: Annotated[float | None, Query(ge=0, le=1, description="Claimed, at least this.")] = None,
        exclude_entity: Annotated[str | None, Query(max_length=200, description="Id of an entity.")] = None,
        initial: Annotated[
            bool | None, Query(description="Only initial checkpoints; or, when false, only what was trained.")
        ] = None,
        origin: Annotated[
            DigestText | None, Query(description="Digest of the initial checkpoint that it descends from.")
        ] = None,
        latest: Annotated[bool, Query(description="Only the newest of each entity on each task.")] = False,
        classes: Annotated[
            list[Label] | None,
            Query(max_length=MAX_LIMIT, description="Indices of labels; with order classes, and only then."),
        ] = None,
        order: Annotated[
            Order, Query(description="Best first, newest first, or best mean recall on `classes` first.")
        ] = "accuracy",
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> PageBody[KnowledgeBody]:
        """The knowledge that matches, in the order asked for."""
        try:
            question = domain.Query(
                task=task,
                test_set=Digest.parse(test_set) if test_set is not None else None,
                min_accuracy=min_accuracy,
                exclude_entity=exclude_entity,
                initial=initial,
                origin=Digest.parse(origin) if origin is not None else None,
                latest=latest,
                classes=tuple(classes or ()),
                order=order,
                limit=limit,
                cursor=cursor,
            )
        except ValueError as error:
            raise RequestRejectedError(f"This question cannot be asked: {error}.") from None
        return PageBody[KnowledgeBody].of(store.discover(question))

    @app.get("/v1/knowledge/{id}", operation_id="get_knowledge")
    async def knowledge(id: Annotated[str, InPath(max_length=200)]) -> KnowledgeBody:
        """One record."""
        return KnowledgeBody.of(store.knowledge(id))

    @app.post("/v1/deliveries", operation_id="record_delivery", status_code=204)
    def record(body: DeliveryBody, key: Key) -> None:
        """Store what became of a delivery; the same key again changes nothing."""
        store.record(body.value(), key=key)

    @app.get("/v1/deliveries", operation_id="list_deliveries")
    async def deliveries(limit: Limit = 100, cursor: Cursor = None) -> PageBody[DeliveryBody]:
        """The recorded deliveries, first come first."""
        return PageBody[DeliveryBody].of(store.deliveries(limit=limit, cursor=cursor))

    return app

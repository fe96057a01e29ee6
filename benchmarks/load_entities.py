"""Entities for load.py: they join, publish signed records of valid weights, and send the queries of strategies."""

import json
import os
import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
from hub_site import weights

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft, TensorSpec
from kuber.domain.query import Query
from kuber.domain.strategy import Situation, Strategy
from kuber.domain.task import Task
from kuber.entity.strategy_loader import strategy_named
from kuber.signing import Identity
from kuber.wire import KEY_HEADER, PROTOCOL, PROTOCOL_HEADER
from kuber.wire.registry import DraftBody, EnrolmentBody
from kuber.wire.signing_payloads import enrolment_bytes, record_bytes

LABELS = tuple("abcdefghij")
PROTOCOL_HEADERS = {PROTOCOL_HEADER: str(PROTOCOL)}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Hub:
    """Addresses of a hub. `operator` is a token that invites, if joining needs an invitation."""

    registries: tuple[str, ...]
    vault: str
    operator: str | None = None


@dataclass(frozen=True)
class Call:
    """One request, ready to be sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None = None
    params: tuple[tuple[str, str], ...] = ()


class HubError(Exception):
    """A request failed; the message is its status or the kind of error."""


async def ask(session: aiohttp.ClientSession, call: Call) -> bytes:
    """Return the body of the response. Raises HubError if the request failed."""
    try:
        async with session.request(
            call.method, call.url, headers={**PROTOCOL_HEADERS, **call.headers}, data=call.body, params=call.params
        ) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise HubError(type(error).__name__) from None
    if answer.status >= 300:
        raise HubError(f"{answer.status} {json.loads(body).get('code', '')}" if body else str(answer.status))
    return body


@dataclass
class Entity:
    """One of `many` entities, of which each task has the same number."""

    number: int
    run: str  # makes names unique
    hub: Hub
    strategy: Strategy
    per_task: int
    blob_bytes: int
    identity: Identity = field(default_factory=Identity.generate)
    id: str = ""
    sequence: int = 0
    queries: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = f"load-{self.run}-{self.number // self.per_task}"
        self.registry = self.hub.registries[self.number % len(self.hub.registries)]
        self.task = Task(name=name, labels=LABELS, input_shape=(3, 32, 32), test_set=Digest.of(name.encode()))
        self.origin = Digest.of(f"origin of {name}".encode())
        spec = TensorSpec(dtype="F32", shape=(self.blob_bytes // 4,))
        self.architecture = Architecture(name=f"load-{self.blob_bytes}", arguments={}, manifest={"w": spec})
        self.own = self._evaluation()

    async def join(self, session: aiohttp.ClientSession) -> None:
        """Enrol, with an invitation if the hub needs one."""
        name = f"{self.run}-{self.number}"
        invitation = None
        if self.hub.operator:
            body = json.dumps({"name": name}).encode()
            bearer = {"Authorization": f"Bearer {self.hub.operator}"}
            made = await ask(session, Call("POST", f"{self.registry}/v1/invitations", {**bearer, **JSON}, body))
            invitation = json.loads(made)["code"]
        wish = EnrolmentBody(
            name=name, public_key=self.identity.public_key, at=datetime.now(UTC), invitation=invitation
        )
        signed = wish.model_copy(update={"signature": self.identity.sign(enrolment_bytes(wish))})
        enrolled = json.loads(
            await ask(session, Call("POST", f"{self.registry}/v1/entities", JSON, signed.model_dump_json().encode()))
        )
        self.id = enrolled["member"]["id"]
        self.headers = {"Authorization": f"Bearer {enrolled['token']}"}

    def publication(self) -> tuple[Call, Call]:
        """Return the requests of a publication: new weights to the vault, their signed record to the registry."""
        blob = weights(self.blob_bytes, os.urandom)
        artifact = Artifact.of(blob)
        self.sequence += 1
        self.own = self._evaluation()
        draft = Draft(
            entity=self.id,
            task=self.task,
            architecture=self.architecture,
            artifacts={WEIGHTS: artifact},
            evaluation=self.own,
            round=self.sequence,
            origin=self.origin,
            sequence=self.sequence,
        )
        draft = replace(draft, signature=self.identity.sign(record_bytes(draft)))
        kept = {**self.headers, "Content-Type": "application/octet-stream"}
        headers = {**self.headers, **JSON, KEY_HEADER: f"{self.run} {self.sequence}"}
        body = DraftBody.of(draft).model_dump_json().encode()
        return (
            Call("PUT", f"{self.hub.vault}/v1/blobs/{artifact.digest}", kept, blob),
            Call("POST", f"{self.registry}/v1/knowledge", headers, body),
        )

    def question(self) -> Call:
        """Return the query of the strategy, alternately before and after a local phase, as `Discovery` sends it."""
        situation = Situation(
            round=max(1, self.sequence),
            classes=len(LABELS),
            own=self.own,
            previous=self.own,
            architecture=self.architecture,
            origin=self.origin,
        )
        requests = list(filter(None, (self.strategy.before(situation), self.strategy.after(situation))))
        self.queries += 1
        _, query = requests[self.queries % len(requests)]
        return self._asks(query)

    def _asks(self, query: Query) -> Call:
        wanted: list[tuple[str, Any]] = [
            ("task", self.task.name),
            ("test_set", self.task.test_set),
            ("min_accuracy", query.min_accuracy),
            ("exclude_entity", self.id),
            ("initial", "false"),
            ("origin", query.origin),
            ("latest", "true" if query.latest else None),
            *(("classes", label) for label in query.classes),
            ("order", query.order),
            ("limit", query.limit),
        ]
        params = tuple((name, str(value)) for name, value in wanted if value is not None)
        return Call("GET", f"{self.registry}/v1/knowledge", self.headers, None, params)

    def _evaluation(self) -> Evaluation:
        correct = tuple(secrets.randbelow(201) for _ in LABELS)
        return Evaluation(test_set=self.task.test_set or Digest.of(b""), correct=correct, total=(200,) * len(LABELS))


def entities(numbers: range, *, run: str, hub: Hub, strategy: str, per_task: int, blob_bytes: int) -> list[Entity]:
    """Return the entities with these numbers."""
    decides = strategy_named(strategy)
    return [
        Entity(number=number, run=run, hub=hub, strategy=decides, per_task=per_task, blob_bytes=blob_bytes)
        for number in numbers
    ]


def new_run() -> str:
    """Return a unique name."""
    return f"{time.time_ns() // 1_000_000:x}{secrets.token_hex(3)}"

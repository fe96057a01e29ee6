"""A registry whose vault or database does not answer: what does not need it is as quick as ever."""

import asyncio
import threading
from contextlib import closing
from datetime import UTC, datetime

import httpx
import pytest

from kuber.domain.auth import Caller, Scope
from kuber.domain.knowledge import WEIGHTS
from kuber.services.http.auth import FOREVER
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.app import registry_app
from kuber.services.registry.kinds_of_work import RegistryWork
from kuber.services.registry.store import RegistryStore, sortable_id
from kuber.wire import KEY_HEADER
from kuber.wire.registry import DraftBody, EnrolmentBody
from tests.fixtures.coroutines import run_coroutine
from tests.fixtures.databases import new_sqlite

from ..processes import Applicant
from ..records import ARCHITECTURE, TASK, TEST_SET, safetensors_file

LIMIT = 30  # seconds


class StoppedVault:
    """A vault that answers once it goes on."""

    def __init__(self, vault):
        self._vault = vault
        self.going_on = threading.Event()
        self.asked = threading.Semaphore(0)

    def pin(self, holder, artifacts):
        self._wait()
        return self._vault.pin(holder, artifacts)

    def unpin(self, holder):
        self._wait()
        self._vault.unpin(holder)

    def owner(self, digest):
        return self._vault.owner(digest)

    def head(self, digest, length):
        return self._vault.head(digest, length)

    def _wait(self):
        self.asked.release()
        assert self.going_on.wait(LIMIT)


class Site:
    """A registry in this process, and entities that have joined it."""

    def __init__(self, store, access, vault, blobs):
        self.vault, self._blobs = vault, blobs
        self._access = access
        self.app = registry_app(store, access, "s" * 40)
        self.work = RegistryWork()

    def client(self):
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://registry")

    def join(self, name):
        owner = Applicant()
        member, owner.token, _ = self._access.enrol(EnrolmentBody(**owner.enrolment(name)))
        owner.id, owner.headers = member.id, {"Authorization": f"Bearer {owner.token}"}
        return owner

    def publication(self, owner, number):
        """Return the arguments of a request that publishes a record of a stored blob."""
        blob = safetensors_file(ARCHITECTURE.manifest, fill=number)
        body = {
            "entity": owner.id,
            "task": TASK,
            "architecture": ARCHITECTURE,
            "artifacts": {WEIGHTS: self._blobs.put(blob)},
            "evaluation": {"test_set": str(TEST_SET), "correct": [3, 4], "total": [10, 10]},
            "round": 1,
        }
        draft = DraftBody.model_validate(body, from_attributes=True).model_dump(mode="json")
        key = f"{owner.id}-{number}"
        return {"json": owner.signed(draft, key), "headers": owner.headers | {KEY_HEADER: key}}


@pytest.fixture
def site(tmp_path, vault_store):
    vault = StoppedVault(vault_store)
    with closing(RegistryStore(new_sqlite(tmp_path / "registry.sqlite", "registry"), vault=vault)) as store:
        access = RegistryAccess(store.database, clock=lambda: datetime.now(UTC), ids=sortable_id, open_enrolment=True)
        yield Site(store, access, vault, vault_store)
        vault.going_on.set()


def test_publications_that_wait_for_a_stopped_vault_stop_nothing_else(site):
    people = [site.join(name) for name in ("ann", "bob", "cem")]
    threads, queue = site.work.publications._threads, site.work.publications._queue
    publications = [
        site.publication(owner, number) for number in range((threads + queue) // 3 + 2) for owner in people
    ]

    async def scenario():
        ann, bob = people[:2]
        async with site.client() as client:
            tasks = [asyncio.create_task(client.post("/v1/knowledge", **body)) for body in publications]
            for _ in range(threads):
                await asyncio.to_thread(site.vault.asked.acquire, timeout=LIMIT)
            report = await client.post(f"/v1/entities/{bob.id}/reports", json={"round": 1}, headers=bob.headers)
            assert report.status_code == 204
            assert (await client.get("/v1/knowledge", headers=ann.headers)).status_code == 200
            assert (await client.get("/healthz")).status_code == 200
            refused = [task for task in tasks if task.done()]
            assert len(refused) >= len(publications) - threads - queue  # at once
            for task in refused:
                answer = task.result()
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
                assert "waits for its vault" in answer.json()["detail"]
            site.vault.going_on.set()
            answers = await asyncio.gather(*tasks)
        # 409: a later record of the same entity was stored first.
        assert {201, 503} <= {answer.status_code for answer in answers} <= {201, 409, 503}

    run_coroutine(scenario())


def test_a_record_is_withdrawn_although_the_vault_does_not_unpin(site, caplog):
    ann = site.join("ann")

    async def scenario():
        async with site.client() as client:
            site.vault.going_on.set()
            record = (await client.post("/v1/knowledge", **site.publication(ann, 1))).json()
            site.vault.going_on.clear()
            busy = [
                asyncio.create_task(client.post("/v1/knowledge", **site.publication(ann, n))) for n in range(2, 99)
            ]
            for _ in range(site.work.publications._threads // 2):
                await asyncio.to_thread(site.vault.asked.acquire, timeout=LIMIT)
            answer = await client.delete(f"/v1/knowledge/{record['id']}", headers=ann.headers)
            assert answer.status_code == 204
            assert (await client.get("/v1/knowledge", headers=ann.headers)).json()["items"] == []
            site.vault.going_on.set()
            await asyncio.gather(*busy)

    run_coroutine(scenario())
    assert "stay until `kuber hub check --repair`" in caplog.text


def test_entities_cannot_take_the_threads_of_the_operator():
    async def scenario():
        work, going_on = RegistryWork(), threading.Event()
        tasks = [
            asyncio.create_task(work.write(_caller(f"entity {number % 3}"), lambda: going_on.wait(LIMIT)))
            for number in range(work.writes._threads)
        ]
        await asyncio.sleep(0)
        assert work.writes.running == work.writes._threads
        assert await work.write(_caller(None), lambda: "blocked") == "blocked"
        going_on.set()
        await asyncio.gather(*tasks)

    run_coroutine(scenario())


def _caller(entity):
    return Caller(scope=Scope.ADMIN if entity is None else Scope.ENTITY, entity=entity, expires_at=FOREVER)

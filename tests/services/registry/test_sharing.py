"""Several registries on one PostgreSQL database, as stores and as processes that are killed."""

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kuber.domain.knowledge import TensorSpec
from kuber.domain.member import Key
from kuber.domain.query import Query
from kuber.domain.verification import Standing, Verification
from kuber.errors import ConflictError, CorruptKnowledgeError, NotAuthorizedError
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.store import RegistryStore, sortable_id
from kuber.signing import Identity
from kuber.wire.registry import EnrolmentBody
from kuber.wire.signing_payloads import enrolment_bytes, succession_bytes
from tests.fixtures.hub import unused_port

from ..records import ARCHITECTURE
from ..stores import signed_by
from .test_kills import Sites, Writer, check


def test_a_verification_by_another_process_is_seen_by_the_next_request(stores, draft_of):
    here, there = stores
    entity = here.register("entity").id
    record = here.publish(draft_of(entity, (3, 4)), key="k")
    for store in stores:
        assert store.knowledge(record.id).verification is None
    there.verify(record.id, Verification(standing=Standing.UNVERIFIABLE, reason="No samples."))
    assert here.knowledge(record.id).verification.standing is Standing.UNVERIFIABLE
    there.quarantine(record.id, "A backdoor.")
    assert here.knowledge(record.id).verification.reason == "A backdoor."
    assert here.discover(Query()).items == ()
    here.release(record.id)
    assert there.knowledge(record.id).verification.standing is Standing.UNVERIFIABLE
    here.withdraw(record.id)
    assert there.discover(Query()).items == ()


def test_a_key_that_another_process_changed_signs_the_next_record(stores, draft_of):
    here, there = stores
    first, second = Identity.generate(), Identity.generate()
    entity = here.register("entity", public_key=first.public_key).id
    for number, store in enumerate(stores, start=1):  # both have seen the first key
        store.publish(signed_by(first, draft_of(entity, (3, 4), sequence=number)), key=f"k{number}")
    key = Key(public_key=second.public_key, since=3)
    there.change_key(entity, replace(key, signature=first.sign(succession_bytes(entity, key))))
    assert here.publish(signed_by(second, draft_of(entity, (3, 4), sequence=3)), key="k3").sequence == 3
    with pytest.raises(CorruptKnowledgeError, match="sign"):
        here.publish(signed_by(first, draft_of(entity, (3, 4), sequence=4)), key="k4")


def test_a_token_that_another_process_revoked_is_refused_by_the_next_request(stores):
    here, there = (
        RegistryAccess(store.database, clock=lambda: datetime.now(UTC), ids=sortable_id, open_enrolment=True)
        for store in stores
    )
    identity = Identity.generate()
    request = EnrolmentBody(name="entity", public_key=identity.public_key, at=datetime.now(UTC))
    request = request.model_copy(update={"signature": identity.sign(enrolment_bytes(request))})
    member, token, _ = here.enrol(request)
    for access in (here, there):
        assert access.caller(token).entity == member.id
    there.revoke(member.id, actor="admin")
    with pytest.raises(NotAuthorizedError, match="revoked"):
        here.caller(token)


def test_an_architecture_that_another_process_stored_first_is_pinned_here_too(stores, draft_of, vault_store):
    here, there = stores
    entity = here.register("entity").id
    there.publish(draft_of(entity, (3, 4)), key="k")
    wide = replace(ARCHITECTURE, manifest={"w": TensorSpec(dtype="F32", shape=(2, 5))})
    with pytest.raises(ConflictError, match="pinned to other tensors"):
        here.publish(replace(draft_of(entity, (3, 4)), architecture=wide), key="l")


@pytest.fixture
def side_by_side(start, tmp_path, registry_database):
    """A vault and two registries on one database: the registry to be killed, and the site of the other."""
    port = str(unused_port())
    vault = start("vault", "--data", str(tmp_path / "vault"), "--registry", f"http://127.0.0.1:{port}")
    options = ["--vault", vault.url, "--database", registry_database, "--open-enrolment"]
    survivor = start("registry", "--data", str(tmp_path / "survivor"), "--port", port, *options)
    killed = start("registry", "--data", str(tmp_path / "killed"), *options)
    return killed, Sites(registry=survivor.url, vault=vault.url, folder=tmp_path)


class Follower:
    """Reads the events of a database continuously, each time after the last one that it has seen."""

    def __init__(self, url):
        self._store = RegistryStore(url, vault=None)  # it only reads
        self._access = RegistryAccess(self._store.database, clock=lambda: datetime.now(UTC), ids=sortable_id)
        self._ended = threading.Event()
        self.seen = []
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self):
        while True:
            ended = self._ended.is_set()
            found = self._access.events(after=self.seen[-1][0] if self.seen else 0)
            self.seen += found
            if ended and not found:
                return

    def all(self):
        """Stop; return the events that it has seen, and all that there are."""
        self._ended.set()
        self._thread.join()
        stored, found = [], self._access.events(after=0, limit=1000)
        while found:
            stored += found
            found = self._access.events(after=stored[-1][0], limit=1000)
        self._store.close()
        return self.seen, stored


def test_two_registries_write_side_by_side_until_one_is_killed(side_by_side, safetensors, registry_database):
    killed, sites = side_by_side
    follower = Follower(registry_database)
    doomed = [Writer(replace(sites, registry=killed.url), safetensors, f"doomed-{number}") for number in range(4)]
    others = [Writer(sites, safetensors, f"other-{number}") for number in range(4)]
    for writer in (*doomed, *others):
        writer.join()
    others[0].work(acts=1)
    teacher = next(iter(others[0].published.values())).id
    others[0].name = "other-0 again"  # its idempotency keys are used
    threads = [threading.Thread(target=writer.work, args=([teacher], 10_000)) for writer in doomed]
    threads += [threading.Thread(target=writer.work, args=([teacher], 12)) for writer in others[1:]]
    for thread in threads:
        thread.start()
    while sum(len(writer.published) for writer in doomed) < 30:
        threads[0].join(0.01)
    killed.process.kill()
    for thread in threads:
        thread.join()
    assert [len(writer.published) for writer in others] == [1, 12, 12, 12]  # none of them noticed
    seen, stored = follower.all()
    assert seen == stored
    numbers = [number for number, _ in seen]
    assert numbers == sorted(set(numbers))
    acts = [(entry.act, entry.subject) for _, entry in seen]
    for writer in (*doomed, *others):
        for record in writer.published.values():
            assert acts.count(("publish", record.id)) == 1
    check(sites, (sites.folder / "survivor" / "admin-token").read_text(), [*doomed, *others[1:]])
    for writer in (*doomed, *others):
        writer.close()

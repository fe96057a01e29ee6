"""The first entity to upload a file owns it, whoever publishes it first."""

from contextlib import closing
from dataclasses import replace

import pytest

from kuber.domain.blob import Owner
from kuber.domain.digest import Digest
from kuber.domain.event import utc_now
from kuber.domain.examination import without_copies
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.query import Query
from kuber.services.registry.store import RegistryStore

from ..records import ARCHITECTURE, safetensors_file


class Hub:
    """A registry and its vault in this process, with the clock of this machine."""

    def __init__(self, store, vault, draft_of):
        self.store, self._vault, self._draft_of = store, vault, draft_of
        self._made = 0

    def join(self, name):
        return self.store.register(name).id

    def upload(self, owner, fill):
        data = safetensors_file(ARCHITECTURE.manifest, fill=fill)
        with self._vault.create() as writer:
            writer.write(data)
            return self._vault.commit(writer, Digest.of(data), owner=owner)[0]

    def publish(self, entity, artifact, **changes):
        self._made += 1
        draft = replace(self._draft_of(entity, (3, 4), **changes), artifacts={WEIGHTS: artifact})
        return self.store.publish(draft, key=f"{self._made}")


@pytest.fixture
def hub(place, vault_store, draft_of):
    with closing(RegistryStore(place, vault=vault_store, clock=utc_now)) as store:
        yield Hub(store, vault_store, draft_of)


def test_who_publishes_the_file_of_another_first_has_a_copy_once_its_owner_publishes(hub):
    owner, thief, third = hub.join("owner"), hub.join("thief"), hub.join("third")
    file = hub.upload(owner, 1)
    early = hub.publish(thief, file)
    again = hub.publish(third, file)
    assert (early.copy_of, again.copy_of) == (None, early.id), "nobody else has published it yet"
    assert hub.store.knowledge(early.id) == early
    late = hub.publish(owner, file)
    assert late.copy_of is None
    assert [hub.store.knowledge(copy.id).copy_of for copy in (early, again)] == [late.id] * 2
    found = hub.store.discover(Query(order="oldest")).items
    assert [record.copy_of for record in found] == [late.id, late.id, None]
    assert without_copies(found) == [late]
    assert hub.publish(thief, file).copy_of == late.id
    assert hub.publish(owner, file).copy_of is None
    assert [hub.store.knowledge(copy.id).copy_of for copy in (early, again)] == [late.id] * 2
    copies = [suspicion for suspicion in hub.store.suspicions() if suspicion.copy_of is not None]
    assert {suspicion.first_publisher for suspicion in copies} == {"owner"}


def test_bytes_that_were_uploaded_again_after_a_publication_stay_its_publishers(hub, monkeypatch, vault_store):
    first, second = hub.join("first"), hub.join("second")
    file = hub.upload(first, 1)
    record = hub.publish(first, file)
    later = Owner(entity=second, stored_at=utc_now())  # as after a withdrawal and a collection
    monkeypatch.setattr(vault_store, "owner", lambda digest: later)
    assert hub.publish(second, file).copy_of == record.id
    assert hub.store.knowledge(record.id).copy_of is None


def test_another_registry_on_the_same_database_sees_it_at_once(stores, vault_store, draft_of):
    first, second = (Hub(store, vault_store, draft_of) for store in stores)
    owner, thief = first.join("owner"), first.join("thief")
    file = first.upload(owner, 1)
    early = second.publish(thief, file)
    assert second.store.discover(Query()).items == (early,)
    late = first.publish(owner, file)
    assert {record.copy_of for record in second.store.discover(Query()).items} == {late.id, None}
    assert second.store.knowledge(early.id).copy_of == late.id


def test_the_common_start_is_nobodys(hub):
    owner, other = hub.join("owner"), hub.join("other")
    start = hub.upload(owner, 1)
    records = [hub.publish(entity, start, round=0) for entity in (other, owner)]
    assert [hub.store.knowledge(record.id).copy_of for record in records] == [None, None]

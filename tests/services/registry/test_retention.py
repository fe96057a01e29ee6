"""Retention: a registry that keeps the best records withdraws others, and unpins their blobs."""

from contextlib import closing
from datetime import timedelta

import pytest

from kuber.domain.auth import RETENTION
from kuber.domain.event import utc_now
from kuber.domain.query import Query
from kuber.domain.verification import Standing, Verification
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.store import RegistryStore, sortable_id
from kuber.services.vault.garbage_collection import collect
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def keeping(request, tmp_path, vault_store):
    shared = request.param == "postgresql"
    place = request.getfixturevalue("registry_database") if shared else tmp_path / "keeping.sqlite"
    with closing(RegistryStore(place, vault=vault_store, keep_best=2)) as store:
        yield store


@pytest.fixture
def publish(keeping, draft):
    """Publish a record with so many correct answers of 20, and weights of its own."""
    entities = {}
    count = iter(range(256))

    def act(correct, *, by="one", round=1, **changes):
        entity = entities.setdefault(by, keeping.register(by).id)
        number = next(count)
        sent = draft((correct, 0), entity=entity, round=round, fill=number, **changes)
        return keeping.publish(sent, key=f"act-{number}").id

    return act


def found(store, **query):
    return {record.id for record in store.discover(Query(limit=100, **query)).items}


def test_the_best_and_the_newest_stay_and_others_are_withdrawn(keeping, publish, vault_store):
    ids = [publish(correct) for correct in (1, 5, 3, 7, 2, 4)]
    assert found(keeping) == {ids[1], ids[3], ids[5]}  # 5 and 7 are the best two, 4 the newest
    assert found(keeping, latest=True) == {ids[5]}
    assert keeping.knowledge(ids[0]).id == ids[0]
    pinned = {pin.holder for pin in vault_store.pins().items}
    assert pinned == {ids[1], ids[3], ids[5]}


def test_of_equals_the_newer_stay(keeping, publish):
    ids = [publish(4) for _ in range(5)]
    assert found(keeping) == set(ids[2:])


def test_other_entities_and_initial_checkpoints_are_left_alone(keeping, publish):
    start = publish(0, round=0)
    other = [publish(correct, by="other") for correct in (1, 2, 3)]
    mine = [publish(correct) for correct in (9, 8, 7, 6)]
    assert found(keeping) == {start, *other, mine[0], mine[1], mine[3]}
    again = publish(0, round=0)
    assert found(keeping) == {start, again, *other, mine[0], mine[1], mine[3]}


def test_quarantined_records_neither_count_nor_are_withdrawn(keeping, publish):
    best = publish(9)
    keeping.verify(best, Verification(standing=Standing.QUARANTINED, reason="It lies."))
    ids = [publish(correct) for correct in (3, 2, 1)]
    assert found(keeping) == set(ids)
    assert found(keeping, standing=Standing.QUARANTINED) == {best}


def test_withdrawals_are_events(keeping, publish):
    ids = [publish(correct) for correct in (3, 2, 1, 5)]
    access = RegistryAccess(keeping.database, clock=utc_now, ids=sortable_id, open_enrolment=True)
    withdrawals = [(entry.actor, entry.subject) for _, entry in access.events(after=0) if entry.act == "withdraw"]
    assert withdrawals == [(RETENTION, ids[2])]


def test_blobs_of_withdrawn_records_are_collected(tmp_path, vault_store, draft):
    with closing(VaultStore(tmp_path / "other", lease=timedelta(0))) as vault:
        with closing(RegistryStore(tmp_path / "r.sqlite", vault=vault, keep_best=1)) as store:
            entity = store.register("one").id
            for number in range(6):
                sent = draft((number, 0), entity=entity, fill=number)
                for artifact in sent.artifacts.values():
                    vault.put(vault_store.get(artifact.digest))
                store.publish(sent, key=f"{number}")
        collect(vault, Uploads(vault), grace=timedelta(0))
        assert len(vault.blobs().items) == 2


def test_by_default_everything_is_kept(registry_store, draft, entity):
    for number in range(5):
        registry_store.publish(draft((number, 0), fill=number), key=f"{number}")
    assert len(found(registry_store)) == 5

"""Stores of registry and vault in this process, and drafts for them."""

import dataclasses
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.store import VaultStore
from kuber.wire.signing_payloads import record_bytes
from tests.fixtures.databases import new_sqlite

from .blob_places import Folder, S3Bucket
from .records import ARCHITECTURE, TASK, TEST_SET, safetensors_file


@pytest.fixture
def safetensors():
    return safetensors_file


@pytest.fixture
def vault_store(tmp_path):
    store = VaultStore(new_sqlite(tmp_path / "vault" / "vault.sqlite", "vault").parent)
    yield store
    store.close()


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.process)])
def vault_place(request, tmp_path):
    """Storage of a vault: each test runs on a folder and on a bucket."""
    if request.param == "folder":
        return Folder(tmp_path)
    return S3Bucket(tmp_path, request.getfixturevalue("bucket_url"), request.getfixturevalue("s3").url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def place(request, tmp_path):
    """Location of a registry's database: each test runs on SQLite and PostgreSQL."""
    if request.param == "sqlite":
        return new_sqlite(tmp_path / "registry.sqlite", "registry")
    return request.getfixturevalue("registry_database")


# For tests that examine the file.
on_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def registry_store(place, vault_store):
    times = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in range(10**6))
    store = RegistryStore(place, vault=vault_store, clock=lambda: next(times))
    yield store
    store.close()


@pytest.fixture
def entity(registry_store):
    return registry_store.register("entity-0").id


@pytest.fixture
def draft(vault_store, entity):
    """Make a draft whose blobs are in the vault; other fields as given."""

    def make(correct=(3, 4), *, fill=0, **changes):
        base = Draft(
            entity=entity,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: vault_store.put(safetensors_file(ARCHITECTURE.manifest, fill=fill))},
            evaluation=Evaluation(test_set=TEST_SET, correct=correct, total=(10, 10)),
            round=1,
        )
        return dataclasses.replace(base, **changes)

    return make


@pytest.fixture
def draft_of(vault_store):
    """Make a draft of an entity whose blobs are in the vault, for any store."""

    def make(entity, correct, *, total=(10, 10), **changes):
        return Draft(
            entity=entity,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: vault_store.put(safetensors_file(ARCHITECTURE.manifest))},
            evaluation=Evaluation(test_set=TEST_SET, correct=correct, total=total),
            **{"round": 1} | changes,
        )

    return make


@pytest.fixture
def stores(registry_database, vault_store):
    """Two stores on one database, as two processes would have them."""
    with (
        closing(RegistryStore(registry_database, vault=vault_store)) as first,
        closing(RegistryStore(registry_database, vault=vault_store)) as second,
    ):
        yield first, second


def signed_by(identity, draft):
    """Return the draft, signed with the key of an identity."""
    return dataclasses.replace(draft, signature=identity.sign(record_bytes(draft)))

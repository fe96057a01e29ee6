"""Every implementation of the ports, as fixtures of the contract suites."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

import pytest

from kuber.client.credentials import Credentials
from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.client.vault import HttpVault
from kuber.domain.knowledge import Artifact, Knowledge
from kuber.domain.ports import RegistryAdmin, VaultAdmin
from kuber.domain.query import Query
from kuber.experiment.engines.mapped_memory import MappedMemoryWriter
from kuber.experiment.simulation.recall_index import ColumnRecallIndex
from kuber.experiment.simulation.shared_weights import MappedBlobBytes
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.s3 import S3Storage
from kuber.services.vault.s3_client import Bucket
from kuber.services.vault.store import VaultStore
from tests.fixtures.databases import new_sqlite
from tests.fixtures.hub import SigningRegistry


@pytest.fixture(
    params=[
        "memory",
        "arena",
        "disk",
        *(pytest.param(place, marks=pytest.mark.process) for place in ("postgresql", "http")),
    ]
)
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def vault(place: str, request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[VaultAdmin]:
    if place == "memory":
        yield MemoryVault()
    elif place == "arena":
        yield MemoryVault(MappedBlobBytes(MappedMemoryWriter()))
    elif place == "disk":
        with closing(VaultStore(new_sqlite(tmp_path / "vault" / "vault.sqlite", "vault").parent)) as store:
            yield store
    elif place == "s3":
        storage = S3Storage(Bucket(request.getfixturevalue("bucket_url")))
        with closing(VaultStore(tmp_path / "vault", storage=storage)) as store:
            yield store
    elif place == "postgresql":
        with closing(VaultStore(tmp_path / "vault", database=request.getfixturevalue("vault_database"))) as store:
            yield store
    else:
        hub = request.getfixturevalue("hub")
        with HttpVault(hub.vault, credentials=Credentials(token=hub.secret)) as client:
            yield client


@pytest.fixture
def registry(
    place: str,
    vault: Any,
    request: pytest.FixtureRequest,
    tmp_path: Any,
    clock: Callable[[], datetime],
    ids: Callable[[], str],
) -> Iterator[RegistryAdmin]:
    if place == "memory":
        yield MemoryRegistry(vault=vault, clock=clock, ids=ids)
    elif place == "arena":
        yield MemoryRegistry(vault=vault, clock=clock, ids=ids, recalls=ColumnRecallIndex)
    elif place in ("disk", "postgresql"):
        if place == "disk":
            database = new_sqlite(tmp_path / "registry.sqlite", "registry")
        else:
            database = request.getfixturevalue("registry_database")
        with closing(RegistryStore(database, vault=vault, clock=clock, ids=ids)) as store:
            yield store
    else:
        hub = request.getfixturevalue("hub")
        with SigningRegistry(hub.registry, credentials=Credentials(token=hub.operator)) as client:
            yield client


@pytest.fixture
def publish(registry: RegistryAdmin, vault: VaultAdmin, samples: Any) -> Callable[..., Knowledge]:
    """Publish knowledge with weights of its own, and these fields of the draft."""
    keys = count()

    def act(entity: str, *correct: int, **changes: Any) -> Knowledge:
        fields = {"evaluation": samples.evaluation(*correct)} | changes
        manifest = fields["architecture"].manifest if "architecture" in fields else None
        draft = samples.draft(entity, vault.put(samples.weights(manifest)), **fields)
        return registry.publish(draft, key=f"act-{next(keys)}")

    return act


@pytest.fixture
def entity(registry: RegistryAdmin, samples: Any) -> str:
    """Return the id of an entity that has joined."""
    return registry.register(samples.name()).id


@pytest.fixture
def discovered(registry: RegistryAdmin, samples: Any, walk: Any) -> Callable[..., list[Knowledge]]:
    """Return a function that discovers all records of this test's task, in pages of two."""

    def every(**changes: Any) -> list[Knowledge]:
        query = Query(task=samples.task.name, limit=2, **changes)
        return walk(lambda cursor: registry.discover(replace(query, cursor=cursor)))

    return every


@pytest.fixture
def stored(vault: VaultAdmin, samples: Any) -> Artifact:
    """Return weights that are in the vault."""
    return vault.put(samples.weights())

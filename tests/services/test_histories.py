"""Random histories of registry and vault, with crashes, compared with their in-memory models."""

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft
from kuber.domain.query import Query, all_pages
from kuber.errors import KUberError
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.garbage_collection import collect
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads

from .records import ARCHITECTURE, TASK, TEST_SET, safetensors_file

BLOBS = [*(safetensors_file(ARCHITECTURE.manifest, fill=fill) for fill in range(3)), b"no weights"]
ENTITIES = ["a", "b", "a", "b", "nobody"]
MOSTLY = st.sampled_from([True, True, True, False])
NOTHING = timedelta(0)


class Hub(RuleBasedStateMachine):
    """Apply each act to the stores and to the model, and compare their results and contents."""

    server = None  # PostgreSQL server of the registry; None for a file

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.next_id = ""
        self.records = []
        self.lives = 0
        self.database = ExitStack()
        self.url = self.database.enter_context(self.server.database("registry")) if self.server else None
        self.model_vault = MemoryVault()
        self.model = MemoryRegistry(vault=self.model_vault, clock=lambda: self.now, ids=lambda: self.next_id)
        self.open(self.folder / "0")
        for self.next_id in ENTITIES[:2]:
            self.both(lambda registry, vault: registry.register(self.next_id))

    def open(self, folder):
        self.open_folder = folder
        self.vault = VaultStore(folder, lease=NOTHING)
        self.uploads = Uploads(self.vault, expiry=NOTHING)
        self.registry = RegistryStore(
            self.url or folder / "registry.sqlite", vault=self.vault, clock=lambda: self.now, ids=lambda: self.next_id
        )

    def close(self):
        self.registry.close()
        self.vault.close()

    def teardown(self):
        self.close()
        self.database.close()
        shutil.rmtree(self.folder)

    def both(self, act):
        """Return the result of both, or the class of the error that both raise."""
        results = []
        for registry, vault in ((self.registry, self.vault), (self.model, self.model_vault)):
            try:
                results.append(act(registry, vault))
            except KUberError as error:
                results.append(type(error))
        assert results[0] == results[1]
        return results[0]

    def record_id(self, number):
        """Return the id of a record; number 20 is an unknown one."""
        return f"record-{number if number == 20 or not self.records else number % len(self.records)}"

    @rule(blob=st.sampled_from(BLOBS))
    def put(self, blob):
        self.both(lambda registry, vault: vault.put(blob))

    @rule(
        entity=st.sampled_from(ENTITIES),
        blob=st.sampled_from(BLOBS),
        key=st.integers(0, 5),
        correct=st.integers(0, 2),
        parents=st.lists(st.integers(0, 20), max_size=2, unique=True),
        known=MOSTLY,
        sent=MOSTLY,
    )
    def publish(self, entity, blob, key, correct, parents, known, sent):
        if sent:
            self.put(blob)
        if known:
            parents = {number % len(self.records) for number in parents if self.records}
        self.now += timedelta(seconds=1)
        self.next_id = f"record-{len(self.records)}"
        draft = Draft(
            entity=entity,
            task=TASK,
            architecture=ARCHITECTURE,
            artifacts={WEIGHTS: Artifact(digest=Digest.of(blob), size=len(blob))},
            evaluation=Evaluation(test_set=TEST_SET, correct=(correct, 4), total=(10, 10)),
            round=key,
            parents=tuple(f"record-{number}" for number in sorted(parents)),
        )
        stored = self.both(lambda registry, vault: registry.publish(draft, key=f"key {key}"))
        if not isinstance(stored, type) and stored.id == self.next_id:
            self.records.append(stored)

    @rule(number=st.integers(0, 20))
    def withdraw(self, number):
        self.both(lambda registry, vault: registry.withdraw(self.record_id(number)))

    @rule(
        student=st.sampled_from(ENTITIES),
        teacher=st.integers(0, 20),
        key=st.integers(0, 3),
        reason=st.sampled_from([None, "The newest of 3."]),
    )
    def record(self, student, teacher, key, reason):
        delivery = Delivery(
            student=student,
            teachers=(self.record_id(teacher),),
            method="merge",
            round=key,
            accuracy_before=0.25,
            accuracy_after=0.5,
            kept=True,
            reason=reason,
        )
        self.both(lambda registry, vault: registry.record(delivery, key=f"key {key}"))

    @rule(entity=st.sampled_from(ENTITIES), number=st.integers(0, 20), correct=st.integers(0, 2))
    def attest(self, entity, number, correct):
        found = Evaluation(test_set=TEST_SET, correct=(correct, 4), total=(10, 10))
        self.both(lambda registry, vault: registry.attest(self.record_id(number), entity=entity, evaluation=found))

    @rule()
    def collect(self):
        collect(self.vault, self.uploads, grace=NOTHING)
        for digest in list(self.model_vault._sizes):
            if not self.model_vault._holders.get(digest):
                del self.model_vault._sizes[digest]
        self.model_vault._sorted = None

    @rule()
    def crash(self):
        """Copy the files as they are, without closing anything, and open the copy."""
        self.lives += 1
        copy = self.folder / f"{self.lives}"
        shutil.copytree(self.open_folder, copy)
        self.close()
        self.open(copy)

    @rule()
    def restart(self):
        self.close()
        self.open(self.open_folder)

    @invariant()
    def contents_are_equal(self):
        for record in self.records:
            self.both(lambda registry, vault, id=record.id: registry.knowledge(id))
            self.both(lambda registry, vault, id=record.id: registry.attestations(id))
        for order in ("newest", "accuracy"):
            found = self.both(lambda registry, vault, order=order: pages(registry, Query(order=order, limit=2)))
            for record in found:
                digest = record.artifacts[WEIGHTS].digest
                assert Digest.of(self.vault.get(digest)) == digest
                assert record.id in self.vault.pinned(digest)
        self.both(lambda registry, vault: registry.deliveries(limit=100))
        self.both(lambda registry, vault: registry.members())
        self.both(lambda registry, vault: vault.blobs(limit=100).items)
        for blob in BLOBS:
            digest = Digest.of(blob)
            assert self.vault.pinned(digest) == sorted(self.model_vault._holders.get(digest, ()))


def pages(registry, query):
    return list(all_pages(lambda cursor: registry.discover(replace(query, cursor=cursor))))


@pytest.mark.parametrize("examples", [6, pytest.param(2000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def test_any_history_leaves_the_contents_of_the_model(examples, place, request, monkeypatch):
    if place == "postgresql":
        monkeypatch.setattr(Hub, "server", request.getfixturevalue("postgres"))
        examples = examples * 2 // 3
    options = settings(
        max_examples=examples,
        stateful_step_count=25,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if examples > 100 else [Phase.generate],  # shrinking takes minutes
    )
    run_state_machine_as_test(Hub, settings=options)

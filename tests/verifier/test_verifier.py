"""Verification of claims, with real models in processes of their own."""

from contextlib import closing
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.data.batches import Normalisation
from kuber.data.datasets import load_dataset
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, WEIGHTS, Architecture, Artifact, Draft
from kuber.domain.query import Query
from kuber.domain.task import Task
from kuber.domain.verification import Standing
from kuber.learning.architectures import describe, initial_weights, make_network
from kuber.learning.onnx_export import export
from kuber.learning.weights import dump
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.store import VaultStore
from kuber.verifier.sandboxed_evaluation import Limits, VerificationSet
from kuber.verifier.verifier import Verifier


@pytest.fixture(scope="module")
def verification_set(tmp_path_factory):
    digits = load_dataset("digits", cache_dir=tmp_path_factory.mktemp("cache"))
    samples = digits.test.take(range(200))
    task = Task(name="digits", labels=digits.labels, input_shape=samples.shape, test_set=samples.digest())
    return VerificationSet(
        task=task,
        samples=samples,
        test_set=task.test_set,
        normalisation=Normalisation(digits.mean, digits.std),
    )


@pytest.fixture
def hub(clock):
    numbers = count()
    vault = MemoryVault()
    return MemoryRegistry(vault=vault, clock=clock, ids=lambda: f"id{next(numbers)}"), vault


@pytest.fixture
def publish(hub, verification_set):
    """Publish an untrained mlp that claims this accuracy."""
    registry, vault = hub
    task = verification_set.task
    plain = describe("mlp", {"input_shape": task.input_shape, "classes": task.classes})
    keys = count()
    total = tuple(np.bincount(verification_set.samples.labels, minlength=task.classes).tolist())

    def publish(accuracy, *, fill=None, architecture=plain):
        weights = initial_weights(plain, 0)
        if fill is not None:
            next(iter(weights.values())).fill_(fill)
        data = dump(weights)
        artifact = vault.put(data)
        correct = tuple(round(count * accuracy) for count in total)
        evaluation = Evaluation(test_set=task.test_set, correct=correct, total=total)
        draft = Draft(
            entity=registry.register("publisher").id,
            task=task,
            architecture=architecture,
            artifacts={WEIGHTS: Artifact(digest=artifact.digest, size=len(data))},
            evaluation=evaluation,
            round=1,
        )
        return registry.publish(draft, key=f"{next(keys)}")

    return publish


@pytest.mark.process
def test_claims_are_verified(hub, verification_set, publish):
    registry, vault = hub
    unknown = Architecture(name="homemade", arguments={}, manifest=publish(0.01).architecture.manifest)
    honest, false = registry.discover(Query()).items[0], publish(0.9)
    foreign, broken = publish(0.2, architecture=unknown), publish(0.1, fill=3e38)
    verifier = Verifier(verification_set, registry=registry, vault=vault, limits=Limits())
    reported = []
    assert verifier.verify_pending(lambda record, _: reported.append(record.id)) == 4
    assert reported == [honest.id, false.id, foreign.id, broken.id]
    verdicts = {id: registry.knowledge(id).verification for id in reported}
    assert [verdicts[id].standing for id in reported] == [
        Standing.VERIFIED,
        Standing.QUARANTINED,
        Standing.UNVERIFIABLE,
        Standing.QUARANTINED,
    ]
    assert verdicts[honest.id].evaluation == verdicts[false.id].evaluation
    assert sum(verdicts[honest.id].evaluation.total) == 200
    assert "claims an accuracy of 0.900" in verdicts[false.id].reason
    assert "homemade" in verdicts[foreign.id].reason
    assert "not finite" in verdicts[broken.id].reason
    assert [record.id for record in registry.discover(Query()).items] == [foreign.id, honest.id]
    assert verifier.verify_pending() == 0


@pytest.mark.process
def test_a_record_that_the_operator_quarantines_meanwhile_keeps_that_reason(tmp_path, hub, verification_set, publish):
    record = publish(0.1)
    vault = VaultStore(tmp_path / "vault")
    registry = RegistryStore(tmp_path / "registry.sqlite", vault=vault)
    with closing(vault), closing(registry):
        vault.put(hub[1].get(record.artifacts[WEIGHTS].digest))
        entity = registry.register("publisher").id
        first, second = (registry.publish(replace(record.draft, entity=entity), key=key) for key in "ab")

        class Meanwhile(Verifier):
            def verify(self, knowledge):
                if knowledge == first:
                    registry.quarantine(first.id, "It may carry a backdoor.")
                return super().verify(knowledge)

        verifier = Meanwhile(verification_set, registry=registry, vault=vault, limits=Limits())
        reported = []
        assert verifier.verify_pending(lambda knowledge, _: reported.append(knowledge)) == 1
        assert reported == [second]
        assert registry.knowledge(first.id).verification.reason == "It may carry a backdoor."
        registry.release(first.id)
        verifier = Verifier(verification_set, registry=registry, vault=vault, limits=Limits())
        assert verifier.verify_pending() == 1
        assert registry.knowledge(first.id).verification.standing is Standing.VERIFIED


@pytest.mark.process
def test_a_model_that_exceeds_its_limits_is_unverifiable(hub, verification_set, publish):
    registry, vault = hub
    record = publish(0.1)
    verifier = Verifier(verification_set, registry=registry, vault=vault, limits=Limits(memory_bytes=1))
    found = verifier.verify(record)
    assert found.standing is Standing.UNVERIFIABLE
    assert "bytes" in found.reason


def test_a_record_whose_blob_is_missing_is_quarantined(hub, verification_set, publish):
    registry, vault = hub
    record = publish(0.1)
    lost = replace(record, artifacts={WEIGHTS: Artifact(digest=vault.put(b"x").digest, size=1)})
    vault._sizes.clear()
    found = Verifier(verification_set, registry=registry, vault=vault, limits=Limits()).verify(lost)
    assert found.standing is Standing.QUARANTINED
    assert "vault has no blob" in found.reason


@pytest.mark.process
def test_a_verdict_on_a_secret_test_set_does_not_change_the_rank(hub, verification_set, publish):
    registry, vault = hub
    record = publish(0.3)
    secret = verification_set.samples.take(range(100))
    own = replace(verification_set, samples=secret, test_set=secret.digest())
    Verifier(own, registry=registry, vault=vault, limits=Limits()).verify_pending()
    found = registry.knowledge(record.id)
    assert found.verification.evaluation.test_set == secret.digest()
    assert found.trusted == record.evaluation


@pytest.mark.process
def test_graphs_are_verified_too(hub, verification_set, publish):
    registry, vault = hub
    record = publish(0.1)
    task = verification_set.task
    network = make_network("mlp", {"input_shape": task.input_shape, "classes": task.classes})
    weights = initial_weights(record.architecture, 0)
    network.load_state_dict(weights)
    graph = vault.put(export(network, input_shape=task.input_shape))
    unknown = Architecture(name="forest", arguments={}, manifest={})
    verifier = Verifier(verification_set, registry=registry, vault=vault, limits=Limits())
    found = verifier.verify(replace(record, architecture=unknown, artifacts={ONNX: graph}))
    assert found.standing is Standing.VERIFIED
    assert found.evaluation == verifier.verify(record).evaluation
    broken = vault.put(b"no graph at all")
    found = verifier.verify(replace(record, architecture=unknown, artifacts={ONNX: broken}))
    assert (found.standing, "not an ONNX file" in found.reason) == (Standing.QUARANTINED, True)

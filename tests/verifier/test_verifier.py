"""What the hub finds out about a claim, with real models in real processes."""

from contextlib import closing
from dataclasses import replace
from itertools import count

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
from kuber.learning.onnx_model import export
from kuber.learning.weights import dump
from kuber.services.registry.store import RegistryStore
from kuber.services.vault.store import VaultStore
from kuber.verifier.sandboxed_evaluation import Limits
from kuber.verifier.verifier import VerificationSet, Verifier


@pytest.fixture(scope="module")
def yardstick(tmp_path_factory):
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
def publish(hub, yardstick):
    """Publish an mlp that knows nothing, claiming so much."""
    registry, vault = hub
    task = yardstick.task
    plain = describe("mlp", {"input_shape": task.input_shape, "classes": task.classes})
    keys = count()

    def act(accuracy, *, spoil=None, architecture=plain):
        weights = initial_weights(plain, 0)
        if spoil is not None:
            next(iter(weights.values())).fill_(spoil)
        data = dump(weights)
        artifact = vault.put(data)
        evaluation = Evaluation(
            test_set=task.test_set, correct=(round(100 * accuracy),) * task.classes, total=(100,) * task.classes
        )
        draft = Draft(
            entity=registry.register("publisher").id,
            task=task,
            architecture=architecture,
            artifacts={WEIGHTS: Artifact(digest=artifact.digest, size=len(data))},
            evaluation=evaluation,
            round=1,
        )
        return registry.publish(draft, key=f"{next(keys)}")

    return act


def test_claims_are_measured(hub, yardstick, publish):
    registry, vault = hub
    unknown = Architecture(name="homemade", arguments={}, manifest=publish(0.01).architecture.manifest)
    modest, boaster = registry.discover(Query()).items[0], publish(0.9)
    stranger, broken = publish(0.1, architecture=unknown), publish(0.1, spoil=3e38)
    examiner = Verifier(yardstick, registry=registry, vault=vault, limits=Limits())
    told = []
    assert examiner.examine_pending(lambda record, _: told.append(record.id)) == 4
    assert told == [modest.id, boaster.id, stranger.id, broken.id]
    found = {id: registry.knowledge(id).verification for id in told}
    assert [found[id].standing for id in told] == [
        Standing.VERIFIED,
        Standing.QUARANTINED,
        Standing.UNVERIFIABLE,
        Standing.QUARANTINED,
    ]
    assert found[modest.id].evaluation == found[boaster.id].evaluation
    assert sum(found[modest.id].evaluation.total) == 200
    assert "claims an accuracy of 0.900" in found[boaster.id].reason
    assert "homemade" in found[stranger.id].reason
    assert "not finite" in found[broken.id].reason
    assert [record.id for record in registry.discover(Query()).items] == [stranger.id, modest.id]
    assert examiner.examine_pending() == 0


def test_what_the_operator_quarantines_meanwhile_stays_so(tmp_path, hub, yardstick, publish):
    record = publish(0.1)
    vault = VaultStore(tmp_path / "vault")
    registry = RegistryStore(tmp_path / "registry.sqlite", vault=vault)
    with closing(vault), closing(registry):
        vault.put(hub[1].get(record.artifacts[WEIGHTS].digest))
        entity = registry.register("publisher").id
        first, second = (registry.publish(replace(record.draft, entity=entity), key=key) for key in "ab")

        class Meanwhile(Verifier):
            def examine(self, knowledge):
                if knowledge == first:
                    registry.quarantine(first.id, "It may carry a backdoor.")
                return super().examine(knowledge)

        examiner = Meanwhile(yardstick, registry=registry, vault=vault, limits=Limits())
        told = []
        assert examiner.examine_pending(lambda knowledge, _: told.append(knowledge)) == 1
        assert told == [second]
        assert registry.knowledge(first.id).verification.reason == "It may carry a backdoor."
        registry.release(first.id)
        examiner = Verifier(yardstick, registry=registry, vault=vault, limits=Limits())
        assert examiner.examine_pending() == 1
        assert registry.knowledge(first.id).verification.standing is Standing.VERIFIED


def test_a_model_gets_no_more_than_its_limits(hub, yardstick, publish):
    registry, vault = hub
    record = publish(0.1)
    examiner = Verifier(yardstick, registry=registry, vault=vault, limits=Limits(memory_bytes=1))
    found = examiner.examine(record)
    assert found.standing is Standing.UNVERIFIABLE
    assert "bytes" in found.reason


def test_what_the_vault_does_not_hold_is_quarantined(hub, yardstick, publish):
    registry, vault = hub
    record = publish(0.1)
    lost = replace(record, artifacts={WEIGHTS: Artifact(digest=vault.put(b"x").digest, size=1)})
    vault._sizes.clear()
    found = Verifier(yardstick, registry=registry, vault=vault, limits=Limits()).examine(lost)
    assert found.standing is Standing.QUARANTINED
    assert "vault has no blob" in found.reason


def test_a_secret_test_set_says_nothing_about_ranks(hub, yardstick, publish):
    registry, vault = hub
    record = publish(0.3)
    secret = yardstick.samples.take(range(100))
    own = replace(yardstick, samples=secret, test_set=secret.digest())
    Verifier(own, registry=registry, vault=vault, limits=Limits()).examine_pending()
    found = registry.knowledge(record.id)
    assert found.verification.evaluation.test_set == secret.digest()
    assert found.trusted == record.evaluation


def test_graphs_are_measured_too(hub, yardstick, publish):
    registry, vault = hub
    record = publish(0.1)
    task = yardstick.task
    network = make_network("mlp", {"input_shape": task.input_shape, "classes": task.classes})
    weights = initial_weights(record.architecture, 0)
    network.load_state_dict(weights)
    graph = vault.put(export(network, input_shape=task.input_shape))
    untold = Architecture(name="forest", arguments={}, manifest={})
    examiner = Verifier(yardstick, registry=registry, vault=vault, limits=Limits())
    found = examiner.examine(replace(record, architecture=untold, artifacts={ONNX: graph}))
    assert found.standing is Standing.VERIFIED
    assert found.evaluation == examiner.examine(record).evaluation
    broken = vault.put(b"no graph at all")
    found = examiner.examine(replace(record, architecture=untold, artifacts={ONNX: broken}))
    assert (found.standing, "not an ONNX file" in found.reason) == (Standing.QUARANTINED, True)

"""The common start: what entities begin from, whatever others have published before them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft
from kuber.entity.initialization import COMMON_SEED, MAX_TRIED
from kuber.errors import ConflictError, NotAuthorizedError, RequestRejectedError, ServiceError
from kuber.learning import architectures
from kuber.learning.architectures import describe, initial_weights, is_reproducible
from kuber.learning.start_check import start_fault
from kuber.learning.weights import dump
from kuber.wire.signing_payloads import record_bytes

from .hub.hub_ports import FailingPort
from .scripted_entities import ARCHITECTURE, TASK, evaluation_result, identity

START = initial_weights(ARCHITECTURE, COMMON_SEED)
EARLIER = initial_weights(ARCHITECTURE, 7)


def digest(weights) -> Digest:
    return Digest.of(dump(weights))


def publish(world, name, weights, **changes):
    """Publish an initial checkpoint as another program than ours might."""
    artifact: Artifact = world.vault.put(dump(weights))
    member = world.registry.member(world.id_of(name))
    draft = Draft(
        entity=member.id,
        task=TASK,
        architecture=ARCHITECTURE,
        artifacts={WEIGHTS: artifact},
        evaluation=evaluation_result(33).evaluation,
        round=0,
        sequence=member.sequence + 1,
    )
    draft = replace(draft, **changes)
    signed = replace(draft, signature=identity(name).sign(record_bytes(draft)))
    return world.registry.publish(signed, key=f"{draft.sequence}")


def changed(weights, function):
    return {name: function(tensor) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


BAD = {
    "zero": lambda tensor: tensor * 0,
    "constant": lambda tensor: torch.full_like(tensor, 0.01),
    "huge": lambda tensor: tensor * 1000,
    "tiny": lambda tensor: tensor / 1000,
    "dead": lambda tensor: tensor - 1000 if tensor.dim() == 1 else tensor,
}


REFUSALS = [
    ConflictError("The architecture is pinned to other tensors."),
    RequestRejectedError("It is built in."),
    NotAuthorizedError("The token was revoked."),
]


@pytest.mark.parametrize("bad", BAD)
def test_no_record_decides_a_start_that_can_be_computed(world, bad):
    publish(world, "mallory", changed(START, BAD[bad]))
    world.live("a", [33, 40], rounds=1, strategy="merge", starts=[START])
    world.live("second", [40, 40, 40, 33], rounds=1, strategy="merge", starts=[START])
    begun = [record for record in world.published() if record.entity != world.id_of("mallory")]
    assert {record.origin for record in begun if record.round} == {digest(START)}
    (initial,) = [record for record in begun if record.round == 0]
    assert initial.artifacts[WEIGHTS].digest == digest(START)
    assert {record.parents[:1] for record in begun if record.round} == {(initial.id,)}
    assert len(world.events("second", "absorbed")) == 1


@pytest.mark.parametrize(("published", "begun"), [([EARLIER], EARLIER), ([EARLIER, START], START), ([], START)])
def test_entities_of_earlier_versions_are_joined_where_they_began(world, published, begun):
    for weights in published:
        publish(world, "old", weights)
    entity = world.entity("a", rounds=0, strategy="merge", starts=[START, EARLIER])
    entity._evaluator.own = lambda weights, stage: evaluation_result(33).evaluation
    entity.run()
    assert entity._journal.state.origin == digest(begun)
    assert digest(entity._journal.state.weights) == digest(begun)
    assert len(entity._journal.state.parents) == 1


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.code)
@pytest.mark.parametrize("starts", [[START], []], ids=["computed", "agreed"])
def test_no_refusal_of_a_publication_ends_an_entity(world, error, starts):
    registry = FailingPort(world.registry, checked=False)
    registry.error, registry.of = error, ("publish",)
    tries = 1 if starts else 2
    world.live("a", [*[33] * tries, 40], rounds=1, strategy="merge", starts=starts, registry=registry)
    assert world.kinds("a")[-1] == "round-ended"
    assert [detail["reason"] for detail in world.events("a", "dropped")] == [error.message] * (tries + 1)


@pytest.mark.parametrize("method", ["discover", "member"])
def test_no_answer_of_the_hub_keeps_an_entity_from_beginning(world, method):
    publish(world, "b", START)
    registry = FailingPort(world.registry, checked=False)
    registry.error, registry.of = ServiceError("It failed with status 500."), (method,)
    evaluations = [33, 40] if method == "discover" else [40]
    world.live("a", evaluations, rounds=1, strategy="merge", starts=[START], registry=registry)
    assert world.kinds("a")[-1] == "round-ended"
    assert world.events("a", "failed")[0]["reason"] == "It failed with status 500."


@pytest.mark.parametrize("bad", BAD)
def test_a_start_that_cannot_be_computed_is_adopted_only_if_it_is_sound(world, bad):
    publish(world, "mallory", changed(EARLIER, BAD[bad]))
    sound = publish(world, "honest", EARLIER)
    world.live("a", [33, 33, 40], rounds=1, strategy="merge")
    (record,) = [record for record in world.published() if record.round]
    assert (record.origin, record.parents) == (digest(EARLIER), (sound.id,))
    (rejected,) = world.events("a", "rejected")
    assert rejected["reason"].startswith("It is no start for a model: its tensor layers.")


def test_many_checkpoints_of_one_publisher_hide_no_other(world):
    for number in range(MAX_TRIED + 1):
        publish(world, "mallory", changed(EARLIER, lambda tensor, by=number: tensor * 0 + by))
    publish(world, "honest", EARLIER)
    world.live("a", [33, 33, 40], rounds=1, strategy="merge")
    (record,) = [record for record in world.published() if record.round]
    assert record.origin == digest(EARLIER)
    assert len(world.events("a", "rejected")) == 1


@pytest.mark.parametrize("name", ["cnn", "lenet", "resnet20", "mlp"])
def test_each_architecture_takes_the_start_of_another_seed_and_a_trained_one(name):
    architecture = describe(name, {"input_shape": (3, 16, 16), "classes": 2})
    own = initial_weights(architecture, 1)
    for seed in range(5):
        assert start_fault(initial_weights(architecture, seed), own) is None
    draws = torch.Generator().manual_seed(0)
    trained = changed(own, lambda tensor: tensor + 0.1 * torch.randn(tensor.shape, generator=draws))
    trained |= {key: 100 * tensor for key, tensor in trained.items() if "running" in key}
    assert start_fault(trained, own) is None
    for bad in BAD.values():
        assert start_fault(changed(own, bad), own) is not None


def test_an_architecture_that_draws_its_own_numbers_is_not_reproducible(monkeypatch):
    draws = iter(range(100))
    monkeypatch.setattr(architectures, "initial_weights", lambda *_: {"w": torch.full((2,), 1.0 * next(draws))})
    assert is_reproducible(ARCHITECTURE)
    assert not is_reproducible(replace(ARCHITECTURE, name="forest"))


def test_an_owners_network_is_not_reset_by_a_dead_checkpoint(tmp_path):
    hub = kuber.memory_hub()
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    task = kuber.Task(name="sides", labels=("left", "right"), input_shape=(2,))

    def entity(name, model):
        return kuber.Entity(
            name,
            model=model,
            task=task,
            validation=(x, y),
            strategy="merge",
            hub=hub,
            formats=("weights",),
            folder=tmp_path / name,
        )

    def network():
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))

    dead = network()
    for parameter in dead.parameters():
        nn.init.zeros_(parameter)
    with entity("mallory", dead) as mallory:
        mallory.step()
    model = network()
    with entity("ann", model) as ann:
        ann.step()
        assert all(parameter.any() for parameter in ann.model.parameters())

"""A hub restored from an older backup: its entities continue, and publish again what it has lost."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import kuber
from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.delivery import Delivery
from kuber.domain.query import Query
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.steps import train_locally
from kuber.errors import ConflictError, CorruptKnowledgeError

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Restorable:
    """A registry in memory of which backups are made and restored."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self.registry = registry

    def __getattr__(self, name):
        return getattr(self.registry, name)

    def backup(self) -> MemoryRegistry:
        made = copy.copy(self.registry)
        shared = ("_lock", "_vault", "_clock", "_ids")
        made.__dict__ |= {
            name: value if name in shared else copy.deepcopy(value) for name, value in vars(self.registry).items()
        }
        return made


@pytest.fixture
def restorable(world):
    world.registry = Restorable(world.registry)
    return world.registry


def records(world, name):
    id = world.registry.register(name, public_key=world.entity(name, rounds=1)._session._hub.identity.public_key).id
    return [record for record in reversed(world.published()) if record.entity == id]


def test_a_living_entity_publishes_its_newest_model_again(world, restorable):
    kept, phases = [], []

    def watch(work):
        if work.function is train_locally:
            phases.append(work)
            if len(phases) == 2:
                kept.append(restorable.backup())
            if len(phases) == 4:
                restorable.registry = kept[0]

    # Vanilla publishes what is better than the round before: nothing in rounds 4 and 5, were it not for the loss.
    world.live("a", [10, 20, 30, 25, 24], rounds=5, watch=watch, background=True)
    assert [record.round for record in records(world, "a")] == [1, 4]
    assert [record.sequence for record in records(world, "a")] == [1, 4]
    assert world.events("a", "restored") == [{"lost": 2, "left_out": 0}]


def test_lost_parents_are_left_out_of_a_publication_and_of_a_delivery(world, restorable):
    world.live("teacher", [50], rounds=1)
    old = restorable.backup()
    world.live("teacher2", [60], rounds=1)
    lost = records(world, "teacher2")[0].id
    kept = records(world, "teacher")[0].id

    entity = world.entity("a", rounds=2, background=True)
    entity._session.join_and_flush()
    restorable.registry = old
    journal, session = entity._journal, entity._session
    assert session.restoration.lost == 0
    journal.change(entity_id=world.id_of("a"), parents=(kept, lost), round=1)
    assert session.publisher.publish(records(world, "teacher")[0].evaluation)
    assert records(world, "a")[0].parents == (kept,)
    delivery = Delivery(
        student=world.id_of("a"),
        teachers=(lost, kept),
        method="merge",
        round=1,
        accuracy_before=0.1,
        accuracy_after=0.2,
        kept=True,
    )
    session.outbox.record(delivery, key="one")
    session.outbox.record(replace(delivery, teachers=(lost,)), key="two")
    assert restorable.deliveries().items[0].teachers == (kept,)
    assert [detail["left_out"] for detail in world.events("a", "restored")][:2] == [1, 1]
    assert not journal.state.outbox


def test_a_refused_message_waits_for_no_record_that_cannot_be_read(world, restorable, monkeypatch):
    world.live("teacher", [50], rounds=1)
    evaluation = records(world, "teacher")[0].evaluation
    entity = world.entity("a", rounds=2, background=True)
    entity._session.join_and_flush()
    entity._journal.change(entity_id=world.id_of("a"), parents=("nothing",), round=1)

    def unreadable(id):
        raise CorruptKnowledgeError("The registry sent a malformed answer.")

    monkeypatch.setattr(restorable, "knowledge", unreadable, raising=False)
    assert not entity._session.publisher.publish(evaluation)
    assert not entity._journal.state.outbox
    assert [detail["message"] for detail in world.events("a", "dropped")] == ["publication"]


def test_an_entity_that_the_hub_has_lost_joins_again_and_its_queue_goes_with_it(world, restorable):
    world.live("teacher", [50], rounds=1)
    old = restorable.backup()
    world.live("a", [40, 30, 45], rounds=2)
    before = world.id_of("a")
    world.restart("a")
    restorable.registry = old
    world.live("a", [50], rounds=3, background=True)
    assert world.id_of("a") != before
    assert [record.sequence for record in records(world, "a")] == [2, 3]


def test_a_living_entity_that_the_hub_has_lost_joins_again(world, restorable):
    world.live("teacher", [50], rounds=1)
    old, phases = restorable.backup(), []

    def watch(work):
        if work.function is train_locally:
            phases.append(work)
            if len(phases) == 4:
                restorable.registry = old

    # The second round is worse than the first: the entity learns from the teacher, which it then knows.
    world.live("a", [40, 30, 45, 46, 47, 48], rounds=5, watch=watch, background=True)
    assert [record.round for record in records(world, "a")] == [4, 5]
    assert world.kinds("a").count("joined") == 2
    assert world.events("a", "restored") == [{"lost": 2, "left_out": 0}]


def test_a_foreign_hub_is_still_refused(world):
    world.live("a", [40], rounds=1)
    world.restart("a")
    world.registry = MemoryRegistry(vault=MemoryVault(), clock=world.clock, ids=lambda: "another")
    with pytest.raises(ConflictError, match="another registry"):
        world.live("a", [40], rounds=2, background=True)


def test_an_entity_whose_own_folder_is_older_continues_after_the_hubs_last_record(world, restorable):
    world.live("a", [10, 20, 30], rounds=3)
    world.restart("a")
    entity = world.entity("a", rounds=4)
    entity._session.join_and_flush()
    entity._journal.change(sequence=1, round=9)
    evaluation = records(world, "a")[0].evaluation
    assert not entity._session.publisher.publish(evaluation)  # its number is taken
    assert entity._session.publisher.publish(evaluation)
    assert [record.sequence for record in records(world, "a")] == [1, 2, 3, 5]


def test_an_owners_loop_publishes_again(tmp_path):
    registry, vault = kuber.memory_hub()
    registry = Restorable(registry)
    task = kuber.Task(name="sides", labels=("left", "right"), input_shape=(2,))
    with kuber.Entity(
        "ann",
        model=nn.Linear(2, 2),
        task=task,
        validation=(X, Y),
        formats=("weights",),
        hub=(registry, vault),
        folder=tmp_path / "ann",
    ) as entity:
        entity.step()
        old = registry.backup()
        entity.publish()
        registry.registry = old
        for _ in range(2):
            entity.step()
        found = registry.discover(Query(order="newest")).items
    assert len(found) >= 1
    lost = [event.detail for event in read_events(tmp_path / "ann" / FILE_NAME) if event.kind == "restored"]
    assert lost == [{"lost": 1, "left_out": 0}]

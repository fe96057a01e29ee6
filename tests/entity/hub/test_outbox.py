"""An unreachable or full hub: the entity continues to train, queues its messages, and sends them later in order."""

import pytest
import torch

from kuber.client.memory.registry import MemoryRegistry
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.query import Query
from kuber.entity.state.blob_cache import BlobCache
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.work.steps import evaluate_on_common_set
from kuber.errors import ConflictError, InsufficientStorageError, RequestRejectedError, ServiceUnavailableError

UNREACHABLE = ServiceUnavailableError("No answer.")
FULL = InsufficientStorageError("No space.")


class FailingPort:
    """A port whose calls raise `error` while it is set."""

    def __init__(self, port, error=None, of=None):
        self.port = port
        self.error = error
        self.of = of  # name of the only method that fails; None: all of them

    def __getattr__(self, name):
        if self.error is not None and self.of in (None, name):
            return self._raise
        return getattr(self.port, name)

    def _raise(self, *args, **kwargs):
        raise self.error


@pytest.fixture
def hub(world):
    """Function that makes both ports of the world fail, or work again."""
    world.registry, world.vault = FailingPort(world.registry), FailingPort(world.vault)

    def cut(error=UNREACHABLE, *, registry=True, vault=True):
        world.registry.error = error if registry else None
        world.vault.error = error if vault else None

    return cut


def at_round(number, act):
    """A watcher that acts before the local phase of this round."""
    phases = []

    def watch(work):
        if work.function.__name__ == "train_locally":
            phases.append(work)
            if len(phases) == number:
                act()

    return watch


class RegistryWithoutPriors:
    """A registry of an older version, which refuses the field `prior`."""

    def __init__(self, registry):
        self.registry = registry
        self.refused = []

    def __getattr__(self, name):
        return getattr(self.registry, name)

    def publish(self, draft, *, key):
        if draft.prior is not None:
            self.refused.append(draft)
            raise RequestRejectedError("The field prior is refused: extra inputs are not permitted.")
        return self.registry.publish(draft, key=key)


def test_a_registry_of_an_older_version_gets_records_without_the_prior(world):
    current = world.registry
    world.live("a", [10], rounds=1)
    (record,) = world.published()
    assert record.prior == "own"
    world.registry = RegistryWithoutPriors(current)
    world.live("a", [20], rounds=2)
    assert [record.prior for record in world.published()] == [None, "own"]
    assert sequences(world, "a") == [1, 2]
    assert world.events("a", "dropped") == []
    (refused,) = world.registry.refused
    assert (refused.prior, world.published()[0].signature) == ("own", refused.signature)


def sequences(world, name):
    return [r.sequence for r in reversed(world.published()) if r.entity == world.id_of(name)]


def test_training_continues_while_the_hub_is_unreachable_and_queued_records_are_published_in_order(world, hub):
    unreachable = []

    def watch(work):
        if work.function.__name__ == "train_locally":
            unreachable.append(len(unreachable) in (1, 2))
            hub(UNREACHABLE if unreachable[-1] else None)

    # Unreachable from the second local phase to the fourth: rounds 2 and 3 are queued, and round 4 begins before
    # the hub is back.
    world.live("a", [10, 20, 30, 40, 50], rounds=5, watch=watch)
    assert [record.round for record in reversed(world.published())] == [1, 2, 3, 4, 5]
    assert sequences(world, "a") == [1, 2, 3, 4, 5]
    assert [detail["sequence"] for detail in world.events("a", "queued")] == [2, 3, 4]
    assert len(world.events("a", "unreachable")) == 3  # once a round
    assert world.kinds("a").count("round-ended") == 5
    for record in world.published():
        assert Digest.of(world.vault.get(record.artifacts[WEIGHTS].digest)) == record.artifacts[WEIGHTS].digest
    assert list((world.folder / "a" / "waiting").iterdir()) == []


def test_queued_messages_survive_a_restart_without_the_hub_and_one_with_it(world, hub):
    with pytest.raises(ServiceUnavailableError, match="2 messages to the hub are queued"):
        world.live("a", [10, 20, 30], rounds=3, watch=at_round(2, hub))
    world.restart("a")
    with pytest.raises(ServiceUnavailableError, match="resume when the hub is back"):
        world.live("a", [], rounds=3)
    hub(None)
    assert [record.round for record in world.published()] == [1]
    world.restart("a")
    assert world.live("a", [], rounds=3) == []
    assert [record.round for record in reversed(world.published())] == [1, 2, 3]
    assert sequences(world, "a") == [1, 2, 3]
    assert len(world.events("a", "published")) == 3


@pytest.mark.parametrize("steps", range(1, 8))
def test_killed_anywhere_while_the_hub_is_unreachable_nothing_is_published_twice(world, hub, steps):
    world.live("strong", [90], rounds=1)
    # A kill after queueing must not queue again.
    world.live("a", [10, 20, 30, 40, 50, 60, 70][: steps - steps // 2], rounds=4, until=steps, watch=at_round(2, hub))
    world.restart("a")
    hub(None)
    world.live("a", [55] * left(world, "a"), rounds=4)
    own = [record for record in world.published() if record.entity == world.id_of("a")]
    assert len({record.sequence for record in own}) == len(own)
    assert len({record.round for record in own}) == len(own)
    logged = [detail["knowledge"] for detail in world.events("a", "published")]
    assert sorted(logged) == sorted(record.id for record in own)


def left(world, name):
    """How many evaluations a vanilla entity still makes if no model is better."""
    state = Checkpoints(world.folder / name).latest()
    return 4 - state.round


def test_a_full_vault_queues_publications_too(world, hub):
    def full():
        world.vault.error, world.vault.of = FULL, "put"

    def empty():
        world.vault.error = None

    def watch(work):
        full_then(work)
        empty_then(work)

    full_then, empty_then = at_round(1, full), at_round(2, empty)
    world.live("a", [10, 20], rounds=2, watch=watch)
    assert sequences(world, "a") == [1, 2]
    assert [detail["reason"] for detail in world.events("a", "queued")] == [FULL.message, "Others wait before it."]
    assert world.events("a", "unreachable") == []


def test_attestations_and_deliveries_are_sent_later(world, hub):
    world.live("teacher", [10, 60], rounds=1, strategy="merge")
    back = at_round(2, lambda: hub(None))
    evaluations = []

    def watch(work):
        back(work)
        if work.function is evaluate_on_common_set:
            evaluations.append(work)
            if len(evaluations) == 2:
                hub()  # the teacher was pulled, and is not attested yet

    world.live("student", [50, 60, 65, 10, 66], rounds=2, strategy="merge", watch=watch)
    (delivery,) = world.registry.deliveries().items
    assert (delivery.student, delivery.round) == (world.id_of("student"), 1)
    (absorbed,) = world.events("student", "absorbed")
    assert delivery.reason == absorbed["reason"]
    assert "found 60.0 %" in delivery.reason
    assert [a.entity for a in world.registry.attestations(delivery.teachers[0])] == [delivery.student]
    assert [detail["sequence"] for detail in world.events("student", "queued")] == [2]


def test_an_entity_that_has_not_joined_cannot_start_without_the_hub(world, hub):
    hub()
    with pytest.raises(ServiceUnavailableError, match="No answer"):
        world.live("a", [], rounds=1)


def test_another_hub_does_not_receive_messages_queued_for_the_first(world, hub):
    with pytest.raises(ServiceUnavailableError):
        world.live("a", [10, 20], rounds=2, watch=at_round(2, hub))
    world.restart("a")
    other = MemoryRegistry(vault=world.vault, clock=world.clock, ids=lambda: "another id")
    with pytest.raises(ConflictError, match="another registry"):
        world.live("a", [], rounds=2, registry=other)
    assert other.discover(Query()).items == ()


def test_damaged_pending_weights_are_not_published_and_hold_up_nothing(world, hub):
    with pytest.raises(ServiceUnavailableError):
        world.live("a", [10, 20], rounds=2, watch=at_round(2, hub))
    (blob,) = (world.folder / "a" / "waiting").iterdir()
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    hub(None)
    world.restart("a")
    assert world.live("a", [], rounds=2) == []
    assert sequences(world, "a") == [1]
    (dropped,) = world.events("a", "dropped")
    assert dropped["message"] == "publication"
    assert "missing or damaged" in dropped["reason"]


def test_without_pending_storage_an_unreachable_hub_is_an_error(world, hub):
    with pytest.raises(ServiceUnavailableError, match="No answer"):
        world.live("a", [10, 20], rounds=2, watch=at_round(2, hub), storage={"pending": None})


def test_bfloat16_weights_are_half_the_bytes_and_claim_their_own_evaluation(world):
    world.live("float32", [50], rounds=1)
    world.live("bfloat16", [50, 48], rounds=1, transfer_dtype="bfloat16")
    rounded, exact = world.published()
    assert rounded.evaluation.accuracy == 0.48
    assert rounded.architecture == exact.architecture
    assert rounded.artifacts[WEIGHTS].size < 0.6 * exact.artifacts[WEIGHTS].size
    teacher = world.discovery("student").models.pull(rounded)
    assert {tensor.dtype for tensor in teacher.weights.values()} <= {torch.float32, torch.int64}
    assert [detail["stage"] for detail in world.events("bfloat16", "evaluated")] == ["trained", "narrowed"]


def test_a_cached_blob_is_not_pulled_again(world, hub):
    world.live("strong", [60], rounds=1)
    (record,) = world.published()
    discovery = world.discovery("student")
    assert discovery.models.pull(record) is not None
    world.vault.error = UNREACHABLE
    assert discovery.models.pull(record) is not None
    size = record.artifacts[WEIGHTS].size
    assert [detail["bytes"] for detail in world.events("student", "pulled")] == [size, 0]


def test_a_cache_keeps_to_its_limit_and_drops_the_least_recently_used(tmp_path):
    blobs = BlobCache(tmp_path / "blobs", limit=25)
    data = [bytes([number]) * 10 for number in range(3)]
    first, second, third = map(Digest.of, data)
    blobs.keep(first, data[0])
    blobs.keep(second, data[1])
    assert blobs.get(first) == data[0]
    blobs.keep(third, data[2])
    assert (blobs.get(first), blobs.get(second), blobs.get(third)) == (data[0], None, data[2])
    blobs.keep(Digest.of(b"x" * 26), b"x" * 26)
    assert blobs.get(Digest.of(b"x" * 26)) is None


def test_a_damaged_blob_is_not_returned(tmp_path):
    blobs = BlobCache(tmp_path / "blobs")
    digest = Digest.of(b"whole")
    blobs.keep(digest, b"whole")
    (tmp_path / "blobs" / digest.hex).write_bytes(b"whale")
    assert blobs.get(digest) is None
    assert list((tmp_path / "blobs").iterdir()) == []


class Carrier(FailingPort):
    """A registry that takes blobs with a record."""

    def __init__(self, registry, vault, error=None):
        super().__init__(registry)
        self.vault = vault
        self.refusal = error
        self.sent = []

    def publish_with(self, draft, blobs, *, key):
        self.sent.append(key)
        if self.refusal is not None:
            raise self.refusal
        for data in blobs:
            self.vault.put(data)
        return self.port.publish(draft, key=key)


def test_small_blobs_go_with_their_record(world):
    vault = world.vault
    world.registry, world.vault = Carrier(world.registry, vault), FailingPort(vault, FULL, of="put")
    world.live("a", [10, 20, 30], rounds=3)
    assert sequences(world, "a") == list(range(1, len(world.registry.sent) + 1))
    assert len(world.registry.sent) >= 3


def test_where_the_vault_does_not_answer_the_registry_is_used_all_the_same(world):
    vault = FailingPort(world.vault, UNREACHABLE)
    world.registry, world.vault = Carrier(world.registry, vault, UNREACHABLE), vault
    with pytest.raises(ServiceUnavailableError, match="messages to the hub are queued"):
        world.live("a", [10, 20, 30], rounds=3)
    assert {detail["service"] for detail in world.events("a", "unreachable")} == {"vault"}
    vault.error = None
    world.live("b", [10, 20, 30], rounds=3)  # the registry refuses with 503, and takes the separate requests
    assert len(sequences(world, "b")) >= 3

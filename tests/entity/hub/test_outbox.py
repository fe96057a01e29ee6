"""A hub that is away or full: the entity trains on, keeps what it has to tell, and tells it later in order."""

import pytest
import torch

from kuber.client.memory.registry import MemoryRegistry
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS
from kuber.domain.query import Query
from kuber.entity.state.blob_cache import BlobCache
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.work.steps import evaluate_on_common_set
from kuber.errors import ConflictError, CorruptKnowledgeError, InsufficientStorageError, ServiceUnavailableError

AWAY = ServiceUnavailableError("No answer.")
FULL = InsufficientStorageError("No space.")


class Cut:
    """A port that raises `error` instead of answering, while there is one."""

    def __init__(self, port, error=None, of=None):
        self.port = port
        self.error = error
        self.of = of  # one method; else all of them

    def __getattr__(self, name):
        if self.error is not None and self.of in (None, name):
            return self._raise
        return getattr(self.port, name)

    def _raise(self, *args, **kwargs):
        raise self.error


@pytest.fixture
def hub(world):
    """Both ports of the world, to be cut off."""
    world.registry, world.vault = Cut(world.registry), Cut(world.vault)

    def cut(error=AWAY, *, registry=True, vault=True):
        world.registry.error = error if registry else None
        world.vault.error = error if vault else None

    return cut


def at_round(number, act):
    """A watcher that acts when the local phase of this round is about to be done."""
    phases = []

    def watch(work):
        if work.function.__name__ == "train_locally":
            phases.append(work)
            if len(phases) == number:
                act()

    return watch


def sequences(world, name):
    return [one.sequence for one in reversed(world.published()) if one.entity == world.id_of(name)]


def test_training_goes_on_while_the_hub_is_away_and_what_waits_is_published_in_order(world, hub):
    away = []

    def watch(work):
        if work.function.__name__ == "train_locally":
            away.append(len(away) in (1, 2))
            hub(AWAY if away[-1] else None)

    # Away from the second local phase to the fourth: rounds 2 and 3 wait, and round 4 begins before the hub is back.
    world.live("a", [10, 20, 30, 40, 50], rounds=5, watch=watch)
    assert [one.round for one in reversed(world.published())] == [1, 2, 3, 4, 5]
    assert sequences(world, "a") == [1, 2, 3, 4, 5]
    assert [one["sequence"] for one in world.events("a", "queued")] == [2, 3, 4]
    assert len(world.events("a", "unreachable")) == 3  # once a round
    assert world.kinds("a").count("round-ended") == 5
    for record in world.published():
        assert Digest.of(world.vault.get(record.artifacts[WEIGHTS].digest)) == record.artifacts[WEIGHTS].digest
    assert list((world.folder / "a" / "waiting").iterdir()) == []


def test_what_waits_survives_a_restart_without_the_hub_and_one_with_it(world, hub):
    with pytest.raises(ServiceUnavailableError, match="2 messages to the hub are queued"):
        world.live("a", [10, 20, 30], rounds=3, watch=at_round(2, hub))
    world.restart("a")
    with pytest.raises(ServiceUnavailableError, match="resume when the hub is back"):
        world.live("a", [], rounds=3)
    hub(None)
    assert [one.round for one in world.published()] == [1]
    world.restart("a")
    assert world.live("a", [], rounds=3) == []
    assert [one.round for one in reversed(world.published())] == [1, 2, 3]
    assert sequences(world, "a") == [1, 2, 3]
    assert len(world.events("a", "published")) == 3


@pytest.mark.parametrize("steps", range(1, 8))
def test_killed_anywhere_while_the_hub_is_away_nothing_is_published_twice(world, hub, steps):
    world.live("strong", [90], rounds=1)
    # Merging publishes in each round, whatever it is worth; a kill after queueing must not queue again.
    world.live("a", [10, 20, 30, 40, 50, 60, 70][: steps - steps // 2], rounds=4, until=steps, watch=at_round(2, hub))
    world.restart("a")
    hub(None)
    world.live("a", [55] * left(world, "a"), rounds=4)
    own = [one for one in reversed(world.published()) if one.entity == world.id_of("a")]
    assert len({one.sequence for one in own}) == len(own)
    assert len({one.round for one in own}) == len(own)
    told = [event["knowledge"] for event in world.events("a", "published")]
    assert sorted(told) == sorted(one.id for one in own)


def left(world, name):
    """How many evaluations a vanilla entity that finds nobody better has still to make."""
    state = Checkpoints(world.folder / name).latest()
    return 4 - state.round


def test_a_full_vault_makes_it_wait_too(world, hub):
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
    assert [one["reason"] for one in world.events("a", "queued")] == [FULL.message, "Others wait before it."]
    assert world.events("a", "unreachable") == []


def test_what_was_found_out_and_absorbed_is_told_later(world, hub):
    world.live("teacher", [10, 60], rounds=1, strategy="merge")
    back = at_round(2, lambda: hub(None))
    evaluations = []

    def watch(work):
        back(work)
        if work.function is evaluate_on_common_set:
            evaluations.append(work)
            if len(evaluations) == 2:
                hub()  # the teacher was pulled, and nothing is told about it yet

    world.live("student", [50, 60, 65, 66], rounds=2, strategy="merge", watch=watch)
    (delivery,) = world.registry.deliveries().items
    assert (delivery.student, delivery.round) == (world.id_of("student"), 1)
    (absorbed,) = world.events("student", "absorbed")
    assert delivery.reason == absorbed["reason"]
    assert "found 60.0 %" in delivery.reason
    assert [one.entity for one in world.registry.attestations(delivery.teachers[0])] == [delivery.student]
    assert [one["sequence"] for one in world.events("student", "queued")] == [2]


def test_who_has_never_joined_cannot_begin_without_the_hub(world, hub):
    hub()
    with pytest.raises(ServiceUnavailableError, match="No answer"):
        world.live("a", [], rounds=1)


def test_another_hub_does_not_hear_what_was_meant_for_the_first(world, hub):
    with pytest.raises(ServiceUnavailableError):
        world.live("a", [10, 20], rounds=2, watch=at_round(2, hub))
    world.restart("a")
    other = MemoryRegistry(vault=world.vault, clock=world.clock, ids=lambda: "another id")
    with pytest.raises(ConflictError, match="another registry"):
        world.live("a", [], rounds=2, registry=other)
    assert other.discover(Query()).items == ()


def test_weights_that_wait_and_are_damaged_are_not_published(world, hub):
    with pytest.raises(ServiceUnavailableError):
        world.live("a", [10, 20], rounds=2, watch=at_round(2, hub))
    (blob,) = (world.folder / "a" / "waiting").iterdir()
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    hub(None)
    world.restart("a")
    with pytest.raises(CorruptKnowledgeError, match="missing or damaged"):
        world.live("a", [], rounds=2)


def test_without_a_place_to_wait_an_absent_hub_is_an_error(world, hub):
    with pytest.raises(ServiceUnavailableError, match="No answer"):
        world.live("a", [10, 20], rounds=2, watch=at_round(2, hub), storage={"pending": None})


def test_narrowed_weights_are_half_the_bytes_and_claim_what_they_are_worth(world):
    world.live("wide", [50], rounds=1)
    world.live("narrow", [50, 48], rounds=1, transfer_dtype="bfloat16")
    narrow, wide = world.published()
    assert narrow.evaluation.accuracy == 0.48
    assert narrow.architecture == wide.architecture
    assert narrow.artifacts[WEIGHTS].size < 0.6 * wide.artifacts[WEIGHTS].size
    teacher = world.discovery("student").pull(narrow)
    assert {tensor.dtype for tensor in teacher.weights.values()} <= {torch.float32, torch.int64}
    assert [one["stage"] for one in world.events("narrow", "evaluated")] == ["trained", "narrowed"]


def test_what_was_pulled_is_not_asked_for_again(world, hub):
    world.live("strong", [60], rounds=1)
    (record,) = world.published()
    discovery = world.discovery("student")
    assert discovery.pull(record) is not None
    world.vault.error = AWAY
    assert discovery.pull(record) is not None
    size = record.artifacts[WEIGHTS].size
    assert [one["bytes"] for one in world.events("student", "pulled")] == [size, 0]


def test_blobs_keep_to_their_limit_and_drop_the_least_lately_used(tmp_path):
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


def test_a_damaged_blob_is_not_given(tmp_path):
    blobs = BlobCache(tmp_path / "blobs")
    digest = Digest.of(b"whole")
    blobs.keep(digest, b"whole")
    (tmp_path / "blobs" / digest.hex).write_bytes(b"whale")
    assert blobs.get(digest) is None
    assert list((tmp_path / "blobs").iterdir()) == []

"""The loop of an entity, its work scripted: what it publishes, absorbs and refuses, and repeats after a kill."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import torch

from kuber.client.memory import MemoryRegistry, MemoryVault
from kuber.data.augment import Normalisation
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, TensorSpec
from kuber.domain.query import Query
from kuber.domain.strategy import STRATEGIES
from kuber.domain.task import Task
from kuber.entity.checkpoint import Checkpoints, initial_state
from kuber.entity.log import FILE_NAME, EventLog, read_events, rewind
from kuber.entity.loop import Entity, drive
from kuber.entity.work import Evaluated, Learner, Learnt, distil_locally, evaluate_commonly, train_locally
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.distillation import Distillation
from kuber.learning.runtime import Runtime
from kuber.learning.training import Training

COMMON = Digest.of(b"common test set")
TASK = Task(name="toy", labels=("a", "b"), input_shape=(3,), test_set=COMMON)
ARCHITECTURE = describe("mlp", {"input_shape": (3,), "classes": 2})
ONE = TensorSpec(dtype="F32", shape=(1,))
RUNTIME = Runtime(device="cpu", precision="float32", threads=1, channels_last=False)


class World:
    """Ports in memory, and entities whose accuracies are written down beforehand."""

    def __init__(self, folder: Path) -> None:
        ticks = count()
        self.clock = lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks))
        ids = count(1)
        self.folder = folder
        self.vault = MemoryVault()
        self.registry = MemoryRegistry(vault=self.vault, clock=self.clock, ids=lambda: f"id{next(ids)}")
        self.log = EventLog(folder / FILE_NAME, clock=self.clock)

    def entity(self, name: str, *, rounds: int, strategy: str = "vanilla") -> Entity:
        seed = len(name)
        return Entity(
            name,
            task=TASK,
            learner=learner(self.folder),
            strategy=STRATEGIES[strategy],
            rounds=rounds,
            registry=self.registry,
            vault=self.vault,
            checkpoints=Checkpoints(self.folder / name),
            log=self.log,
            class_counts=(5, 5),
            initial=lambda: initial_state(
                life=f"life of {name}",
                weights=initial_weights(ARCHITECTURE, seed),
                generator=torch.Generator().get_state(),
            ),
        )

    def live(self, name: str, accuracies: list[int], *, rounds: int, strategy: str = "vanilla", until: int = 10**6):
        """Drive an entity whose evaluations find these percentages; stop dead after `until` work steps."""
        script = iter(accuracies)
        steps = self.entity(name, rounds=rounds, strategy=strategy).steps()
        result = None
        done = []
        for _ in range(until):
            try:
                work = steps.send(result)
            except StopIteration:
                assert list(script) == []
                return done
            done.append(work.function)
            if work.function is evaluate_commonly:
                correct = next(script)
                evaluation = Evaluation(test_set=COMMON, correct=(correct, 0), total=(100, 0))
                result = Evaluated(evaluation=evaluation, seconds=0.1)
            else:
                result = learnt(work.arguments["weights"], forward=10 if work.function is distil_locally else 0)
        steps.close()
        return done

    def kinds(self, name: str) -> list[str]:
        return [event.kind for event in read_events(self.folder / FILE_NAME) if event.entity == name]

    def events(self, name: str, kind: str) -> list[dict]:
        events = read_events(self.folder / FILE_NAME)
        return [dict(event.detail) for event in events if (event.entity, event.kind) == (name, kind)]

    def published(self) -> list:
        return list(self.registry.discover(Query(order="newest")).items)


def learner(folder: Path) -> Learner:
    return Learner(
        architecture=ARCHITECTURE,
        private=Samples(folder / "none", "train", rows=torch.arange(10).numpy()),
        common=Samples(folder / "none", "test", rows=torch.arange(10).numpy()),
        test_set=COMMON,
        normalisation=Normalisation((0.0,), (1.0,)),
        flip=False,
        batch_size=2,
        training=Training(epochs=1, learning_rate=0.1),
        distillation=Distillation(epochs=1, learning_rate=0.1),
        runtime=RUNTIME,
        classes=2,
    )


def learnt(weights, *, forward: int) -> Learnt:
    """As if training had moved every weight a little."""
    moved = {name: tensor + 0.5 for name, tensor in weights.items()}
    state = torch.Generator().get_state()
    return Learnt(weights=moved, generator=state, samples=10, forward=forward, loss=1.0, seconds=0.1)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_the_first_evaluation_is_shared_an_equal_one_is_not(world):
    world.live("a", [10, 10, 12], rounds=3)
    assert [knowledge.round for knowledge in world.published()] == [3, 1]
    one_round = ["round-started", "trained", "evaluated"]
    assert world.kinds("a") == [
        "joined",
        *one_round,
        "published",
        "round-ended",
        *one_round,
        "round-ended",
        *one_round,
        "published",
        "round-ended",
    ]


def test_what_is_shared_is_in_the_vault_under_its_digest(world):
    world.live("a", [30], rounds=1)
    (knowledge,) = world.published()
    artifact = knowledge.artifacts[WEIGHTS]
    assert Digest.of(world.vault.get(artifact.digest)) == artifact.digest
    assert (knowledge.task, knowledge.evaluation.accuracy, knowledge.sample_count) == (TASK, 0.3, 10)
    assert knowledge.class_counts == (5, 5)
    (told,) = world.events("a", "published")
    assert told == {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": artifact.size}


def test_a_degraded_entity_absorbs_the_best_of_others(world):
    world.live("weak", [35], rounds=1)
    world.live("strong", [60], rounds=1)
    done = world.live("student", [50, 40, 55], rounds=2)
    assert done == [
        train_locally,
        evaluate_commonly,
        train_locally,
        evaluate_commonly,
        distil_locally,
        evaluate_commonly,
    ]
    (absorbed,) = world.events("student", "absorbed")
    strong = world.registry.register("strong").id
    assert absorbed["publishers"] == [strong]
    assert (absorbed["before"], absorbed["after"], absorbed["kept"]) == (0.4, 0.55, True)
    (delivery,) = world.registry.deliveries().items
    assert (delivery.teachers, delivery.accuracy_after) == (tuple(absorbed["teachers"]), 0.55)
    student = world.registry.register("student").id
    assert [k.round for k in world.published() if k.entity == student] == [1], "the result is not published"


def test_what_was_absorbed_counts_as_the_previous_round_and_as_parent(world):
    world.live("strong", [60], rounds=1)
    teacher = world.published()[0].id
    world.live("student", [50, 40, 70, 65, 45, 66, 67], rounds=5)
    # Round 3 compares 65 with the 70 after absorbing and degrades, though nobody is better; round 4 degrades and
    # absorbs; round 5 improves and names both teachings as parents.
    student = world.registry.register("student").id
    last = world.published()[0]
    assert (last.entity, last.round, last.parents) == (student, 5, (teacher, teacher))
    assert [detail["candidates"] for detail in world.events("student", "sought")] == [1, 0, 1]


def test_nobody_better_is_logged_and_nothing_is_done(world):
    world.live("weak", [35], rounds=1)
    done = world.live("a", [50, 40], rounds=2)
    assert distil_locally not in done
    assert world.events("a", "sought") == [{"candidates": 0}]


def test_local_talks_to_nobody(world):
    world.live("strong", [90], rounds=1)
    world.live("a", [50, 40, 60], rounds=3, strategy="local")
    assert not {"published", "sought", "absorbed"} & set(world.kinds("a"))


@pytest.mark.parametrize("error", [CorruptKnowledgeError("It is damaged."), KnowledgeNotFoundError("It is gone.")])
def test_unsound_knowledge_is_refused_once_and_the_next_best_is_taken_later(world, error, monkeypatch):
    world.live("good", [60], rounds=1)
    world.live("broken", [90], rounds=1)
    broken, good = world.published()
    sound = world.vault.get

    def get(digest):
        if digest == broken.artifacts[WEIGHTS].digest:
            raise error
        return sound(digest)

    monkeypatch.setattr(world.vault, "get", get)
    world.live("student", [50, 40, 30, 55], rounds=3)
    (rejected,) = world.events("student", "rejected")
    assert rejected == {"knowledge": broken.id, "reason": error.message, "bytes": 0}
    (absorbed,) = world.events("student", "absorbed")
    assert absorbed["teachers"] == [good.id]


def test_knowledge_of_another_task_is_refused(world):
    world.live("other", [90], rounds=1)
    (record,) = world.published()
    entity = world.entity("student", rounds=1)
    entity.task = replace(TASK, labels=("b", "a"))
    assert entity._pull(record) is None
    (rejected,) = world.events("student", "rejected")
    assert "another task" in rejected["reason"]


@pytest.mark.parametrize("change", [{"name": "cnn"}, {"name": "nobody"}, {"arguments": {}}, {"manifest": {"w": ONE}}])
def test_an_architecture_that_our_factory_does_not_make_is_refused(world, change):
    world.live("other", [90], rounds=1)
    (record,) = world.published()
    record = replace(record, architecture=replace(record.architecture, **change))
    assert world.entity("student", rounds=1)._pull(record) is None
    assert len(world.events("student", "rejected")) == 1


def test_a_teacher_that_speaks_nonsense_is_refused_and_the_entity_goes_on(world):
    world.live("broken", [60], rounds=1)
    (broken,) = world.published()
    script = iter([50, 40, 45])

    def do(work):
        if work.function is distil_locally:
            raise CorruptKnowledgeError("It says infinity.")
        if work.function is evaluate_commonly:
            evaluation = Evaluation(test_set=COMMON, correct=(next(script), 0), total=(100, 0))
            return Evaluated(evaluation=evaluation, seconds=0.1)
        return learnt(work.arguments["weights"], forward=0)

    drive(world.entity("student", rounds=3).steps(), do)
    (rejected,) = world.events("student", "rejected")
    assert (rejected["knowledge"], rejected["reason"]) == (broken.id, "It says infinity.")
    assert world.kinds("student").count("round-ended") == 3
    assert world.registry.deliveries().items == ()


@pytest.mark.parametrize("until", range(1, 13))
def test_a_kill_after_any_step_loses_nothing_and_repeats_nothing(world, until):
    """Two rounds with an absorption in the second: killed anywhere, resumed, the outcome is that of one life."""
    world.live("strong", [60], rounds=1)
    script = [50, 40, 55, 70]
    done = world.live("student", script, rounds=3, until=until)
    state = Checkpoints(world.folder / "student").latest()
    rewind(world.folder / FILE_NAME, reached={"strong": 10**6, "student": state.seq})
    world.log = EventLog(world.folder / FILE_NAME, clock=world.clock)
    evaluated = {
        ("ended", 0): 0,
        ("trained", 1): 1,
        ("ended", 1): 1,
        ("trained", 2): 2,
        ("absorbed", 2): 3,
        ("ended", 2): 3,
        ("trained", 3): 4,
        ("ended", 3): 4,
    }[state.stage, state.round]
    world.live("student", script[evaluated:], rounds=3)
    one_round = ["round-started", "trained", "evaluated"]
    assert world.kinds("student") == [
        "joined",
        *one_round,
        "published",
        "round-ended",
        *one_round,
        "sought",
        "pulled",
        "evaluated",
        "absorbed",
        "round-ended",
        *one_round,
        "published",
        "round-ended",
    ]
    seqs = [e.seq for e in read_events(world.folder / FILE_NAME) if e.entity == "student"]
    assert seqs == list(range(len(seqs)))
    student = world.registry.register("student").id
    assert [k.round for k in world.published() if k.entity == student] == [3, 1]
    assert len(world.registry.deliveries().items) == 1
    assert done[0] is train_locally


def test_a_kill_between_publishing_and_saving_publishes_once(world, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save_round", killed)
        with pytest.raises(Killed):
            world.live("a", [50], rounds=1)
    assert len(world.published()) == 1
    state = Checkpoints(world.folder / "a").latest()
    assert state.stage == "trained"
    rewind(world.folder / FILE_NAME, reached={"a": state.seq})
    world.log = EventLog(world.folder / FILE_NAME, clock=world.clock)
    world.live("a", [], rounds=1)
    assert len(world.published()) == 1
    assert world.kinds("a").count("published") == 1

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
from kuber.domain.strategies import STRATEGIES
from kuber.domain.task import Task
from kuber.entity.checkpoint import Checkpoints, initial_state, round_path
from kuber.entity.learner import Learner
from kuber.entity.log import FILE_NAME, EventLog, read_events, rewind
from kuber.entity.loop import Entity, drive
from kuber.entity.retrieval import Retrieval
from kuber.entity.work import Evaluated, Learnt, distil_locally, evaluate_commonly, train_locally
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.distillation import Distillation
from kuber.learning.runtime import Runtime
from kuber.learning.training import Training
from kuber.learning.weights import load

COMMON = Digest.of(b"common test set")
TASK = Task(name="toy", labels=("a", "b", "c"), input_shape=(3,), test_set=COMMON)
ARCHITECTURE = describe("mlp", {"input_shape": (3,), "classes": 3})
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
            class_counts=(5, 5, 0),
            initial=lambda: initial_state(
                life=f"life of {name}",
                weights=initial_weights(ARCHITECTURE, seed),
                generator=torch.Generator().get_state(),
            ),
        )

    def live(
        self,
        name: str,
        accuracies: list[int],
        *,
        rounds: int,
        strategy: str = "vanilla",
        until: int = 10**6,
        watch=None,
    ):
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
            if watch:
                watch(work)
            if work.function is evaluate_commonly:
                correct = next(script)
                evaluation = Evaluation(test_set=COMMON, correct=(correct, 0, 0), total=(100, 0, 0))
                result = Evaluated(evaluation=evaluation, seconds=0.1)
            else:
                result = learnt(work.arguments["weights"], forward=10 if work.function is distil_locally else 0)
        steps.close()
        return done

    def retrieval(self, name: str, *, task: Task = TASK) -> Retrieval:
        entity = self.entity(name, rounds=1)
        return Retrieval(
            id=self.registry.register(name).id,
            task=task,
            learner=entity.learner,
            registry=self.registry,
            vault=self.vault,
            journal=entity._journal,
        )

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
        classes=3,
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
    assert knowledge.class_counts == (5, 5, 0)
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
    # absorbs; round 5 improves and names the teacher of both as parent.
    student = world.registry.register("student").id
    last = world.published()[0]
    assert (last.entity, last.round, last.parents) == (student, 5, (teacher,))
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
    retrieval = world.retrieval("student", task=replace(TASK, labels=("b", "a", "c")))
    assert retrieval.pull(record) is None
    (rejected,) = world.events("student", "rejected")
    assert "another task" in rejected["reason"]


@pytest.mark.parametrize("change", [{"name": "cnn"}, {"name": "nobody"}, {"arguments": {}}, {"manifest": {"w": ONE}}])
def test_an_architecture_that_our_factory_does_not_make_is_refused(world, change):
    world.live("other", [90], rounds=1)
    (record,) = world.published()
    record = replace(record, architecture=replace(record.architecture, **change))
    assert world.retrieval("student").pull(record) is None
    assert len(world.events("student", "rejected")) == 1


def test_a_teacher_that_speaks_nonsense_is_refused_and_the_entity_goes_on(world):
    world.live("broken", [60], rounds=1)
    (broken,) = world.published()
    script = iter([50, 40, 45])

    def do(work):
        if work.function is distil_locally:
            raise CorruptKnowledgeError("It says infinity.")
        if work.function is evaluate_commonly:
            evaluation = Evaluation(test_set=COMMON, correct=(next(script), 0, 0), total=(100, 0, 0))
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


def test_entities_with_other_initial_weights_begin_from_the_first_one_published(world):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    world.live("second", [10, 55, 60, 70], rounds=1, strategy="merge")
    initial = world.registry.discover(Query(initial=True)).items
    assert [knowledge.round for knowledge in initial] == [0]
    origin = initial[0].artifacts[WEIGHTS].digest
    first, second = reversed([one for one in world.published() if one.round == 1])
    assert first.origin == second.origin == origin
    assert first.parents == second.parents == (initial[0].id,)
    # "second" has another seed, but trained on from what it pulled: the same step from the same weights.
    assert first.artifacts == second.artifacts


def test_a_merge_is_the_average_and_is_kept_halfway_or_undone(world):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    script = [10, 55, 60, 70]  # what it adopts, own, the candidate, merged: kept
    script += [52, 60, 71]  # own, merged (much worse than 70), halfway: kept
    script += [60, 64, 65]  # neither is nearly as good as 71: undone
    world.live("student", script, rounds=3, strategy="merge")
    absorbed = world.events("student", "absorbed")
    assert [(one["method"], one["before"], one["after"], one["kept"]) for one in absorbed] == [
        ("merge", 0.55, 0.70, True),
        ("merge", 0.52, 0.71, True),
        ("merge", 0.60, 0.64, False),
    ]
    rounds = [load_round(world, "student", number) for number in (1, 2, 3)]
    origin = initial_weights(ARCHITECTURE, len("one"))
    for name, tensor in origin.items():
        # A phase moves every weight by 0.5; the other model stays where it was after one.
        torch.testing.assert_close(rounds[0][name], tensor + 0.5)
        stale = 2**-0.5  # one round old
        merged = (1.0 + stale * 0.5) / (1 + stale)
        torch.testing.assert_close(rounds[1][name], tensor + (0.5 + merged) / 2)
        assert torch.equal(rounds[2][name], rounds[1][name])
    assert len(world.events("student", "pulled")) == 2, "the initial checkpoint, and the other model once"


def load_round(world, name, number):
    return load(round_path(world.folder / name, number).read_bytes(), ARCHITECTURE)


def test_a_claim_that_does_not_hold_is_refused(world):
    world.live("liar", [10, 90], rounds=1, strategy="merge")
    world.live("student", [10, 55, 60], rounds=1, strategy="merge")
    (rejected,) = world.events("student", "rejected")
    assert rejected["reason"] == "It claims an accuracy of 0.900 and has 0.600."
    assert world.events("student", "absorbed") == []


def test_a_model_no_better_than_chance_is_not_merged(world):
    world.live("poor", [10, 33], rounds=1, strategy="merge")
    world.live("student", [10, 55, 33], rounds=1, strategy="merge")
    assert world.events("student", "absorbed") == []


def test_guides_speak_in_the_local_phase_and_its_outcome_is_gated(world):
    world.live("teacher", [60], rounds=1, strategy="exchange")
    script = [60, 30, 50]  # the candidate, the model before the first phase and after it: kept
    script += [40, 45]  # after the phase, and halfway: both worse than 50, so the phase is undone
    heard = []

    def hear(work):
        if work.function is train_locally:
            heard.append(tuple(guide.recalls for guide in work.arguments.get("guides", ())))

    world.live("student", script, rounds=2, strategy="exchange", watch=hear)
    assert heard == [((0.6, 0.0, 0.0),)] * 2
    absorbed = world.events("student", "absorbed")
    assert [(one["method"], one["before"], one["after"], one["kept"]) for one in absorbed] == [
        ("guide", 0.3, 0.5, True),
        ("guide", 0.5, 0.4, False),
    ]
    first, second = (load_round(world, "student", number) for number in (1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_guide_that_speaks_nonsense_is_refused_and_the_phase_goes_on_without(world):
    world.live("broken", [60], rounds=1, strategy="exchange")
    script = iter([60, 30, 50])
    trained = []

    def do(work):
        if work.function is evaluate_commonly:
            evaluation = Evaluation(test_set=COMMON, correct=(next(script), 0, 0), total=(100, 0, 0))
            return Evaluated(evaluation=evaluation, seconds=0.1)
        trained.append(len(work.arguments.get("guides", ())))
        if trained[-1]:
            raise CorruptKnowledgeError("It says infinity.")
        return learnt(work.arguments["weights"], forward=0)

    drive(world.entity("student", rounds=1, strategy="exchange").steps(), do)
    assert trained == [1, 0]
    assert [one["reason"] for one in world.events("student", "rejected")] == ["It says infinity."]
    assert world.events("student", "absorbed") == []


@pytest.mark.parametrize("until", range(1, 11))
def test_a_kill_in_a_life_of_merges_loses_nothing(world, until):
    world.live("one", [10, 60], rounds=1, strategy="merge")
    script = [10, 55, 60, 70, 52, 60, 71]
    world.live("student", script, rounds=2, strategy="merge", until=until)
    state = Checkpoints(world.folder / "student").latest()
    rewind(world.folder / FILE_NAME, reached={"one": 10**6, "student": state.seq})
    world.log = EventLog(world.folder / FILE_NAME, clock=world.clock)
    # What was pulled before the kill is pulled and evaluated again: only the state outlives an entity.
    left = {
        ("ended", 0): script if state.origin is None else script[1:],
        ("trained", 1): script[2:],
        ("absorbed", 1): [*script[4:5], 60, *script[5:]],
        ("ended", 1): [*script[4:5], 60, *script[5:]],
        ("trained", 2): [60, *script[5:]],
        ("absorbed", 2): [],
        ("ended", 2): [],
    }[state.stage, state.round]
    world.live("student", left, rounds=2, strategy="merge")
    student = world.registry.register("student").id
    assert [one.round for one in world.published() if one.entity == student] == [2, 1]
    assert [one.accuracy_after for one in world.registry.deliveries().items] == [0.70, 0.71]
    first, second = (load_round(world, "student", number) for number in (1, 2))
    assert not all(torch.equal(first[name], second[name]) for name in first)
    seqs = [e.seq for e in read_events(world.folder / FILE_NAME) if e.entity == "student"]
    assert seqs == list(range(len(seqs)))


def test_a_kill_after_publishing_the_initial_checkpoint_publishes_it_once(world, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    sound = world.registry.publish
    monkeypatch.setattr(world.registry, "publish", lambda draft, key: (sound(draft, key=key), killed()))
    with pytest.raises(Killed):
        world.live("a", [10], rounds=1, strategy="merge")
    monkeypatch.undo()
    state = Checkpoints(world.folder / "a").latest()
    rewind(world.folder / FILE_NAME, reached={"a": state.seq})
    world.log = EventLog(world.folder / FILE_NAME, clock=world.clock)
    world.live("a", [10, 50], rounds=1, strategy="merge")
    assert [record.round for record in world.published()] == [1, 0]
    told = [detail["knowledge"] for detail in world.events("a", "published")]
    assert told == [record.id for record in reversed(world.published())]

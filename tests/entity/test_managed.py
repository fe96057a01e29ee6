"""Managed entities with scripted work: what they publish, absorb and refuse, and repeat after a kill."""

from dataclasses import replace

import pytest
import torch

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS
from kuber.entity.state.checkpoint import Checkpoints, round_path
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.average import average_on_common_set
from kuber.entity.work.learner import AdjustedTeacher
from kuber.entity.work.steps import DroppedTeacher, distil_locally, evaluate_on_common_set, train_locally
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.learning.merging import merge
from kuber.learning.weights import load

from .scripted_entities import ARCHITECTURE, SCALAR, TASK, Killed, Script, average_result, evaluation_result


def test_the_first_evaluation_is_published_an_equal_one_is_not(world):
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


def test_published_weights_are_in_the_vault_under_their_digest(world):
    world.live("a", [30], rounds=1)
    (knowledge,) = world.published()
    artifact = knowledge.artifacts[WEIGHTS]
    assert Digest.of(world.vault.get(artifact.digest)) == artifact.digest
    assert (knowledge.task, knowledge.evaluation.accuracy, knowledge.sample_count) == (TASK, 0.3, 10)
    assert knowledge.class_counts == (5, 5, 0)
    (detail,) = world.events("a", "published")
    assert detail == {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": artifact.size}


def test_a_degraded_entity_absorbs_the_best_other_model(world):
    world.live("weak", [35], rounds=1)
    world.live("strong", [60], rounds=1)
    done = world.live("student", [50, 40, 55], rounds=2)
    assert done == [
        train_locally,
        evaluate_on_common_set,
        train_locally,
        evaluate_on_common_set,
        distil_locally,
        evaluate_on_common_set,
    ]
    (absorbed,) = world.events("student", "absorbed")
    strong = world.id_of("strong")
    assert absorbed["publishers"] == [strong]
    assert (absorbed["before"], absorbed["after"], absorbed["kept"]) == (0.4, 0.55, True)
    (delivery,) = world.registry.deliveries().items
    assert (delivery.teachers, delivery.accuracy_after) == (tuple(absorbed["teachers"]), 0.55)
    student = world.id_of("student")
    assert [k.round for k in world.published() if k.entity == student] == [1], "the result is not published"


def test_an_absorption_counts_for_the_previous_round_and_as_parent(world):
    world.live("strong", [60], rounds=1)
    teacher = world.published()[0].id
    world.live("student", [50, 40, 70, 65, 45, 66, 67], rounds=5)
    # Round 3 compares 65 with the 70 after absorbing and degrades, though nobody is better; round 4 degrades and
    # absorbs; round 5 improves and names the teacher of both as parent.
    student = world.id_of("student")
    last = world.published()[0]
    assert (last.entity, last.round, last.parents) == (student, 5, (teacher,))
    assert [detail["candidates"] for detail in world.events("student", "sought")] == [1, 0, 1]


def test_without_a_better_model_the_query_is_logged_and_nothing_absorbed(world):
    world.live("weak", [35], rounds=1)
    done = world.live("a", [50, 40], rounds=2)
    assert distil_locally not in done
    assert world.events("a", "sought") == [{"candidates": 0}]


def test_local_publishes_and_discovers_nothing(world):
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
    discovery = world.discovery("student", task=replace(TASK, labels=("b", "a", "c")))
    assert discovery.models.pull(record) is None
    (rejected,) = world.events("student", "rejected")
    assert "another task" in rejected["reason"]


@pytest.mark.parametrize(
    "change", [{"name": "cnn"}, {"name": "nobody"}, {"arguments": {}}, {"manifest": {"w": SCALAR}}]
)
def test_an_architecture_that_our_factory_does_not_make_is_refused(world, change):
    world.live("other", [90], rounds=1)
    (record,) = world.published()
    record = replace(record, architecture=replace(record.architecture, **change))
    assert world.discovery("student").models.pull(record) is None
    assert len(world.events("student", "rejected")) == 1


def test_a_teacher_with_invalid_logits_is_refused_and_the_entity_continues(world):
    world.live("broken", [60], rounds=1)
    (broken,) = world.published()

    def fail(work):
        if work.function is distil_locally:
            raise CorruptKnowledgeError("Its logits are infinite.")

    world.live("student", [50, 40, 45], rounds=3, watch=fail)
    (rejected,) = world.events("student", "rejected")
    assert (rejected["knowledge"], rejected["reason"]) == (broken.id, "Its logits are infinite.")
    assert world.kinds("student").count("round-ended") == 3
    assert world.registry.deliveries().items == ()


def test_a_teacher_that_takes_too_long_in_a_phase_is_refused_and_the_round_goes_on(world):
    world.live("slow", [60], rounds=1)
    (record,) = world.published()

    class Dropping(Script):
        def __call__(self, work):
            result = super().__call__(work)
            if work.function is not train_locally or "teachers" not in work.arguments:
                return result
            failures = (DroppedTeacher(place, "It exceeded its time limit.", True) for place in range(2))
            return replace(result, dropped=tuple(failures))  # the second may be the own model

    script = Dropping([60, 30, 40, 41])  # the teacher, and the own model before and after
    world.entity("student", rounds=2, execute=script, strategy="exchange").run()
    (rejected,) = world.events("student", "rejected")
    assert (rejected["knowledge"], rejected["reason"]) == (record.id, "It exceeded its time limit.")
    assert world.events("student", "absorbed") == []
    assert world.kinds("student").count("round-ended") == 2


@pytest.mark.parametrize(("without", "adjusted"), [(70, True), (50, False)])
def test_a_teacher_answers_without_the_prior_that_its_record_states_unless_that_is_worse(world, without, adjusted):
    world.live("strong", [60], rounds=1)  # trained with cross-entropy on 5, 5 and 0 samples of the classes
    teachers = []

    class Watching(Script):
        def __call__(self, work):
            if "shift" in work.arguments:
                return evaluation_result(without)
            teachers.extend(work.arguments.get("teachers", ()))
            return super().__call__(work)

    world.entity("student", rounds=1, execute=Watching([60, 30, 40]), strategy="exchange").run()
    teacher = teachers[0]
    assert isinstance(teacher, AdjustedTeacher) == adjusted
    assert teacher.recalls[0] == max(without, 60) / 100
    if adjusted:
        shift = torch.tensor(teacher.shift)
        assert torch.allclose(shift[2] - shift[:2], torch.tensor(6.0).log().expand(2))


@pytest.mark.parametrize("until", range(1, 13))
def test_a_kill_after_any_step_loses_nothing_and_repeats_nothing(world, until):
    """Two rounds with an absorption in the second: killed anywhere, resumed, the outcome is that of one life."""
    world.live("strong", [60], rounds=1)
    script = [50, 40, 55, 70]
    done = world.live("student", script, rounds=3, until=until)
    state = Checkpoints(world.folder / "student").latest()
    world.restart("student")
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
    student = world.id_of("student")
    assert [k.round for k in world.published() if k.entity == student] == [3, 1]
    assert len(world.registry.deliveries().items) == 1
    assert done[0] is train_locally


@pytest.mark.parametrize("until", [10**6, 5, 6])
def test_each_training_of_a_round_goes_through_its_span_also_after_a_kill(world, until):
    """The distillation goes through it again: in most rounds there is none."""
    world.live("strong", [60], rounds=1)
    spans = []

    def watch(work):
        if work.function in (train_locally, distil_locally):
            spans.append((work.function, work.arguments["span"]))

    world.live("student", [50, 40, 55], rounds=2, until=until, watch=watch)
    world.restart("student")
    if until < 10**6:
        world.live("student", [55], rounds=2, watch=watch)
    first, second = (0.0, 0.5), (0.5, 1.0)
    assert list(dict.fromkeys(spans)) == [(train_locally, first), (train_locally, second), (distil_locally, second)]
    assert len(spans) == (3 if until == 10**6 else 4)


def test_a_kill_between_publishing_and_saving_publishes_once(world, monkeypatch):
    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save_round", killed)
        with pytest.raises(Killed):
            world.entity("a", rounds=1, execute=Script([50])).run()
    assert len(world.published()) == 1
    state = Checkpoints(world.folder / "a").latest()
    assert state.stage == "trained"
    world.restart("a")
    world.live("a", [], rounds=1)
    assert len(world.published()) == 1
    assert world.kinds("a").count("published") == 1


class Averaging(Script):
    """Evaluates averages with these percentages, in their order."""

    def __init__(self, percentages, averages, **more):
        super().__init__(percentages, **more)
        self.models = []
        self._averages = list(averages)

    def __call__(self, work):
        if work.function is not average_on_common_set:
            return super().__call__(work)
        self.models.append(work.arguments["models"])
        return average_result(work.arguments["models"], self._averages.pop(0))


def test_the_deployed_model_is_the_best_of_last_earlier_and_average(world):
    script = Averaging([40, 50, 30, 45, 70], [30, 60, 55, 65])
    world.entity("a", rounds=5, execute=script, strategy="local").run()
    ends = [end["deployed"] for end in world.events("a", "round-ended")]
    assert [(end["model"], end["round"], end["accuracy"]) for end in ends] == [
        ("last", 1, 0.4),
        ("last", 2, 0.5),
        ("average", 3, 0.6),
        ("average", 3, 0.6),
        ("last", 5, 0.7),
    ]
    assert [end["forward"] for end in ends] == [0, 100, 100, 100, 100]
    folder = world.folder / "a"
    models = [load(round_path(folder, number).read_bytes(), ARCHITECTURE) for number in (1, 2, 3)]
    average = load((folder / ends[3]["checkpoint"]).read_bytes(), ARCHITECTURE)
    expected = merge(models[::-1], [1.0] * 3)
    assert all(torch.equal(average[name], tensor) for name, tensor in expected.items())
    assert [len(models) for models in script.models] == [2, 3, 3, 3]
    state = Checkpoints(folder).latest()
    assert (state.deployed.round, state.deployed.averaged, state.deployed.evaluation.accuracy) == (5, False, 0.7)


def test_an_entity_of_an_earlier_version_and_one_without_its_files_go_on(world):
    world.entity("a", rounds=2, execute=Script([40, 50]), strategy="local").run()
    folder = world.folder / "a"
    checkpoints = Checkpoints(folder)
    checkpoints.save(replace(checkpoints.latest(), deployed=None))
    round_path(folder, 1).unlink()
    script = Averaging([30], [20])
    world.entity("a", rounds=3, execute=script, strategy="local").run()
    assert [len(models) for models in script.models] == [2]
    assert world.events("a", "round-ended")[-1]["deployed"]["model"] == "last"
    round_path(folder, 3).write_bytes(b"damaged")
    script = Averaging([20], [10])
    world.entity("a", rounds=4, execute=script, strategy="local").run()
    assert script.models == []
    assert world.events("a", "round-ended")[-1]["deployed"]["model"] == "best"

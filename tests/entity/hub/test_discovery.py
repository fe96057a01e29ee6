"""Candidates are tried as weights and as graphs before they are refused, and an owner learns why there are none."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.knowledge import ONNX, WEIGHTS, Artifact
from kuber.domain.strategy import Method
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.slow_graphs import MAX_OF_A_PUBLISHER
from kuber.entity.hub.track_records import RefusalCause
from kuber.entity.state.checkpoint import _decode, _encode
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.errors import CorruptKnowledgeError, TimeLimitError
from kuber.learning import compatibility

from ..scripted_entities import Script, evaluation_result

LABELS = ("left", "right")
X = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
TASK = kuber.Task(name="sides", labels=LABELS, input_shape=(2,))


GOOD, WEAK = [[-9.0, 0.0], [9.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]


def network(weight):
    model = nn.Linear(2, 2)
    model.load_state_dict({"weight": torch.tensor(weight), "bias": torch.zeros(2)})
    return model


@pytest.fixture
def enter(hub, tmp_path):
    made = []

    def enter(name, model, **more):
        fields = {"task": TASK, "validation": (X, Y), "hub": hub, "folder": tmp_path / name, "formats": ("weights",)}
        made.append(kuber.Entity(name, model=model, **(fields | more)))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "kuber"]


def details(tmp_path, name, kind):
    return [dict(event.detail) for event in read_events(tmp_path / name / FILE_NAME) if event.kind == kind]


@pytest.fixture
def both(world, monkeypatch):
    """A record with weights and a graph, whose evaluations a test decides."""
    monkeypatch.setattr(compatibility, "check_installed", lambda: None)
    graph = b"a graph"
    entity = world.entity("teacher", rounds=1, execute=Script([60]))
    model = entity.model
    artifacts = model.make_artifacts
    object.__setattr__(model, "make_artifacts", lambda weights: {**artifacts(weights), ONNX: graph})
    monkeypatch.setattr("kuber.domain.artifact_checks.KINDS", {**_kinds(), ONNX: lambda read, size: None})
    entity.run()
    (record,) = world.published()
    assert record.artifacts[ONNX] == Artifact.of(graph)
    return record


def _kinds():
    from kuber.domain.artifact_checks import KINDS

    return dict(KINDS)


def student(world, outcomes) -> tuple[Discovery, list[bool]]:
    """A discovery whose evaluations are these, and whether each was of a graph."""
    tried = []

    def execute(work):
        tried.append("graph" in work.arguments)
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return evaluation_result(outcome)

    return world.discovery("student", execute=execute), tried


@pytest.mark.parametrize("first", [20, CorruptKnowledgeError("It is damaged.")], ids=["worse", "fails"])
def test_a_graph_is_tried_before_weights_are_refused(world, both, first):
    discovery, tried = student(world, [first, 60])
    (candidate,) = discovery.test([both], Method.GUIDE)
    assert tried == [False, True]
    assert candidate.model.graph is not None
    assert candidate.evaluation.accuracy == 0.6
    assert world.events("student", "rejected") == []
    pulled = world.events("student", "pulled")
    assert [detail["artifact"] for detail in pulled] == [WEIGHTS, ONNX]
    assert [detail["bytes"] for detail in pulled] == [both.artifacts[kind].size for kind in (WEIGHTS, ONNX)]
    (attestation,) = world.registry.attestations(both.id)
    assert attestation.evaluation.accuracy == 0.6


def test_a_record_is_refused_when_both_fail(world, both):
    discovery, tried = student(world, [20, 30])
    assert discovery.test([both], Method.GUIDE) == []
    assert tried == [False, True]
    (rejected,) = world.events("student", "rejected")
    assert rejected["reason"] == (
        "It claims an accuracy of 0.600 and has 0.200. Its ONNX graph: It claims an accuracy of 0.600 and has 0.300."
    )
    (attestation,) = world.registry.attestations(both.id)
    assert attestation.evaluation.accuracy == 0.3


def test_a_slow_graph_is_not_run_again_under_another_record_or_after_a_restart(world, both):
    slow = TimeLimitError("The ONNX graph exceeded its time limit; do not use it.")
    discovery, tried = student(world, [20, slow, 20])
    assert discovery.test([both], Method.GUIDE) == []
    assert tried == [False, True]
    again = replace(both, id="another record")
    discovery.models._trust.check = lambda knowledge: world.registry.member(both.entity)
    assert discovery.test([again], Method.GUIDE) == []
    assert tried == [False, True, False]  # the weights alone
    assert "exceeded its time limit in another record" in world.events("student", "rejected")[-1]["reason"]
    state = discovery._journal.state
    models = {field: {} for field in ("weights", "round_start", "phase_start", "momentum")}
    read = _decode(json.loads(json.dumps(_encode(state))), models=models, generator=None)
    assert read.slow_graphs == {str(both.artifacts[ONNX].digest): both.entity}


def test_no_graph_of_a_publisher_of_several_slow_ones_is_run(world, both):
    discovery, tried = student(world, [20])
    for number in range(MAX_OF_A_PUBLISHER):
        assert discovery.models._slow_graphs.reason(both) is None
        graph = Artifact.of(f"graph {number}".encode())
        discovery.models.refuse(replace(both, id=f"id{number}", artifacts={ONNX: graph}), "It is slow.", slow=True)
    assert discovery.test([both], Method.GUIDE) == []
    assert tried == [False]
    assert "of its publisher exceeded" in world.events("student", "rejected")[-1]["reason"]
    assert discovery.models._slow_graphs.reason(replace(both, entity="another")) is None


def test_sound_weights_are_not_tried_as_a_graph(world, both):
    discovery, tried = student(world, [60])
    assert len(discovery.test([both], Method.GUIDE)) == 1
    assert tried == [False]


def test_weights_that_cannot_be_loaded_are_counted_with_the_graph(world, both, monkeypatch):
    discovery, tried = student(world, [60])

    def load(*_):
        raise CorruptKnowledgeError("They are malformed.")

    monkeypatch.setattr(discovery.models._storage.weights, "load", load)
    assert len(discovery.test([both], Method.GUIDE)) == 1
    assert tried == [True]
    (pulled,) = world.events("student", "pulled")
    assert pulled["bytes"] == sum(artifact.size for artifact in both.artifacts.values())


def test_a_graph_is_not_merged_and_not_refused(world, both):
    discovery, tried = student(world, [20, 60, 60])
    assert discovery.test([both], Method.MERGE) == []
    assert discovery.test([both], Method.MERGE) == []
    assert tried == [False, True]
    assert len(discovery.test([both], Method.GUIDE)) == 1
    assert tried == [False, True, True]  # its weights are not tried again
    assert world.events("student", "rejected") == []


def test_a_rejected_teacher_is_said_once_with_its_reason(enter, caplog):
    digest = kuber.test_set_digest((X, Y))
    task = kuber.Task(name="sides", labels=LABELS, input_shape=(2,), test_set=digest)
    perfect = kuber.Evaluation(test_set=digest, correct=(40, 40), total=(40, 40))
    enter("liar", network(WEAK), task=task, validation=None, evaluate=lambda model: perfect).publish()
    student = enter("student", network(WEAK), task=task)
    for _ in range(4):
        student.step()
    (line,) = [line for line in warnings(caplog) if "rejected. " in line]
    assert "of entity 'liar' is rejected. It claims an accuracy of 1.000 and has 0." in line
    assert {record.levelno for record in caplog.records if record.name == "kuber"} == {logging.WARNING}


def test_a_model_that_fails_in_an_unexpected_way_is_skipped(enter, tmp_path, monkeypatch):
    enter("teacher", network(GOOD)).publish()

    def candidate(*_):
        raise RuntimeError("CUDA out of memory.")

    student = enter("student", network(WEAK))
    monkeypatch.setattr(student._session.discovery.models._evaluator, "candidate", candidate)
    for _ in range(3):
        assert not student.step()
    (failed,) = details(tmp_path, "student", "failed")
    assert "CUDA out of memory" in failed["reason"]
    assert details(tmp_path, "student", "rejected") == []


def test_an_owners_own_failure_does_not_refuse_a_good_teacher_for_good(enter, hub, tmp_path, caplog):
    """It is skipped in this process, and used in the next one."""
    enter("teacher", network(GOOD)).publish()
    x, y = X, Y
    digest = kuber.test_set_digest((X, Y))
    memory = []

    def evaluate(model):
        if not memory and getattr(model, "weight", None) is not None and float(model.weight.abs().max()) > 5:
            raise RuntimeError("CUDA out of memory.")
        right = model(x).argmax(1) == y
        counts = [[int((chosen & (y == label)).sum()) for label in (0, 1)] for chosen in (right, y >= 0)]
        return kuber.Evaluation(test_set=digest, correct=tuple(counts[0]), total=tuple(counts[1]))

    options = {"validation": None, "evaluate": evaluate}
    student = enter("student", network(WEAK), **options)
    for _ in range(3):
        assert not student.step()
    student.close()
    assert details(tmp_path, "student", "rejected") == []
    assert len([line for line in warnings(caplog) if "out of memory" in line]) == 1
    memory.append("more")
    assert len(enter("student", network(WEAK), **options).step()) == 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")])
def test_a_lack_of_memory_is_not_the_fault_of_a_network(error):
    class Large(nn.Module):
        def forward(self, x):
            raise error

    with pytest.raises(type(error)):
        compatibility.check_fits(Large(), X[:1], classes=2)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([], "no other entity has published on the task 'sides'"),
        ([("other", {"labels": ("up", "down")})], "have other labels"),
        ([("other", {"input_shape": (3,)})], "have samples of another shape"),
        ([("other", {"test_set": kuber.test_set_digest((X, Y))})], "another common test set"),
    ],
    ids=["none", "labels", "shape", "test set"],
)
def test_why_there_are_no_teachers_is_said_once(enter, tmp_path, caplog, others, reason):
    for name, change in others:
        fields = {"name": "sides", "labels": LABELS, "input_shape": (2,)} | change
        shape = fields["input_shape"]
        x = X if shape == (2,) else torch.zeros(80, 3)
        model = network(GOOD) if shape == (2,) else nn.Linear(3, 2)
        enter(name, model, task=kuber.Task(**fields), validation=(x, Y)).publish()
    student = enter("student", network(WEAK))
    for _ in range(6):
        student.step()
    lines = [line for line in warnings(caplog) if "No teachers in 3 searches in a row" in line]
    assert len(lines) == 1
    assert reason in lines[0]
    (event,) = details(tmp_path, "student", "no-teachers")
    assert event["rounds"] == 3
    assert event["reason"] in lines[0]


def test_after_teachers_were_used_their_lack_is_said_again(enter, hub, tmp_path, caplog):
    student = enter("student", network(WEAK))
    for _ in range(3):
        student.step()
    enter("teacher", network(GOOD)).publish()
    assert len(student.step()) == 1
    (record,) = [one for one in hub[0].discover(kuber.Query()).items if one.evaluation.accuracy > 0.9]
    student._session.discovery.models.refuse(record, "It is withdrawn.")
    student._session.discovery._tested.clear()
    for _ in range(4):
        student.step()
    lines = [line for line in warnings(caplog) if "No teachers" in line]
    assert len(lines) == 2
    assert "all records that match (1) were rejected before" in lines[1]


def test_the_lack_of_teachers_names_entities_that_are_left_out_for_some_rounds(enter, hub):
    student = enter("student", network(WEAK))
    student.step()
    enter("teacher", network(GOOD)).publish()
    discovery = student._session.discovery
    (record,) = discovery.candidates(kuber.Query())
    discovery.publishers.add_refusal(record.entity, RefusalCause.CLAIM)
    assert discovery.candidates(kuber.Query()) == []
    reason = discovery._reason(None)
    assert reason.startswith("all records that match (1) are of entities that are left out for some rounds")
    discovery.models.refuse(record, "It is withdrawn.")
    assert discovery.candidates(kuber.Query()) == []
    assert discovery._reason(None) == "all records that match (1) were rejected before"

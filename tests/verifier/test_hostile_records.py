"""A verifier among hostile records: nothing about one record keeps it from the others. Evaluations are scripted."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Architecture, Artifact, Draft
from kuber.domain.query import Query
from kuber.domain.task import Task
from kuber.domain.verification import Standing
from kuber.errors import (
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceUnavailableError,
    SettingsError,
    TimeLimitError,
)
from kuber.settings import Settings
from kuber.verifier import sandboxed_evaluation, verifier
from kuber.verifier.sample_file import SampleFile, read_sample_files
from kuber.verifier.sandboxed_evaluation import Limits
from kuber.verifier.verifier import LEAST_CPU_SECONDS, MAX_UNANSWERED, Verifier

LABELS = ("left", "right")
TASK = Task(name="sides", labels=LABELS, input_shape=(2,), test_set=Digest.of(b"sides"))
EVALUATION = Evaluation(test_set=TASK.test_set, correct=(5, 5), total=(10, 10))


class Sides:
    """Source for the task `sides`, without samples."""

    task_name, task_test_set = TASK.name, TASK.test_set

    def for_task(self, task):
        return self


@pytest.fixture
def hub(clock, monkeypatch):
    numbers = count()
    vault = MemoryVault()
    registry = MemoryRegistry(vault=vault, clock=clock, ids=lambda: f"id{next(numbers)}")
    monkeypatch.setattr(vault, "check", lambda *_: None, raising=False)
    monkeypatch.setattr("kuber.domain.artifact_checks.KINDS", {ONNX: lambda read, size: None})
    monkeypatch.setattr(verifier, "runnable_kind", lambda knowledge, task: ONNX)
    return registry, vault


@pytest.fixture
def publish(hub):
    registry, vault = hub
    keys = count()

    def publish(data, *, name="publisher", task=TASK):
        artifact = vault.put(data)
        draft = Draft(
            entity=registry.register(name).id,
            task=task,
            architecture=Architecture(name="graph", arguments={}, manifest={}),
            artifacts={ONNX: Artifact(digest=artifact.digest, size=len(data))},
            evaluation=replace(EVALUATION, test_set=task.test_set),
            round=1,
        )
        return registry.publish(draft, key=f"{next(keys)}")

    return publish


@pytest.fixture
def outcomes(monkeypatch):
    """What the evaluation of each blob raises, by its bytes, and the limits that each got."""
    script, limits_of = {}, []

    def evaluate(data, verification_set, limits):
        limits_of.append((data, limits))
        if data in script:
            raise script[data]
        return EVALUATION

    monkeypatch.setattr(verifier, "_evaluate_graph", evaluate)
    return script, limits_of


def make(hub, *sources, registry=None):
    return Verifier(*(sources or (Sides(),)), registry=registry or hub[0], vault=hub[1], limits=Limits())


def standing(hub, record):
    verification = hub[0].knowledge(record.id).verification
    return None if verification is None else verification.standing


def test_a_record_on_which_the_verifier_fails_is_left_alone_and_the_others_are_verified(
    hub, publish, outcomes, caplog
):
    outcomes[0][b"crash"] = RuntimeError("its name is \x1b[2J\x00")
    before, crash, after = publish(b"before"), publish(b"crash"), publish(b"after")
    one = make(hub)
    assert one.verify_pending() == 2
    assert [standing(hub, record) for record in (before, crash, after)] == [
        Standing.VERIFIED,
        None,
        Standing.VERIFIED,
    ]
    (warning,) = caplog.records
    assert warning.message.isprintable()
    assert one.verify_pending() == 0
    assert [data for data, _ in outcomes[1]].count(b"crash") == 1


class Refusing:
    """A registry that refuses each verdict but a plain one."""

    def __init__(self, registry, error):
        self._registry, self._error = registry, error

    def discover(self, query):
        return self._registry.discover(query)

    def verify(self, id, verification):
        if verification.reason != "The registry refused the verdict on this record.":
            raise self._error
        self._registry.verify(id, verification)


def test_a_verdict_that_the_registry_refuses_becomes_a_plain_one(hub, publish, outcomes, caplog):
    record = publish(b"one")
    one = make(hub, registry=Refusing(hub[0], RequestRejectedError("A reason is printable.")))
    assert one.verify_pending() == 1
    assert standing(hub, record) is Standing.UNVERIFIABLE
    assert "A reason is printable" in caplog.text


def test_a_verifier_without_rights_ends(hub, publish, outcomes):
    publish(b"one")
    one = make(hub, registry=Refusing(hub[0], NotAuthorizedError("The token is not the verifier's.")))
    with pytest.raises(NotAuthorizedError):
        one.verify_pending()


def test_a_record_on_which_the_hub_never_answers_comes_last_and_is_left_alone(hub, publish, outcomes, caplog):
    outcomes[0][b"silent"] = ServiceUnavailableError("The vault does not answer.")
    silent, sound = publish(b"silent"), publish(b"sound")
    one = make(hub)
    for _ in range(MAX_UNANSWERED - 1):
        with pytest.raises(ServiceUnavailableError):
            one.verify_pending()
    assert standing(hub, sound) is Standing.VERIFIED
    assert one.verify_pending() == 0
    assert standing(hub, silent) is None
    assert "is not verified" in caplog.text


def test_reasons_are_printable(hub, publish, outcomes):
    outcomes[0][b"bad"] = CorruptKnowledgeError("The ONNX graph is refused: \x1b]0;owned\x07\x00\nverified.")
    record = publish(b"bad")
    assert make(hub).verify_pending() == 1
    assert hub[0].knowledge(record.id).verification.reason.isprintable()


def test_a_slow_graph_is_run_once_and_its_publisher_comes_last_with_less_time(hub, publish, outcomes):
    outcomes[0][b"slow"] = TimeLimitError("The ONNX graph exceeded its time limit; do not use it.")
    slow, again = publish(b"slow", name="slow"), publish(b"slow", name="another")
    quick, later = publish(b"quick", name="slow"), publish(b"honest", name="honest")
    one = make(hub)
    reported = []
    assert one.verify_pending(lambda record, _: reported.append(record.id)) == 4
    assert [standing(hub, record) for record in (slow, again, quick, later)] == [
        Standing.UNVERIFIABLE,
        Standing.UNVERIFIABLE,
        Standing.VERIFIED,
        Standing.VERIFIED,
    ]
    assert "exceeded its time limit" in hub[0].knowledge(again.id).verification.reason
    cpu = {data: limits.cpu_seconds for data, limits in outcomes[1]}
    assert len(outcomes[1]) == 3
    assert cpu == {b"slow": 60, b"quick": 30, b"honest": 60}
    publish(b"a", name="slow"), publish(b"b", name="honest")
    reported.clear()
    one.verify_pending(lambda record, _: reported.append(hub[0].member(record.entity).name))
    assert reported == ["honest", "slow"]
    one._strikes[slow.entity] = 1000
    assert one._limits_for(slow.entity).cpu_seconds == LEAST_CPU_SECONDS


def test_a_quarantine_meanwhile_does_not_loop(hub, publish, outcomes):
    publish(b"one")
    registry = hub[0]

    class Still(Refusing):
        def verify(self, id, verification):
            from kuber.errors import ConflictError

            raise ConflictError("It is quarantined.")

    assert make(hub, registry=Still(registry, None)).verify_pending() == 0


def save(path, labels=LABELS, shape=(2,)):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, *shape)).astype("f4")
    np.savez(path, x=x, y=np.arange(40) % len(labels), classes=np.array(labels))
    return path


def test_all_tasks_with_samples_are_verified_and_the_others_named(hub, publish, outcomes, tmp_path):
    other = replace(TASK, name="other", test_set=Digest.of(b"other"))
    unknown = replace(TASK, name="unknown", test_set=Digest.of(b"unknown"))
    records = [publish(b"1"), publish(b"2", task=other), publish(b"3", task=unknown), publish(b"4", task=unknown)]
    settings = Settings(cache_dir=tmp_path / "cache")
    (file,) = read_sample_files([f"other={save(tmp_path / 'secret.npz')}"], settings)
    one = make(hub, Sides(), file)
    assert one.verify_pending() == 2
    assert [standing(hub, record) is not None for record in records] == [True, True, False, False]
    assert one.tasks_without_samples() == {"unknown": 2}
    assert len(list(hub[0].discover(Query(pending=True)).items)) == 2


def test_samples_of_a_file_are_matched_by_class_and_shape(tmp_path):
    settings = Settings(cache_dir=tmp_path / "cache")
    file = SampleFile("sides", save(tmp_path / "secret.npz"), settings)
    swapped = replace(TASK, labels=("right", "left"))
    one, two = file.for_task(TASK), file.for_task(swapped)
    assert len(one.samples) == len(two.samples)
    assert (one.samples.labels == 1 - two.samples.labels).all()
    assert file.for_task(TASK) is one
    assert one.task_test_set == TASK.test_set
    with pytest.raises(IncompatibleKnowledgeError, match="have shape 2; those of the record's task have 3x3"):
        file.for_task(replace(TASK, input_shape=(3, 3)))
    with pytest.raises(IncompatibleKnowledgeError, match="do not fit the labels"):
        file.for_task(replace(TASK, labels=("up", "down")))


def test_a_file_that_defines_the_task_gives_its_common_test_set(tmp_path):
    from kuber.data.common_test_set import load_task

    settings = Settings(cache_dir=tmp_path / "cache")
    path = save(tmp_path / "mine.npz")
    _, task, common = load_task(settings.model_copy(update={"dataset": str(path)}))
    found = SampleFile(task.name, path, settings).for_task(task)
    assert found.test_set == task.test_set == common.digest()


@pytest.mark.parametrize("option", ["digits", "=secret.npz", "digits=", "digits=secret.csv"])
def test_options_of_samples_are_checked(option, tmp_path):
    with pytest.raises(SettingsError, match="--samples takes"):
        read_sample_files([option], Settings(cache_dir=tmp_path))


@pytest.mark.parametrize(
    "reply", [b"", b"\x80\x04.", b"[]", b"{}", b'{"correct": [1], "total": [9]}', b'{"correct": "x", "total": "y"}']
)
def test_a_reply_of_a_hostile_process_is_no_evaluation(reply, tmp_path):
    file = SampleFile("sides", save(tmp_path / "secret.npz"), Settings(cache_dir=tmp_path / "cache"))
    with pytest.raises(CorruptKnowledgeError, match="no evaluation"):
        sandboxed_evaluation._evaluation_in(reply, file.for_task(TASK))


def test_a_reply_is_an_evaluation_or_an_error(tmp_path):
    file = SampleFile("sides", save(tmp_path / "secret.npz"), Settings(cache_dir=tmp_path / "cache"))
    verification_set = file.for_task(TASK)
    total = np.bincount(verification_set.samples.labels).tolist()
    found = sandboxed_evaluation._evaluation_in(
        json.dumps({"correct": [0, 1], "total": total}).encode(), verification_set
    )
    assert (found.correct, found.total) == ((0, 1), tuple(total))
    with pytest.raises(IncompatibleKnowledgeError, match="too large"):
        sandboxed_evaluation._evaluation_in(b'{"incompatible": "It is too large."}', verification_set)

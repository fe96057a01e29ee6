"""Frozen values refuse impossible states."""

from datetime import UTC, datetime

import pytest

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Artifact, Draft, Knowledge, TensorSpec
from kuber.domain.query import Query
from kuber.domain.task import Task

SET = Digest.of(b"set")
TASK = {"name": "toy", "labels": ("a", "b"), "input_shape": (3,), "test_set": SET}
COUNTS = {"test_set": SET, "correct": (1, 2), "total": (2, 2)}
DRAFT = {
    "entity": "e",
    "task": Task(**TASK),
    "architecture": Architecture(name="toy", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(1,))}),
    "artifacts": {"weights": Artifact(digest=SET, size=1)},
    "evaluation": Evaluation(**COUNTS),
    "round": 1,
}
DELIVERY = {
    "student": "s",
    "teachers": ("k",),
    "method": "distil",
    "round": 1,
    "accuracy_before": 0.1,
    "accuracy_after": 0.2,
    "kept": True,
}


@pytest.mark.parametrize(
    ("make", "fields", "wrong"),
    [
        (Task, TASK, {"name": ""}),
        (Task, TASK, {"labels": ("a",)}),
        (Task, TASK, {"labels": ("a", "a")}),
        (Task, TASK, {"input_shape": ()}),
        (Task, TASK, {"input_shape": (3, 0)}),
        (Evaluation, COUNTS, {"correct": (1,)}),
        (Evaluation, COUNTS, {"correct": (3, 0)}),
        (Evaluation, COUNTS, {"correct": (-1, 0)}),
        (Evaluation, COUNTS, {"correct": (0, 0), "total": (0, 0)}),
        (Evaluation, COUNTS, {"correct": (), "total": ()}),
        (Draft, DRAFT, {"artifacts": {}}),
        (Draft, DRAFT, {"round": -1}),
        (Draft, DRAFT, {"sample_count": -1}),
        (Draft, DRAFT, {"class_counts": (1,)}),
        (Draft, DRAFT, {"evaluation": Evaluation(test_set=SET, correct=(1,), total=(1,))}),
        (Draft, DRAFT, {"evaluation": Evaluation(**COUNTS | {"test_set": Digest.of(b"other")})}),
        (Delivery, DELIVERY, {"teachers": ()}),
        (Delivery, DELIVERY, {"accuracy_after": 1.1}),
        (Delivery, DELIVERY, {"reason": ""}),
        (Delivery, DELIVERY, {"reason": "x" * 501}),
        (Delivery, DELIVERY, {"reason": "Two\nlines."}),
        (Delivery, DELIVERY, {"reason": "A bell:\a."}),
        (Query, {}, {"limit": 0}),
        (Query, {}, {"limit": 1001}),
        (Query, {}, {"min_accuracy": 1.5}),
        (Artifact, {"digest": SET, "size": 1}, {"size": 0}),
        (TensorSpec, {"dtype": "F32", "shape": ()}, {"dtype": "object"}),
        (TensorSpec, {"dtype": "F32", "shape": ()}, {"shape": (-1,)}),
        (Architecture, {"name": "n", "arguments": {}, "manifest": {"w": None}}, {"name": ""}),
    ],
)
def test_impossible_values_are_refused(make, fields, wrong):
    make(**fields)
    with pytest.raises(ValueError):
        make(**fields | wrong)


@pytest.mark.parametrize("reason", [None, "Né.", "x" * 500])
def test_a_delivery_may_say_why(reason):
    assert Delivery(**DELIVERY, reason=reason).reason == reason


@pytest.mark.parametrize("text", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "A" * 64, "sha256:../../etc/passwd"])
def test_only_digests_parse_as_digests(text):
    with pytest.raises(ValueError):
        Digest.parse(text)


def test_a_digest_does_not_depend_on_chunks():
    digest = Digest.of(b"abc", b"def")
    assert digest == Digest.of(b"abcdef")
    assert Digest.parse(str(digest)) == digest
    # FIPS 180-4's own example
    assert Digest.of(b"abc").hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_accuracy_weighs_samples_and_recall_weighs_classes():
    evaluation = Evaluation(test_set=SET, correct=(1, 8, 0), total=(2, 8, 0))
    assert evaluation.accuracy == pytest.approx(0.9)
    assert evaluation.recalls == (0.5, 1.0, None)


def test_knowledge_is_its_draft_with_id_and_time():
    draft = Draft(**DRAFT)
    knowledge = Knowledge.from_draft(draft, id="k1", published_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (knowledge.id, knowledge.task, knowledge.round) == ("k1", draft.task, 1)

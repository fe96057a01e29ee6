"""Ensembles of teachers over the student's labels."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Knowledge, TensorSpec
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError, TimeLimitError
from kuber.learning.ensembling import guide_loss, masked_kl
from kuber.learning.losses import distillation_loss
from kuber.learning.teacher_priors import answer_shift
from kuber.learning.teachers import LabelMapped, Teacher, Teachers

SET = Digest.of(b"set")
UNKNOWN = -torch.inf


class Constant(nn.Module):
    """Return the same logits for every sample."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1).clone()


def teacher(id, network, correct=(5, 5, 5), name=None):
    evaluation = Evaluation(test_set=SET, correct=correct, total=(10, 10, 10))
    knowledge = Knowledge(
        id=id,
        entity=f"entity {id}",
        task=Task(name="toy", labels=("a", "b", "c"), input_shape=(2,), test_set=SET),
        architecture=Architecture(name="says", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(1,))}),
        artifacts={WEIGHTS: Artifact.of(b"w")},
        evaluation=evaluation,
        round=1,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Teacher(knowledge=knowledge, evaluation=evaluation, network=network, name=name)


def test_labels_are_matched_by_name():
    network = LabelMapped(Constant(1.0, 2.0, 3.0), theirs=("c", "x", "a"), ours=("a", "b", "c"))
    assert network(torch.zeros(1, 2)).tolist() == [[3.0, UNKNOWN, 1.0]]


def test_logits_softened_with_the_temperature_are_the_log_probabilities():
    teachers = Teachers([teacher("k", Constant(1.0, 2.0, 4.0))], classes=3, temperature=3.0)
    x = torch.zeros(2, 2)
    assert torch.allclose((teachers(x) / 3.0).log_softmax(1), teachers.log_probs(x), atol=1e-6)
    assert torch.allclose(teachers.log_probs(x), F.log_softmax(torch.tensor([1.0, 2.0, 4.0]) / 3.0, 0).expand(2, -1))


def test_a_class_is_averaged_over_the_teachers_that_know_it():
    partial = teacher("p", LabelMapped(Constant(0.0, 0.0), theirs=("a", "b"), ours=("a", "b", "c")))
    whole = teacher("w", Constant(0.0, 0.0, 0.0))
    # a and b: the mean of 1/2 and 1/3, as both are equally competent; c: 1/3, of the only one that knows it; then
    # normalised.
    expected = torch.tensor([[5 / 12, 5 / 12, 4 / 12]]) / (14 / 12)
    softened = Teachers([partial, whole], classes=3, temperature=1.0).log_probs(torch.zeros(1, 2)).exp()
    assert torch.allclose(softened, expected, atol=1e-6)


def test_a_class_that_no_teacher_knows_has_no_gradient():
    partial = teacher("p", LabelMapped(Constant(2.0, 1.0), theirs=("a", "b"), ours=("a", "b", "c")))
    logits = Teachers([partial], classes=3)(torch.zeros(4, 2))
    assert torch.isneginf(logits[:, 2]).all()
    student = torch.randn(4, 3, requires_grad=True)
    distillation_loss(student, logits, torch.tensor([0, 1, 0, 1]), alpha=0.0).backward()
    assert torch.isfinite(student.grad).all()
    assert (student.grad[:, 2] == 0).all()
    assert (student.grad[:, :2] != 0).any()


@pytest.mark.parametrize("classes", [2, 3])
def test_without_teachers_the_loss_is_0(classes):
    teachers = Teachers(classes=classes)
    assert not teachers
    student = torch.randn(4, classes, requires_grad=True)
    loss = guide_loss(student, teachers.log_probs(torch.zeros(4, 2)), torch.tensor([0, 1, 0, 1]), temperature=2.0)
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


def test_with_two_classes_the_loss_compares_both():
    student, log_probs = torch.randn(5, 2), F.log_softmax(torch.randn(5, 2), 1)
    loss = guide_loss(student, log_probs, torch.zeros(5, dtype=torch.int64), temperature=2.0)
    assert torch.allclose(loss, 4 * masked_kl(student / 2, log_probs))
    assert loss > 0


class Failing(nn.Module):
    def forward(self, x):
        raise IncompatibleKnowledgeError("It is over.")


@pytest.mark.parametrize("broken", [Constant(0.0, torch.nan, 0.0), Constant(0.0, torch.inf, 0.0), Failing()])
def test_a_teacher_that_fails_is_left_out_and_the_others_remain(broken):
    refused = []
    sound, unsound = teacher("sound", Constant(1.0, 0.0, 0.0)), teacher("unsound", broken)
    teachers = Teachers([unsound, sound], classes=3, refuse=lambda knowledge, reason: refused.append(knowledge.id))
    assert torch.isfinite(teachers(torch.zeros(2, 2))).all()
    assert refused == ["unsound"]
    assert [teacher.knowledge.id for teacher in teachers] == ["sound"]
    assert [record.id for record in teachers.used] == ["sound"]


def test_teachers_print_as_who_they_are_and_how_accurate():
    bob, ann = teacher("k1", Constant(1.0), correct=(10, 9, 9), name="bob"), teacher("k2", Constant(1.0))
    assert str(Teachers([bob, ann], classes=3)) == "2 teachers: bob r1 (93 %), entity k2 r1 (50 %)"
    assert repr(Teachers([bob], classes=3)) == "<Teachers: 1 teacher: bob r1 (93 %)>"
    assert str(Teachers(classes=3)) == "no teachers"
    assert repr(bob) == "<Teacher bob r1 (93 %)>"


class TooSlow(nn.Module):
    """A network that exceeds its time for samples of ones."""

    def forward(self, x):
        if x.sum() > 0:
            raise TimeLimitError("The ONNX graph exceeded its time limit; do not use it.")
        return torch.zeros(len(x), 3)


def test_a_teacher_that_takes_too_long_is_dropped_with_one_warning_and_the_others_go_on(caplog):
    refused = []
    teachers = Teachers(
        [teacher("slow", TooSlow()), teacher("quick", Constant(1.0, 2.0, 4.0))],
        classes=3,
        refuse=lambda knowledge, reason, slow=False: refused.append((knowledge.id, slow)),
    )
    teachers.log_probs(torch.zeros(2, 2))
    for _ in range(3):
        assert torch.isfinite(teachers.log_probs(torch.ones(2, 2))).all()
    assert [kept.knowledge.id for kept in teachers] == ["quick"]
    assert refused == [("slow", True)]
    (warning,) = caplog.records
    assert "exceeded its time limit" in warning.message


def with_prior(id, network, prior, counts):
    known = teacher(id, network)
    return replace(known, knowledge=replace(known.knowledge, prior=prior, class_counts=counts))


def test_the_prior_of_a_teacher_is_taken_out_before_it_answers():
    """A teacher that saw the class a nine times as often says so in its logits, and not to the student."""
    labels, counts = ("a", "b", "c"), (89, 9, 9)  # 90:10:10 with one sample more of each class
    plain = with_prior("p", Constant(math.log(9.0), 0.0, 0.0), "own", counts)
    plain = replace(plain, shift=answer_shift(plain.knowledge, labels))
    answers = Teachers([plain], classes=3, temperature=1.0).log_probs(torch.zeros(1, 2)).exp()
    assert torch.allclose(answers, torch.full((1, 3), 1 / 3), atol=1e-6)


@pytest.mark.parametrize(
    ("prior", "counts"), [(None, (8, 1, 1)), ("own", None), ("own", (0, 0, 0)), ("uniform", None)]
)
def test_nothing_is_added_to_the_logits_of_a_teacher_whose_prior_is_unknown_or_uniform(prior, counts):
    known = with_prior("k", Constant(1.0, 2.0, 3.0), prior, counts)
    assert answer_shift(known.knowledge, ("a", "b", "c")) is None


def test_a_teacher_with_other_labels_is_adjusted_by_the_names_of_its_classes():
    known = with_prior("k", Constant(1.0, 2.0, 3.0), "own", (7, 1, 3))  # of a, b and c: 8, 2 and 4 of 14
    shift = answer_shift(known.knowledge, ("c", "x", "a"))
    assert torch.allclose(shift[0] - shift[2], torch.tensor(8 / 4).log())
    assert torch.isfinite(shift).all()

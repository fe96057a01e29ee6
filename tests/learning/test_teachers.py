"""Several teachers with one voice, in the student's labels."""

from datetime import UTC, datetime

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Knowledge, TensorSpec
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError
from kuber.learning.ensembling import guide_loss, masked_kl
from kuber.learning.losses import distillation_loss
from kuber.learning.teachers import LabelMapped, Teacher, Teachers

SET = Digest.of(b"set")
NOTHING = -torch.inf


class Says(nn.Module):
    """Answers every sample alike."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1).clone()


def voice(id, network, correct=(5, 5, 5)):
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
    return Teacher(knowledge=knowledge, evaluation=evaluation, network=network)


def test_labels_are_matched_by_their_texts():
    network = LabelMapped(Says(1.0, 2.0, 3.0), theirs=("c", "x", "a"), ours=("a", "b", "c"))
    assert network(torch.zeros(1, 2)).tolist() == [[3.0, NOTHING, 1.0]]


def test_softened_at_their_temperature_they_say_what_softened_says():
    teachers = Teachers([voice("k", Says(1.0, 2.0, 4.0))], classes=3, temperature=3.0)
    x = torch.zeros(2, 2)
    assert torch.allclose((teachers(x) / 3.0).log_softmax(1), teachers.softened(x), atol=1e-6)
    assert torch.allclose(teachers.softened(x), F.log_softmax(torch.tensor([1.0, 2.0, 4.0]) / 3.0, 0).expand(2, -1))


def test_who_does_not_know_a_class_has_no_say_in_it():
    partial = voice("p", LabelMapped(Says(0.0, 0.0), theirs=("a", "b"), ours=("a", "b", "c")))
    whole = voice("w", Says(0.0, 0.0, 0.0))
    # a and b: the mean of 1/2 and 1/3, as both are equally competent; c: 1/3, of the one who knows it; then to sum 1.
    told = torch.tensor([[5 / 12, 5 / 12, 4 / 12]]) / (14 / 12)
    softened = Teachers([partial, whole], classes=3, temperature=1.0).softened(torch.zeros(1, 2)).exp()
    assert torch.allclose(softened, told, atol=1e-6)


def test_a_class_that_nobody_knows_stays_unsaid_and_is_not_learnt_of():
    partial = voice("p", LabelMapped(Says(2.0, 1.0), theirs=("a", "b"), ours=("a", "b", "c")))
    spoken = Teachers([partial], classes=3)(torch.zeros(4, 2))
    assert torch.isneginf(spoken[:, 2]).all()
    student = torch.randn(4, 3, requires_grad=True)
    distillation_loss(student, spoken, torch.tensor([0, 1, 0, 1]), alpha=0.0).backward()
    assert torch.isfinite(student.grad).all()
    assert (student.grad[:, 2] == 0).all()
    assert (student.grad[:, :2] != 0).any()


@pytest.mark.parametrize("classes", [2, 3])
def test_without_teachers_there_is_nothing_to_learn(classes):
    teachers = Teachers(classes=classes)
    assert not teachers
    student = torch.randn(4, classes, requires_grad=True)
    loss = guide_loss(student, teachers.softened(torch.zeros(4, 2)), torch.tensor([0, 1, 0, 1]), temperature=2.0)
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


def test_of_two_classes_all_is_heard():
    student, spoken = torch.randn(5, 2), F.log_softmax(torch.randn(5, 2), 1)
    loss = guide_loss(student, spoken, torch.zeros(5, dtype=torch.int64), temperature=2.0)
    assert torch.allclose(loss, 4 * masked_kl(student / 2, spoken))
    assert loss > 0


class Failing(nn.Module):
    def forward(self, x):
        raise IncompatibleKnowledgeError("It is over.")


@pytest.mark.parametrize("broken", [Says(0.0, torch.nan, 0.0), Says(0.0, torch.inf, 0.0), Failing()])
def test_who_speaks_nonsense_is_left_out_and_the_others_go_on(broken):
    refused = []
    sound, unsound = voice("sound", Says(1.0, 0.0, 0.0)), voice("unsound", broken)
    teachers = Teachers([unsound, sound], classes=3, refuse=lambda knowledge, reason: refused.append(knowledge.id))
    said = teachers(torch.zeros(2, 2))
    assert torch.isfinite(said).all()
    assert refused == ["unsound"]
    assert [one.knowledge.id for one in teachers] == ["sound"]
    assert [one.id for one in teachers.heard] == ["sound"]

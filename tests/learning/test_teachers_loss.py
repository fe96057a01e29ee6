"""The teachers' loss in an owner's loop: what it takes, what it refuses at once, and what it never does."""

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kuber.errors import SettingsError
from kuber.learning.batch_check import BatchCheck
from kuber.learning.ensembling import guide_loss, surer_teacher_loss
from kuber.learning.teachers import Teachers
from tests.learning.test_teachers import Constant, teacher

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
STUDENT = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
SOFT = F.one_hot(Y, 3) * 0.7 + 0.1


class Linear(nn.Module):
    """A network of fixed weights that takes one tensor, several, or named ones."""

    def __init__(self, classes=3, dtype=torch.float32):
        super().__init__()
        self.net = nn.Linear(4, classes, dtype=dtype)

    def forward(self, x, mask=None):
        return self.net(x if mask is None else x * mask)


def some(classes=3, network=None, **more):
    made = teacher("k", network or Linear(classes), correct=(5,) * 3)
    if classes == 2:
        made = SimpleNamespace(**vars(made) | {"evaluation": SimpleNamespace(recalls=(0.5, 0.5), accuracy=0.5)})
    return Teachers([made], classes=classes, **more)


def guided(teachers, student, x, labels, **more):
    return guide_loss(student, teachers.log_probs(x), labels, temperature=teachers.temperature, **more)


@pytest.mark.parametrize("labels", [Y, Y.int(), Y.to(torch.uint8), SOFT, SOFT.half(), torch.where(Y == 1, -100, Y)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_takes_what_cross_entropy_takes(labels, dtype):
    teachers, student = some(), STUDENT.detach().to(dtype, copy=True).requires_grad_()
    loss = teachers.loss(student, X, labels)
    assert torch.equal(loss, guided(teachers, student.float(), X, labels))
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert loss > 0


def test_a_first_batch_without_teachers_takes_the_same():
    for labels in (Y, Y.int(), Y.to(torch.uint8), SOFT, torch.where(Y == 1, -100, Y)):
        assert Teachers(classes=3).loss(STUDENT, X, labels) == 0
    assert Teachers(classes=3).loss(STUDENT, X, torch.where(Y == 1, 255, Y), ignore_index=255) == 0


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize(
    "labels", [Y % 2, (Y % 2).float(), (Y % 2).float().unsqueeze(1), (Y % 2).float() * 0.8 + 0.1]
)
def test_a_binary_student_may_return_one_logit_as_for_bce(shape, labels):
    z = torch.randn(6, requires_grad=True)
    pair = torch.stack((torch.zeros(6), z), 1)
    teachers = some(2)
    loss = teachers.loss(z.reshape(shape), X, labels)
    torch.testing.assert_close(loss, guided(teachers, pair, X, Y % 2))
    assert Teachers(classes=2).loss(z.reshape(shape), X, labels) == 0


def test_the_student_s_output_may_be_an_object_or_a_tuple():
    teachers = some()
    expected = teachers.loss(STUDENT, X, Y)
    for output in (SimpleNamespace(logits=STUDENT, loss=None), {"logits": STUDENT}, (STUDENT, X)):
        assert torch.equal(teachers.loss(output, X, Y), expected)
        assert Teachers(classes=3).loss(output, X, Y) == 0


def test_the_inputs_may_be_several_or_named_and_contain_the_labels():
    teachers = some()
    expected = teachers.loss(STUDENT, X, Y)
    mask = torch.ones(6, 1)
    for inputs in ((X, mask), [X, mask], {"x": X}, {"x": X, "mask": mask, "labels": Y}):
        torch.testing.assert_close(teachers.loss(STUDENT, inputs, Y), expected)
        assert teachers(inputs).shape == (6, 3)
        assert torch.isneginf(Teachers(classes=3)(inputs)).all()


UNUSABLE = {
    "labels too few": ((STUDENT, X, Y[:5]), "^labels .*shape"),
    "labels out of range": ((STUDENT, X, Y + 1), "^labels must be from 0 to 2"),
    "labels as numbers": ((STUDENT, X, Y.float()), "^labels .*one label"),
    "labels of a list": ((STUDENT, X, [0] * 6), "^labels must be a tensor"),
    "wrong classes": ((STUDENT[:, :2], X, Y), "^student .*shape"),
    "dense": ((torch.zeros(6, 3, 8), X, torch.zeros(6, 8, dtype=torch.int64)), "^student .*shape"),
    "student of numbers": ((None, X, Y), "^student "),
    "more samples than logits": ((STUDENT, torch.zeros(7, 4), Y), "^x has 7 samples, but student .*6"),
    "x of numbers": ((STUDENT, 3, Y), "^x must be"),
    "x without tensors": ((STUDENT, {"text": ["a"] * 6}, Y), "^x must be .*'text'"),
}


@pytest.mark.parametrize(("arguments", "words"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("teachers", [True, False])
def test_what_cannot_be_used_is_refused_on_the_first_batch_teachers_or_not(arguments, words, teachers):
    with pytest.raises(SettingsError, match=words) as caught:
        (some() if teachers else Teachers(classes=3)).loss(*arguments)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("arguments", "words"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("teachers", [True, False])
def test_after_a_batch_has_passed_none_ends_the_training(arguments, words, teachers, caplog):
    check = BatchCheck()
    Teachers(classes=3, check=check).loss(STUDENT, X, Y)
    later = some(check=check) if teachers else Teachers(classes=3, check=check)
    with caplog.at_level(logging.WARNING, logger="kuber"):
        assert torch.isfinite(later.loss(*arguments))
        later.loss(*arguments)
    assert len(caplog.records) <= 1
    if teachers and "from 0 to 2" not in words:  # samples with such labels are left out alone
        assert "without its teachers" in caplog.text


def test_without_teachers_the_loss_is_an_exact_0_and_has_no_gradient():
    weight = torch.randn(4, 3, requires_grad=True)
    for student in (X @ weight, (X @ weight).bfloat16()):
        loss = Teachers(classes=3).loss(student, X, Y)
        assert loss == 0
        assert loss.dtype == student.dtype
        assert loss.grad_fn is None


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "network",
    [
        Raising(ValueError("odd\nstory")),
        Raising(torch.OutOfMemoryError("CUDA out of memory")),
        Raising(NotImplementedError()),
        Constant(1.0, 2.0),
        Constant(1.0, 2.0, 3.0, 4.0),
        Constant(torch.nan, 0.0, 0.0),
        nn.Flatten(0),
        nn.Linear(9, 3),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_teacher_that_fails_in_any_way_is_left_out_with_one_warning(network, caplog):
    teachers = Teachers([teacher("bad", network), teacher("good", Linear())], classes=3)
    with caplog.at_level(logging.WARNING, logger="kuber"):
        assert torch.isfinite(teachers.loss(STUDENT, X, Y))
        assert torch.isfinite(teachers.loss(STUDENT, X, Y))
    (record,) = caplog.records
    assert "entity bad" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert [member.knowledge.id for member in teachers] == ["good"]
    alone = Teachers([teacher("bad", network)], classes=3)
    student = STUDENT.clone().requires_grad_()
    assert alone.loss(student, X, Y).grad_fn is None


def test_only_unsound_knowledge_is_refused_for_good_and_a_failing_journal_ends_nothing(caplog):
    refused = []

    def refuse(knowledge, reason):
        refused.append(knowledge.id)
        raise OSError(28, "No space left on device")

    members = [teacher("nan", Constant(torch.nan, 0.0, 0.0)), teacher("memory", Raising(MemoryError()))]
    with caplog.at_level(logging.WARNING, logger="kuber"):
        assert Teachers(members, classes=3, refuse=refuse).loss(STUDENT, X, Y) == 0
    assert refused == ["nan"]
    assert "No space left" in caplog.text


class Drawing(nn.Module):
    """Draw from every generator, and look at the surroundings."""

    def __init__(self):
        super().__init__()
        self.drop, self.seen = nn.Dropout(0.5), []

    def forward(self, x):
        random.random(), np.random.rand(), torch.rand(1)
        self.seen.append((torch.is_autocast_enabled("cpu"), self.drop.training, torch.is_grad_enabled()))
        return self.drop(torch.nn.functional.linear(x, torch.ones(3, 4)))


def test_teachers_leave_modes_random_states_and_autocast_of_the_owner_alone():
    network = Drawing()
    teachers = Teachers([teacher("k", network)], classes=3)
    network.train()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = teachers.loss(STUDENT, X, Y)
        assert torch.is_autocast_enabled("cpu")
    assert loss.dtype == torch.float32
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert network.training
    assert network.drop.training
    assert network.seen == [(False, False, False)]


def test_a_teacher_computes_in_its_own_precision():
    for dtype in (torch.float64, torch.bfloat16):
        teachers = some(network=Linear(dtype=torch.float32))
        expected = teachers.loss(STUDENT, X.to(dtype).float(), Y)
        assert torch.equal(teachers.loss(STUDENT, X.to(dtype), Y), expected)


def test_the_loss_can_be_compiled_with_the_owner_s_step():
    def step(student):
        return F.cross_entropy(student, Y) + Teachers(classes=3, check=check).loss(student, X, Y)

    check = BatchCheck()
    compiled = torch.compile(step, backend="eager")
    assert torch.equal(compiled(STUDENT), F.cross_entropy(STUDENT, Y))


PRIOR = torch.tensor([0.7, 0.2, 0.1]).log()


def test_only_a_teacher_that_is_surer_of_the_label_is_followed():
    student = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 3.0]]).log_softmax(1)
    labels = torch.tensor([0, 1])
    loss = surer_teacher_loss(student, teacher, labels)
    loss.backward()
    assert student.grad is not None
    assert student.grad[0, 0] < 0  # towards the label
    assert not student.grad[1].any()
    expected = F.kl_div(student[:1].log_softmax(1), teacher[:1], reduction="sum", log_target=True) / 2
    assert torch.allclose(loss, expected)


def test_the_labels_may_be_probabilities_or_ignored():
    student, teacher = torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[5.0, -torch.inf, 0.0]]).log_softmax(1)
    found = surer_teacher_loss(student, teacher, torch.tensor([0]))
    assert found > 0
    assert torch.equal(surer_teacher_loss(student, teacher, torch.tensor([[1.0, 0.0, 0.0]])), found)
    assert surer_teacher_loss(student, teacher, torch.tensor([1])) == 0  # a class that it does not know
    assert surer_teacher_loss(student, teacher, torch.tensor([-100])) == 0


def test_the_ensemble_has_the_prior_of_the_student():
    plain, own = some(temperature=1.0), some(temperature=1.0, prior=PRIOR)
    own[0].network.load_state_dict(plain[0].network.state_dict())
    assert torch.allclose(own(X).softmax(1), (plain(X) + PRIOR).softmax(1), atol=1e-6)
    assert torch.equal(own.loss(STUDENT, X, Y), surer_teacher_loss(STUDENT, own.log_probs(X), Y))

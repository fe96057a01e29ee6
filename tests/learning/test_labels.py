"""Labels in every form that cross_entropy takes, and the losses of them."""

import pytest
import torch
import torch.nn.functional as F

from kuber.errors import SettingsError
from kuber.learning.ensembling import guide_loss, masked_kl, not_true_distillation
from kuber.learning.labels import check_values, uniform_labels
from kuber.learning.losses import balanced_softmax, distillation_loss

torch.manual_seed(0)
STUDENT, TEACHER = torch.randn(9, 5), F.log_softmax(torch.randn(9, 5), 1)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3])
ONE_HOT = F.one_hot(LABELS, 5).float()
T = 2.0


def with_gradient(loss, *arguments, student=STUDENT, **more):
    student = student.clone().requires_grad_()
    value = loss(student, *arguments, **more)
    value.backward()
    return value.detach(), student.grad


def as_published(student, teacher, labels, *, temperature):
    """Return the loss of class indices as it is defined: the own class removed, then T² * KL."""
    others = torch.ones_like(student, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), False)
    shape = len(student), student.shape[1] - 1
    student, teacher = student[others].view(shape) / temperature, teacher[others].view(shape)
    kl = F.kl_div(F.log_softmax(student, 1), F.log_softmax(teacher, 1), reduction="batchmean", log_target=True)
    return temperature**2 * kl


FORMS = [
    LABELS,
    LABELS.int(),
    LABELS.to(torch.uint8),
    LABELS.to(torch.int16),
    LABELS.unsqueeze(1),
    ONE_HOT,
    ONE_HOT.double(),
    ONE_HOT.bfloat16(),
]


@pytest.mark.parametrize("labels", FORMS, ids=lambda labels: f"{labels.dtype} {tuple(labels.shape)}")
def test_every_form_of_a_known_label_has_the_same_loss_to_the_last_bit(labels):
    expected, expected_gradient = with_gradient(as_published, TEACHER, LABELS, temperature=T)
    loss, gradient = with_gradient(not_true_distillation, TEACHER, labels, temperature=T)
    assert torch.equal(loss.float(), expected)
    assert torch.equal(gradient, expected_gradient)


def test_labels_that_are_smoothed_by_little_change_the_loss_by_little():
    hard = not_true_distillation(STUDENT, TEACHER, LABELS, temperature=T)
    distances = [
        abs(not_true_distillation(STUDENT, TEACHER, ONE_HOT * (1 - e) + e / 5, temperature=T) - hard)
        for e in (1e-4, 1e-3, 1e-2, 1e-1)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 1e-3


def test_uniform_labels_say_nothing_so_the_whole_distributions_are_compared():
    loss = not_true_distillation(STUDENT, TEACHER, torch.full((9, 5), 0.2), temperature=T)
    torch.testing.assert_close(loss, T**2 * masked_kl(STUDENT / T, TEACHER))


def test_mixup_leaves_each_class_out_as_far_as_its_label_is_known():
    student, teacher = torch.zeros(1, 3), torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    loss = not_true_distillation(student, teacher, torch.tensor([[0.75, 0.25, 0.0]]), temperature=1.0)
    # The others' shares 1 - t are (1/4, 3/4, 1). Teacher: (1/8, 3/16, 1/4) / (9/16) = (2, 3, 4) / 9.
    # Student: (1/4, 3/4, 1) / 2 = (1, 3, 4) / 8.
    p, q = torch.tensor([2, 3, 4]) / 9, torch.tensor([1, 3, 4]) / 8
    torch.testing.assert_close(loss, (p * (p / q).log()).sum())


@pytest.mark.parametrize("soft", [ONE_HOT, ONE_HOT * 0.8 + 0.04, torch.ones(9, 5), torch.zeros(9, 5)])
def test_gradients_are_finite_also_where_a_teacher_knows_few_classes(soft):
    teacher = TEACHER.clone()
    teacher[:, 1:3] = -torch.inf
    teacher[0] = -torch.inf
    loss, gradient = with_gradient(guide_loss, teacher, soft, temperature=T)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("classes", [2, 5])
def test_ignored_samples_are_left_out_of_the_mean(classes):
    student, teacher = STUDENT[:, :classes], TEACHER[:, :classes]
    labels = LABELS % classes
    kept = torch.tensor([True, False, True, True, False, True, True, True, True])
    expected = guide_loss(student[kept], teacher[kept], labels[kept], temperature=T)
    for ignored, index in ((-100, -100), (255, 255), (-1, -1), (-1, -100)):
        some = torch.where(kept, labels, ignored)
        loss, gradient = with_gradient(guide_loss, teacher, some, student=student, temperature=T, ignore_index=index)
        torch.testing.assert_close(loss, expected)
        assert (gradient[~kept] == 0).all()
    hinton = distillation_loss(student, teacher, torch.where(kept, labels, -100))
    torch.testing.assert_close(hinton, distillation_loss(student[kept], teacher[kept], labels[kept]))
    none = torch.full_like(labels, -100)
    assert guide_loss(student, teacher, none, temperature=T) == 0
    assert distillation_loss(student, teacher, none) == 0


def test_two_classes_take_the_probability_of_the_second():
    student, teacher = STUDENT[:, :2], F.log_softmax(TEACHER[:, :2], 1)
    expected = guide_loss(student, teacher, LABELS % 2, temperature=T)
    for labels in ((LABELS % 2).float(), (LABELS % 2).float().unsqueeze(1), LABELS % 2 == 1):
        assert torch.equal(guide_loss(student, teacher, labels, temperature=T), expected)
    torch.testing.assert_close(
        distillation_loss(student, teacher, torch.full((9,), 0.25)),
        distillation_loss(student, teacher, torch.tensor([[0.75, 0.25]]).expand(9, 2)),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_are_compared_in_float32(dtype):
    student = STUDENT.to(dtype)
    for loss in (guide_loss, not_true_distillation):
        value = loss(student, TEACHER, LABELS, temperature=T)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(student.float(), TEACHER, LABELS, temperature=T))
    assert distillation_loss(student, TEACHER, LABELS).dtype == torch.float32


@pytest.mark.parametrize("labels", [LABELS, LABELS.int(), ONE_HOT * 0.8 + 0.04])
def test_the_losses_of_one_s_own_take_what_cross_entropy_takes(labels):
    as_taken = labels if labels.is_floating_point() else labels.long()
    torch.testing.assert_close(
        distillation_loss(STUDENT, TEACHER, labels, alpha=1.0), F.cross_entropy(STUDENT, as_taken)
    )
    counts = torch.tensor([1, 2, 3, 4, 5])
    shift = torch.log(counts / counts.sum())
    loss, expected = balanced_softmax(counts)(STUDENT, labels), F.cross_entropy(STUDENT + shift, as_taken)
    torch.testing.assert_close(loss, expected, rtol=1e-6 if labels.is_floating_point() else 0.0, atol=0.0)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(8, dtype=torch.int64), r"shape \(9,\).*shape \(8,\)"),
        (torch.zeros(9, 4), r"\(9, 5\).*\(9, 4\)"),
        (torch.zeros(9), r"\(9, 5\).*\(9,\)"),
        (torch.zeros(9, 2, dtype=torch.int64), r"shape \(9, 2\)"),
        (torch.zeros(9, 5, 3), r"shape \(9, 5, 3\)"),
        (torch.zeros(9, dtype=torch.complex64), "complex64"),
        ([0] * 9, "must be a tensor, not list"),
    ],
)
def test_other_shapes_and_types_are_refused_in_a_sentence_that_names_labels(labels, words):
    with pytest.raises(SettingsError, match=f"^labels .*{words}"):
        guide_loss(STUDENT, TEACHER, labels, temperature=T)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 5]), "from 0 to 4.*one is 5"),
        (torch.tensor([0, -1]), "-100 .*one is -1"),
        (torch.full((2, 5), 1.5), "probabilities"),
        (torch.full((2, 5), -0.5), "probabilities"),
        (torch.full((2, 5), torch.nan), "probabilities"),
    ],
)
def test_values_out_of_range_are_refused(labels, words):
    with pytest.raises(SettingsError, match=f"^labels .*{words}"):
        check_values(labels, classes=5)
    check_values(uniform_labels(torch.tensor([0, -100, 4]), samples=3, classes=5), classes=5)

"""Reports on joining: a twin that trains without teachers, in `fit`, and a model that the owner trained alone."""

import copy

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.joining_report import JoiningReport, joining_report
from kuber.entity.control import FILE_NAME
from kuber.entity.state.event_log import FILE_NAME as EVENTS
from kuber.entity.state.event_log import read_events
from kuber.errors import SettingsError

LABELS = ("a", "b", "c")
TASK = kuber.Task(name="clouds", labels=LABELS, input_shape=(2,))
W = ("weights",)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def points(count, seed, classes=(0, 1, 2)):
    draws = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes)[torch.randint(0, len(classes), (count,), generator=draws)]
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return centres[y] + torch.randn(count, 2, generator=draws), y


VALIDATION = points(60, 99)


@pytest.fixture
def enter(hub, tmp_path):
    made = []

    def enter(name, model, **more):
        fields = {"task": TASK, "validation": VALIDATION, "hub": hub, "folder": tmp_path / name, "formats": W} | more
        made.append(kuber.Entity(name, model=model, **fields))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def batches(seed=0, classes=(0, 1, 2)):
    x, y = points(48, seed, classes)
    return [(x[start : start + 16], y[start : start + 16]) for start in range(0, 48, 16)]


def fitted(enter, name, rounds=3, model=None, optimizer=None, **more):
    torch.manual_seed(0)
    entity = enter(name, model or Net(), **more)
    entity.fit(batches(), rounds=rounds, optimizer=optimizer)
    return entity


def compared(folder):
    return [event.detail for event in read_events(folder / EVENTS) if event.kind == "compared"]


def test_the_twin_leaves_the_owners_training_bit_for_bit(enter):
    one = fitted(enter, "one")
    after = torch.rand(3)
    two = fitted(enter, "two", control=True, hub=kuber.memory_hub())
    assert torch.equal(torch.rand(3), after)
    for mine, others in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True):
        assert torch.equal(mine, others)


def test_without_teachers_the_twin_is_the_model(enter, tmp_path):
    entity = fitted(enter, "one", control=True)
    report = entity.report()
    assert report.rounds == 3
    assert report.accuracy.samples == 60
    assert [row.label for row in report.classes] == list(LABELS)
    for row in (report.accuracy, report.balanced, *report.classes):
        assert row.alone == row.joined
        assert row.low < 0 < row.high
    assert [detail["rounds"] for detail in compared(tmp_path / "one")] == [1, 2, 3]
    assert compared(tmp_path / "one")[-1] == report.as_dict() == JoiningReport.from_dict(report.as_dict()).as_dict()


def test_the_twin_gets_no_teachers(enter):
    teacher = fitted(enter, "teacher", rounds=4)
    teacher.publish()
    torch.manual_seed(0)
    model = Net()
    alone = copy.deepcopy(model)
    plain = enter("plain", alone, strategy="local-balanced")
    student = enter("student", model, control=2)
    for entity in (plain, student):
        torch.manual_seed(1)
        entity.fit(batches(1, (0, 1)), rounds=2)
    assert student.report().accuracy.alone == plain.evaluation.accuracy


def test_the_rounds_of_the_control_end(enter, tmp_path):
    entity = fitted(enter, "one", rounds=3, control=1)
    assert entity.report().rounds == 1
    assert len(compared(tmp_path / "one")) == 1


def test_another_process_resumes_the_twin(enter, tmp_path):
    whole = fitted(enter, "whole", rounds=4, control=4, hub=kuber.memory_hub())
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    first = enter("parts", model, control=4)
    first.fit(batches(), rounds=2, optimizer=optimizer)
    first.close()
    second = enter("parts", model, control=4)
    second.fit(batches(), rounds=2, optimizer=optimizer)
    assert second.report().rounds == 4
    assert second.report().as_dict() == whole.report().as_dict()
    assert [detail["rounds"] for detail in compared(tmp_path / "parts")] == [1, 2, 3, 4]


def test_a_damaged_file_of_the_twin_ends_the_control_only(enter, tmp_path, caplog):
    fitted(enter, "one", rounds=1, control=True).close()
    (tmp_path / "one" / FILE_NAME).write_bytes(b"x")
    entity = fitted(enter, "one", rounds=1, control=True)
    assert "of the control cannot be read" in caplog.text
    with pytest.raises(kuber.errors.CorruptKnowledgeError, match="remove it"):
        entity.report()


def test_a_schedule_of_the_owners_moves_both(enter):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    entity = enter("one", model, control=True)
    entity.fit(batches(), rounds=2, optimizer=optimizer)
    assert scheduler.last_epoch == 6  # of the owner's steps alone
    report = entity.report()
    assert report.accuracy.alone == report.accuracy.joined


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self[0].register_forward_hook(lambda *_: None)


class Patched(Net):
    def __init__(self):
        super().__init__()
        self[0].forward = self[0].forward


@pytest.mark.parametrize("model", [Hooked, Patched])
def test_a_model_whose_copy_could_disturb_it_has_no_twin(enter, model, caplog):
    entity = fitted(enter, "one", model=model(), control=True)
    assert caplog.text.count("control is not possible") == 1
    with pytest.raises(SettingsError, match="There is nothing to report"):
        entity.report()


def test_a_model_that_the_owner_trained_alone_is_compared(enter, tmp_path):
    entity = fitted(enter, "one", rounds=1)
    alone = copy.deepcopy(entity.model)
    with torch.no_grad():
        alone[4].bias[0] += 100.0  # it answers a to every sample
    report = entity.report(alone, data=points(40, 7))
    assert report.accuracy.samples == 40
    (row,) = [row for row in report.classes if row.label == "a"]
    assert row.alone == 1.0
    assert report.balanced.alone == pytest.approx(1 / 3)
    assert report.rounds == 1
    assert entity.report(alone).accuracy.samples == 60
    assert [detail["accuracy"]["samples"] for detail in compared(tmp_path / "one")] == [40, 60]
    assert compared(tmp_path / "one")[0] == report.as_dict()
    entity.close()
    before = (tmp_path / "one" / EVENTS).read_bytes()
    assert entity.report(alone).accuracy.samples == 60
    assert (tmp_path / "one" / EVENTS).read_bytes() == before  # the folder may be another's by now
    again = enter("one", Net())
    assert len(compared(tmp_path / "one")) == 2
    again.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": 0.5}, "control"),
        ({"control": True, "judged": Net()}, "control has no copy of the module judged"),
        ({"control": True, "validation": None, "evaluate": lambda network: None}, "control compares single answers"),
    ],
)
def test_impossible_controls_are_refused(enter, arguments, message):
    with pytest.raises(SettingsError, match=message):
        enter("one", Net(), **arguments)


def test_the_printed_report_fits_a_terminal():
    digest = kuber.Digest.of(b"set")

    def evaluation(*right):
        correct = tuple(bits.bit_count() for bits in right)
        return kuber.Evaluation(test_set=digest, correct=correct, total=(10_000, 4, 0), right=right)

    labels = ("a\u202elabel of a great many characters", "b", "c")
    report = joining_report(evaluation(0, 0b1111, 0), evaluation(2**9000 - 1, 0b0111, 0), labels, rounds=1)
    lines = str(report).split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Alone and with KUber after 1 round, on 10004 samples of your own:"
    assert lines[-1] == "b                            4  100.0   75.0   -25.0  -60.9 to +27.6"
    assert len(lines) == 6  # a class without samples is left out

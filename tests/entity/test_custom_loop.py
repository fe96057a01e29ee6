"""Entities with a custom training loop, on a hub in memory."""

import logging
import re

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import kuber
from kuber.entity.state.event_log import FILE_NAME, read_events

LABELS = ("a", "b", "c")
W = ("weights",)  # faster to export


def points(count, seed, classes=(0, 1, 2)):
    """Samples of some of three clouds in the plane."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes)[torch.randint(0, len(classes), (count,), generator=draws)]
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return centres[y] + torch.randn(count, 2, generator=draws), y


COMMON = points(300, 99)
TASK = kuber.Task(name="clouds", labels=LABELS, input_shape=(2,), test_set=kuber.test_set_digest(COMMON))


class Wide(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3))


class Deep(nn.Sequential):
    def __init__(self, classes=3):
        super().__init__(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, classes))


@pytest.fixture
def enter(hub, tmp_path):
    made = []

    def enter(name, model, **more):
        fields = {"task": TASK, "validation": COMMON, "hub": hub, "folder": tmp_path / name} | more
        entity = kuber.Entity(name, model=model, **fields)
        made.append(entity)
        return entity

    yield enter
    for entity in made:
        entity.close()


def train(model, data, steps=60, teachers=None):
    x, y = data
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        if teachers:
            loss = kuber.losses.distillation_loss(logits, teachers(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def events(entity_folder, kind):
    return [event.detail for event in read_events(entity_folder / FILE_NAME) if event.kind == kind]


def published(hub):
    return hub[0].discover(kuber.Query()).items


@pytest.mark.process
def test_two_architectures_that_share_no_code_teach_each_other(enter, hub, tmp_path):
    torch.manual_seed(0)
    wide, deep = enter("wide", Wide()), enter("deep", Deep())
    train(wide.model, points(200, 0, (0, 1)))
    assert wide.publish()
    (record,) = published(hub)
    assert set(record.artifacts) == {"weights", "onnx"}
    assert record.architecture.name.endswith("test_custom_loop.Wide")
    teachers = deep.discover()
    assert [teacher.knowledge.id for teacher in teachers] == [record.id]
    assert str(teachers[0]).startswith("wide r1 (")
    assert teachers(COMMON[0]).shape == (300, 3)
    before = deep.evaluate()
    train(deep.model, points(200, 1, (1, 2)), teachers=teachers)
    assert deep.keep_if_better()
    assert deep.evaluate().accuracy > before.accuracy
    assert deep.publish()
    (child, _) = sorted(published(hub), key=lambda record: -len(record.parents))
    assert child.parents == (record.id,)
    (delivery,) = hub[0].deliveries().items
    assert (delivery.teachers, delivery.kept) == ((record.id,), True)
    assert re.fullmatch(r"The only candidate, which claims what we lack: \d.* on [abc] .* %\)\.", delivery.reason)
    assert [detail["reason"] for detail in events(tmp_path / "deep", "absorbed")] == [delivery.reason]
    (pulled,) = events(tmp_path / "deep", "pulled")
    assert pulled["bytes"] == record.artifacts["onnx"].size


@pytest.mark.process
def test_the_same_class_pulls_weights(enter, hub, tmp_path):
    first, second = enter("first", Wide()), enter("second", Wide())
    train(first.model, points(200, 0))
    first.publish()
    assert len(second.discover()) == 1
    (pulled,) = events(tmp_path / "second", "pulled")
    (record,) = published(hub)
    assert pulled["bytes"] == record.artifacts["weights"].size


@pytest.mark.process
def test_networks_of_one_class_and_different_sizes_have_different_architectures(enter, hub):
    enter("three", Deep(3)).publish()
    other = kuber.Task(name="more", labels=(*LABELS, "d"), input_shape=(2,))
    enter("four", Deep(4), task=other).publish()
    assert len(published(hub)) == 2


def test_a_worse_model_is_reverted_with_the_optimizer(enter):
    torch.manual_seed(0)
    entity = enter("one", Wide(), formats=W)
    optimizer = train(entity.model, points(200, 0))
    assert entity.keep_if_better(optimizer)
    kept = {name: tensor.clone() for name, tensor in entity.model.state_dict().items()}
    steps = {key: value["step"].clone() for key, value in optimizer.state_dict()["state"].items()}
    good = entity.evaluate()
    for _ in range(30):
        optimizer.zero_grad()
        (-entity.model(COMMON[0]).square().sum()).backward()
        optimizer.step()
    assert not entity.keep_if_better(optimizer)
    assert entity.evaluate() == good
    assert all(torch.equal(kept[name], tensor) for name, tensor in entity.model.state_dict().items())
    assert {key: value["step"] for key, value in optimizer.state_dict()["state"].items()} == steps


def test_the_first_comparison_is_with_the_model_that_was_passed(enter):
    torch.manual_seed(0)
    model = Wide()
    train(model, points(300, 0))
    entity = enter("one", model, formats=W)
    good = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    assert not entity.keep_if_better()
    assert all(torch.equal(good[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.process
def test_step_does_one_whole_round(enter, hub, tmp_path):
    torch.manual_seed(0)
    one, two = enter("one", Wide()), enter("two", Deep())
    sides = {"one": points(200, 0, (0, 1)), "two": points(200, 1, (1, 2))}
    assert not one.step()
    assert not published(hub)  # nothing is trained yet
    count = 0
    for _ in range(3):
        for entity in (one, two):
            teachers = entity.step()
            count += len(teachers)
            train(entity.model, sides[entity.name], steps=20, teachers=teachers)
    assert count >= 4
    assert (one.round, two.round) == (4, 3)
    assert len(events(tmp_path / "two", "round-ended")) == 2
    assert events(tmp_path / "two", "absorbed")


def test_fit_trains_and_exchanges(enter, hub):
    torch.manual_seed(0)
    loaders = [
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*points(200, side, classes)), batch_size=20)
        for side, classes in ((0, (0, 1)), (1, (1, 2)))
    ]
    strong = enter("strong", Wide(), formats=W)
    train(strong.model, points(500, 5))
    strong.publish()
    alone = enter("alone", Wide(), strategy="local", formats=W).fit(loaders[1], rounds=6, epochs=6)
    together = enter("together", Wide(), formats=W).fit(loaders[1], rounds=6, epochs=6)
    assert together.accuracy > alone.accuracy
    assert {record.round for record in published(hub) if record.task == TASK} > {1}


def test_models_of_one_origin_are_merged(enter, hub, tmp_path):
    torch.manual_seed(0)
    one, two = enter("one", Wide(), strategy="merge", formats=W), enter("two", Wide(), strategy="merge", formats=W)
    one.step()
    two.step()
    assert torch.equal(one.model[0].weight, two.model[0].weight)  # both begin at one checkpoint
    train(one.model, points(200, 0))
    train(two.model, points(200, 1))
    one.step()
    mine = two.model[0].weight.clone()
    two.step()
    assert not torch.equal(mine, two.model[0].weight)
    (absorbed,) = events(tmp_path / "two", "absorbed")
    assert (absorbed["method"], absorbed["kept"]) == ("merge", True)
    assert absorbed["reason"].startswith("The only relative (same architecture and initial checkpoint); found ")


@pytest.mark.process
def test_without_a_common_test_set_each_entity_evaluates_candidates_itself(enter, hub, tmp_path):
    torch.manual_seed(0)
    task = kuber.Task(name="wards", labels=LABELS, input_shape=(2,))
    good, bad = enter("good", Wide(), task=task), enter("bad", Deep(), task=task, validation=points(50, 7))
    train(good.model, points(300, 0))
    with torch.no_grad():
        bad.model[-1].bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    good.publish()
    bad.publish()
    first, second = published(hub)
    assert first.evaluation.test_set != second.evaluation.test_set
    student = enter("student", Deep(), task=task, validation=points(80, 8))
    teachers = student.discover()
    assert teachers[0].knowledge.entity == hub[0].members().items[0].id
    assert teachers[0].evaluation.test_set == student.evaluate().test_set
    assert len(events(tmp_path / "student", "pulled")) == 2
    assert not hub[0].attestations(first.id)
    train(student.model, points(80, 9), teachers=teachers)
    student.keep_if_better()
    (delivery,) = hub[0].deliveries().items
    reason = r"(1 of 2|Both) candidates, which (is|are) found by us to have what we lack: .*"
    assert re.fullmatch(reason, delivery.reason)


@pytest.mark.process
def test_a_teacher_of_other_labels_teaches_the_common_ones(enter, hub):
    torch.manual_seed(0)
    labels = ("c", "z", "b")
    teacher = enter(
        "teacher",
        Deep(),
        task=kuber.Task(name="wards", labels=labels, input_shape=(2,)),
        validation=(COMMON[0][COMMON[1] != 0], torch.tensor([9, 2, 0])[COMMON[1][COMMON[1] != 0]]),
    )
    x, y = points(300, 3, (1, 2))
    train(teacher.model, (x, torch.tensor([9, 2, 0])[y]))
    teacher.publish()
    student = enter("student", Wide(), task=kuber.Task(name="wards", labels=LABELS, input_shape=(2,)))
    (found,) = student.discover()
    logits = found.network(x)
    assert torch.isneginf(logits[:, 0]).all()
    assert (logits.argmax(1) == y).float().mean() > 0.8
    assert found.evaluation.correct[0] == 0


@pytest.mark.process
def test_a_graph_alone_can_be_published_and_teach(enter, hub):
    torch.manual_seed(0)
    model = Wide()
    train(model, points(300, 0))
    graph = kuber.onnx.OnnxModel(kuber.onnx.export(model, input_shape=(2,)), input_shape=(2,), classes=3)
    teacher = enter("graph", graph)
    teacher.publish()
    (record,) = published(hub)
    assert set(record.artifacts) == {"onnx"}
    assert record.architecture.manifest == {}
    (found,) = enter("student", Deep()).discover()
    assert found.evaluation.accuracy > 0.8


@pytest.mark.process
def test_a_model_that_cannot_be_run_is_refused_with_a_reason(enter, hub, tmp_path):
    enter("wide", Wide(), formats=("weights",)).publish()
    assert not enter("deep", Deep()).discover()
    (rejected,) = events(tmp_path / "deep", "rejected")
    assert "no architecture" in rejected["reason"]
    assert "no ONNX graph" in rejected["reason"]


class NotExportable(Wide):
    def forward(self, x):
        return torch.linalg.svd(x.unsqueeze(1).expand(-1, 3, -1))[1].sum(1, keepdim=True) + super().forward(x)


def test_a_model_that_cannot_be_exported_is_published_as_weights_with_a_warning(enter, hub, caplog):
    with caplog.at_level(logging.WARNING, logger="kuber"):
        entity = enter("odd", NotExportable())
    assert "cannot be exported as an ONNX graph" in caplog.text
    entity.publish()
    (record,) = published(hub)
    assert set(record.artifacts) == {"weights"}
    with pytest.raises(kuber.errors.SettingsError, match="cannot be exported"):
        enter("asked", NotExportable(), formats=("onnx",))


def test_with_the_same_folder_the_same_entity_resumes(enter, hub, tmp_path):
    torch.manual_seed(0)
    first = enter("one", Wide(), formats=W)
    first.publish()
    first.close()
    again = enter("one", Wide(), formats=W)
    again.publish()
    newer, older = hub[0].discover(kuber.Query(order="newest")).items
    assert newer.entity == older.entity
    assert (newer.sequence, newer.round) == (2, 2)
    assert len(hub[0].members().items) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"validation": None}, "either validation data or a function"),
        ({"validation": (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))}, "have shape"),
        ({"validation": (torch.zeros(4, 2), torch.full((4,), 3))}, "from 0 to 2"),
        ({"validation": (torch.zeros(4, 2), torch.full((4,), 0.5))}, "whole numbers"),
        ({"validation": []}, "at least one"),
        ({"validation": points(10, 1)}, "not the common test set"),
        ({"strategy": "magic"}, "no strategy 'magic'"),
        ({"formats": ("pickle",)}, "published as weights, onnx"),
        ({"hub": "http://hub.example"}, "give the vault's address too"),
        ({"hub": "nowhere"}, "not the address|no port"),
    ],
)
@pytest.mark.process
def test_contradicting_arguments_are_refused_in_a_sentence(enter, change, words):
    with pytest.raises(kuber.errors.SettingsError, match=words) as caught:
        enter("one", Wide(), **change)
    assert "\n" not in caught.value.message


def test_a_function_may_evaluate(enter, hub):
    digest = kuber.Digest.of(b"the ward's own cases")

    def evaluate(network):
        right = network(COMMON[0]).argmax(1) == COMMON[1]
        correct = torch.bincount(COMMON[1][right], minlength=3)
        total = torch.bincount(COMMON[1], minlength=3)
        return kuber.Evaluation(test_set=digest, correct=tuple(correct.tolist()), total=tuple(total.tolist()))

    entity = enter(
        "one",
        Wide(),
        task=kuber.Task(name="t", labels=LABELS, input_shape=(2,)),
        validation=None,
        evaluate=evaluate,
        formats=W,
    )
    entity.publish()
    (record,) = published(hub)
    assert record.evaluation.test_set == digest


@pytest.mark.process
def test_an_unsound_graph_is_refused_and_the_student_continues(enter, hub, tmp_path):
    """The hub checks a graph's outline only; the entity that pulls it checks more."""
    torch.manual_seed(0)
    sound = Wide()
    train(sound, points(300, 0))
    portable = kuber.onnx.OnnxModel(kuber.onnx.export(sound, input_shape=(2,)), input_shape=(2,), classes=3)
    liar = enter("liar", portable)
    inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    body = helper.make_graph(
        [helper.make_node("If", ["x"], ["logits"], then_branch=inner, else_branch=inner)],
        "outer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    good, portable.graph = portable.graph, helper.make_model(body, ir_version=8).SerializeToString()
    liar.publish()
    student = enter("student", Deep())
    assert not student.step()
    (rejected,) = events(tmp_path / "student", "rejected")
    assert "control flow" in rejected["reason"]
    portable.graph = good
    liar.publish()
    train(student.model, points(100, 1))
    assert len(student.step()) == 1


def test_used_teachers_are_parents_before_the_phase_is_kept(enter, hub):
    torch.manual_seed(0)
    one, two = enter("one", Wide(), formats=W), enter("two", Wide(), formats=W)
    train(one.model, points(200, 0))
    one.publish()
    train(two.model, points(50, 1), teachers=two.discover())
    two.publish()
    newest, first = hub[0].discover(kuber.Query(order="newest")).items
    assert newest.parents == (first.id,)


def test_a_network_with_other_classes_than_its_record_is_refused(enter, hub, tmp_path):
    """The tensors are those of the record, but the network has fewer outputs than the record has labels."""
    torch.manual_seed(0)
    liar = enter("liar", Wide(), formats=W, task=kuber.Task(name="wards", labels=LABELS, input_shape=(2,)))
    train(liar.model, points(200, 0))
    liar._adapter.task = kuber.Task(name="wards", labels=(*LABELS, "d"), input_shape=(2,))
    evaluation = kuber.Evaluation(test_set=kuber.Digest.of(b"mine"), correct=(1,) * 4, total=(2,) * 4)
    liar._phases.connect()
    liar._journal.change(round=1, weights=liar._adapter.weights())
    liar._session.publisher.publish(evaluation)
    student = enter("student", Wide(), formats=W, task=kuber.Task(name="wards", labels=LABELS, input_shape=(2,)))
    assert not student.discover()
    (rejected,) = events(tmp_path / "student", "rejected")
    assert "returns shape (1, 3) for 1 samples, but the task has 4 labels" in rejected["reason"]


@pytest.mark.process
def test_one_graph_under_two_tasks_is_two_teachers(enter, hub, tmp_path):
    torch.manual_seed(0)
    model = Wide()
    train(model, points(200, 0))
    graph = kuber.onnx.export(model, input_shape=(2,))
    wards = kuber.Task(name="wards", labels=LABELS, input_shape=(2,))
    honest = kuber.onnx.OnnxModel(graph, input_shape=(2,), classes=3)
    enter("honest", honest, task=wards).publish()
    student = enter("student", Deep(), task=wards)
    assert len(student.discover()) == 1
    with pytest.raises(kuber.errors.CorruptKnowledgeError, match="not \\(2, 4\\)"):
        student._adapter._graph_network(graph, kuber.Task(name="wards", labels=(*LABELS, "d"), input_shape=(2,)))


@pytest.mark.parametrize(
    ("arguments", "prior"),
    [({}, None), ({"class_counts": (9, 1, 0)}, "own"), ({"carried_prior": "uniform"}, "uniform")],
)
def test_a_record_says_which_prior_the_logits_of_an_owners_model_carry(enter, hub, arguments, prior):
    one = enter("one", Wide(), formats=W, **arguments)
    one.publish()
    (record,) = published(hub)
    assert record.prior == prior


def test_the_prior_of_a_teacher_is_taken_out_in_an_owners_loop(enter, hub):
    torch.manual_seed(0)
    x, y = points(300, 0)
    skewed = [torch.cat([part[y == 0], part[y == 1][:1], part[y == 2][:2]]) for part in (x, y)]
    one = enter("one", Wide(), formats=W, class_counts=(97, 1, 2))
    train(one.model, skewed)
    one.publish()
    two = enter("two", Wide(), formats=W)
    (teacher,) = two.discover()
    assert torch.allclose(teacher.shift[1] - teacher.shift[0], torch.tensor(98 / 2).log())


def test_false_class_counts_do_not_turn_the_answers_of_a_teacher(enter, hub):
    """Without the prior that it states the model would answer the class that it claims to lack."""
    torch.manual_seed(0)
    liar = enter("liar", Wide(), formats=W, class_counts=(10**6, 10**6, 0))
    train(liar.model, points(200, 0))
    liar.publish()
    (teacher,) = enter("two", Wide(), formats=W).discover()
    assert teacher.shift is None
    assert teacher.evaluation.accuracy > 0.8


def test_an_own_prior_needs_class_counts(enter):
    with pytest.raises(kuber.errors.SettingsError, match="give class_counts too"):
        enter("one", Wide(), carried_prior="own")


def test_after_fit_the_record_has_the_prior_of_its_loss(enter, hub):
    one = enter("one", Wide(), formats=W, class_counts=(9, 1, 0), strategy="local-balanced")
    one.fit([points(20, 0)], rounds=1)
    one.publish()
    assert published(hub)[0].prior == "uniform"


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ({"class_counts": (97, 1, 2)}, (98, 2, 3)),
        ({"class_counts": (97, 1, 2), "carried_prior": "uniform"}, (1, 1, 1)),
        ({"class_counts": (97, 1, 2), "task": TASK}, (1, 1, 1)),  # judged by the mixture of all
        ({}, (1, 1, 1)),
    ],
    ids=["own mixture", "balanced loss", "common test set", "unknown"],
)
def test_teachers_answer_for_the_classes_that_a_student_is_judged_by(enter, arguments, counts):
    torch.manual_seed(0)
    wards = kuber.Task(name="clouds", labels=LABELS, input_shape=(2,))
    one = enter("one", Wide(), task=arguments.get("task", wards), formats=W)
    train(one.model, points(200, 0))
    one.publish()
    teachers = enter("two", Wide(), **{"task": wards, "formats": W} | arguments).discover()
    plain = teachers[0].network(COMMON[0]).log_softmax(1)
    added = (teachers(COMMON[0]) - plain)[0]
    expected = torch.tensor(counts).log()
    assert torch.allclose(added - added[0], expected - expected[0], atol=1e-3)

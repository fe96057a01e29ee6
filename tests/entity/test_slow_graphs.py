"""A graph that is quick for the samples that it is evaluated on, and slow for those of the owner's training."""

import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import kuber
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.learning import time_budget

LABELS = ("left", "right")
X = torch.randn(80, 2, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
Y = (X[:, 0] > 0).long()
TASK = kuber.Task(name="sides", labels=LABELS, input_shape=(2,))


def network():
    model = nn.Sequential(nn.Linear(2, 2))
    model.load_state_dict({"0.weight": torch.tensor([[-9.0, 0.0], [9.0, 0.0]]), "0.bias": torch.zeros(2)})
    return model


def slow_beyond(bound, graph, multiplications=100):
    """Add large multiplications, whose result is 0, for batches with a value above the bound."""
    model = onnx.ModelProto.FromString(graph)
    last = model.graph.node[-1]
    assert list(last.output) == ["logits"]
    last.output[0] = "fast"
    constants = {"bound": np.float32(bound), "rows": np.float32(4096), "k": np.eye(512, dtype="f4")}
    constants |= {"first": np.array([0]), "width": np.array([512])}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["x"], ["greatest"], keepdims=0),
            helper.make_node("Greater", ["greatest", "bound"], ["beyond"]),
            helper.make_node("Cast", ["beyond"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["factor", "rows"], ["wanted"]),
            helper.make_node("Cast", ["wanted"], ["count"], to=TensorProto.INT64),
            helper.make_node("Unsqueeze", ["count", "first"], ["counts"]),
            helper.make_node("Concat", ["counts", "width"], ["size"], axis=0),
            helper.make_node("ConstantOfShape", ["size"], ["r0"]),
            *(helper.make_node("MatMul", [f"r{i}", "k"], [f"r{i + 1}"]) for i in range(multiplications)),
            helper.make_node("ReduceSum", [f"r{multiplications}"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["fast", "nothing"], ["logits"]),
        ]
    )
    return model.SerializeToString()


@pytest.mark.process
def test_the_slow_teacher_is_left_out_and_the_owners_training_goes_on(hub, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(time_budget, "GRACE_SECONDS", 0.2)
    shared = {"task": TASK, "validation": (X, Y), "hub": hub}
    graph = slow_beyond(10.0, kuber.onnx.export(network(), input_shape=(2,)))
    teacher = kuber.onnx.OnnxModel(graph, input_shape=(2,), classes=2)
    for name in ("slow", "slow again"):  # two records of one graph
        with kuber.Entity(name, model=teacher, folder=tmp_path / name, **shared) as entity:
            assert entity.publish()
    teacher.close()
    student = kuber.Entity("student", model=nn.Linear(2, 2), folder=tmp_path / "student", **shared)
    optimizer = torch.optim.SGD(student.model.parameters(), 0.1)
    teachers = student.step(optimizer)
    assert teachers
    far = torch.cat([X, torch.tensor([[100.0, 0.0]])])
    labels = torch.cat([Y, torch.tensor([1])])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "kuber"):
        for _ in range(3):
            logits = student.model(far)
            loss = nn.functional.cross_entropy(logits, labels) + teachers.loss(logits, far, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert len(teachers) == 0
    assert sum("exceeded its time limit" in record.message for record in caplog.records) == 1
    assert not student.step(optimizer)  # the other record of that graph is not run
    student.close()
    events = read_events(tmp_path / "student" / FILE_NAME)
    reasons = [event.detail["reason"] for event in events if event.kind == "rejected"]
    assert len(reasons) == len(set(reasons)) == 2
    assert all("exceeded its time limit" in reason for reason in reasons)

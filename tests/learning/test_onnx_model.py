"""ONNX graphs: export of networks, and untrusted graphs run under limits."""

import os
import signal

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, TimeLimitError
from kuber.learning import onnx_model, time_budget
from kuber.learning.architectures import make_network
from kuber.learning.evaluation import evaluation_mode
from kuber.learning.onnx_export import check_equivalent, export
from kuber.learning.onnx_model import GraphLimits, OnnxModel

SHAPE, CLASSES = (4,), 3
FLOAT = TensorProto.FLOAT


def graph(
    nodes, *, constants=(), shape=("batch", 4), dtype=FLOAT, opsets=(("", 17),), outputs=("logits",), functions=()
):
    """Return a graph from `x` to `outputs`, as bytes."""
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    body = helper.make_graph(nodes, "g", inputs, results, initializer=constants)
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid(*opset) for opset in opsets], functions=functions, ir_version=8
    )
    return model.SerializeToString()


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


WEIGHT = constant("w", np.arange(12).reshape(4, 3) / 10)
LINEAR = helper.make_node("MatMul", ["x", "w"], ["logits"])


def run(data, x=None, **limits):
    model = OnnxModel(data, input_shape=SHAPE, classes=CLASSES, limits=GraphLimits(**limits))
    try:
        return model(torch.ones(5, 4) if x is None else x)
    finally:
        model.close()


@pytest.mark.parametrize("name", ["cnn", "lenet", "resnet20", "mlp"])
@pytest.mark.process
def test_the_built_in_networks_have_the_same_logits_as_graphs(name):
    network = make_network(name, {"input_shape": (3, 32, 32), "classes": 10})
    network.train()
    data = export(network, input_shape=(3, 32, 32))
    assert network.training
    check_equivalent(network, data, torch.randn(7, 3, 32, 32), classes=10)


@pytest.mark.process
def test_batches_of_any_size_have_logits_without_gradient():
    model = OnnxModel(graph([LINEAR], constants=[WEIGHT]), input_shape=SHAPE, classes=CLASSES)
    for samples in (1, 64, 3000):
        x = torch.randn(samples, 4, requires_grad=True)
        logits = model(x)
        assert torch.allclose(logits, x @ torch.arange(12.0).reshape(4, 3) / 10, atol=1e-5)
        assert not logits.requires_grad


@pytest.mark.process
def test_a_graph_may_take_whole_numbers():
    network = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(32, CLASSES))
    data = export(network, input_shape=SHAPE, dtype=torch.int64)
    check_equivalent(network, data, torch.randint(0, 50, (6, 4)), classes=CLASSES)


@pytest.mark.process
def test_probabilities_become_logits():
    soft = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["probabilities"], axis=1),
    ]
    logits = run(graph(soft, constants=[WEIGHT], outputs=("probabilities",)))
    plain = run(graph([LINEAR], constants=[WEIGHT]))
    assert torch.allclose(logits.softmax(1), plain.softmax(1), atol=1e-5)


def external():
    tensor = constant("w", np.zeros((4, 3)))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def hidden_branch():
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", FLOAT, None)])
    return helper.make_node("If", ["x"], ["logits"], then_branch=branch, else_branch=branch)


REFUSED = {
    "no graph": (b"\x00" * 100, "not an ONNX file"),
    "external data": (graph([LINEAR], constants=[external()]), "is in another file"),
    "custom domain": (
        graph([LINEAR], constants=[WEIGHT], opsets=(("", 17), ("evil", 1))),
        "'evil', which are not standard",
    ),
    "custom operator": (graph([helper.make_node("Evil", ["x"], ["logits"])]), "cannot be loaded"),
    "control flow": (graph([hidden_branch()], constants=[WEIGHT]), "control flow"),
    "other samples": (graph([LINEAR], constants=[WEIGHT], shape=("batch", 5)), "samples of the task have"),
    "one batch size": (graph([LINEAR], constants=[WEIGHT], shape=(2, 4)), "only batches of 2 samples"),
    "other classes": (graph([LINEAR], constants=[constant("w", np.zeros((4, 2)))]), "not \\(2, 3\\)"),
    "texts": (graph([LINEAR], constants=[WEIGHT], dtype=TensorProto.STRING), "neither float32"),
    "a bomb": (
        graph(
            [
                helper.make_node("ConstantOfShape", ["huge"], ["bomb"]),
                helper.make_node("ReduceSum", ["bomb"], ["sum"], keepdims=0),
                helper.make_node("MatMul", ["x", "w"], ["m"]),
                helper.make_node("Add", ["m", "sum"], ["logits"]),
            ],
            constants=[WEIGHT, constant("huge", [1 << 36], np.int64)],
        ),
        "cannot be",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.process
def test_invalid_graphs_are_refused_in_a_sentence(name):
    data, words = REFUSED[name]
    with pytest.raises(CorruptKnowledgeError, match=words) as caught:
        run(data)
    assert "\n" not in caught.value.message


@pytest.mark.process
def test_functions_are_refused():
    function = helper.make_function("", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [])
    data = graph([LINEAR], constants=[WEIGHT], functions=[function])
    with pytest.raises(CorruptKnowledgeError, match="functions"):
        run(data)


@pytest.mark.process
def test_a_graph_that_takes_too_long_is_stopped():
    side = 4096
    nodes = [
        helper.make_node("ConstantOfShape", ["square"], ["m0"], value=helper.make_tensor("v", FLOAT, [1], [1e-4]))
    ]
    nodes.append(helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Add", ["m0", "mean"], ["n0"]))
    nodes += [helper.make_node("MatMul", [f"n{i}", f"n{i}"], [f"n{i + 1}"]) for i in range(60)]
    nodes.append(helper.make_node("ReduceMean", ["n60"], ["much"], keepdims=0))
    nodes += [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "much"], ["logits"])]
    data = graph(nodes, constants=[WEIGHT, constant("square", [side, side], np.int64)])
    with pytest.raises(IncompatibleKnowledgeError, match="exceeded its time limit"):
        run(data, load_seconds=3)


def test_a_graph_that_is_too_large_is_not_started():
    with pytest.raises(IncompatibleKnowledgeError, match="bytes, more than the limit of 10"):
        run(graph([LINEAR], constants=[WEIGHT]), bytes=10)


@pytest.mark.process
def test_other_samples_are_refused_before_they_are_sent():
    with pytest.raises(IncompatibleKnowledgeError, match="takes samples of shape"):
        run(graph([LINEAR], constants=[WEIGHT]), torch.ones(2, 5))


@pytest.mark.process
def test_a_process_that_dies_is_an_error():
    model = OnnxModel(graph([LINEAR], constants=[WEIGHT]), input_shape=SHAPE, classes=CLASSES)
    model._process.kill()
    model._process.wait()
    with pytest.raises(IncompatibleKnowledgeError, match="process of the ONNX graph exited"):
        model(torch.ones(2, 4))


def test_a_model_that_cannot_be_exported_is_an_error():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.svd(x.unsqueeze(1).expand(-1, 3, -1))[1]

    with pytest.raises(IncompatibleKnowledgeError, match="cannot be exported as an ONNX graph"):
        export(Odd(), input_shape=SHAPE)


@pytest.mark.process
def test_a_model_that_branches_on_the_samples_is_detected():
    class Branching(nn.Module):
        def forward(self, x):
            return x[:, :3] * 2 if x.sum() > 0 else x[:, :3]

    data = export(Branching(), input_shape=SHAPE)
    with pytest.raises(IncompatibleKnowledgeError, match="return different logits"):
        check_equivalent(Branching(), data, torch.ones(2, 4), classes=CLASSES)


@pytest.mark.process
def test_the_process_loads_no_torch_and_writes_no_file(tmp_path):
    model = OnnxModel(graph([LINEAR], constants=[WEIGHT]), input_shape=SHAPE, classes=CLASSES)
    pid = model._process.pid
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        assert "libtorch" not in maps.read()
    with open(f"/proc/{pid}/limits", encoding="utf-8") as limits:
        limit = {line[:26].strip(): line[26:].split()[0] for line in limits}
    assert limit["Max file size"] == "0"
    assert limit["Max address space"] != "unlimited"
    model.close()
    assert onnx.__version__


@pytest.mark.process
def test_a_graph_prints_as_what_it_takes():
    data = graph([LINEAR], constants=[WEIGHT])
    model = OnnxModel(data, input_shape=SHAPE, classes=CLASSES)
    model.close()
    assert repr(model) == f"OnnxModel(input_shape=(4,), classes=3, {len(data):,} bytes)"


@pytest.mark.process
def test_a_kernel_that_cannot_confine_the_process_is_warned_of_once(monkeypatch, caplog):
    onnx_model._warn_of_kernel.cache_clear()
    monkeypatch.setattr(OnnxModel, "_read_line", lambda self, deadline: {"dtype": "<f4", "denied_by": ""})
    for _ in range(2):
        OnnxModel(graph([LINEAR], constants=[WEIGHT]), input_shape=SHAPE, classes=CLASSES).close()
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "This system has neither Landlock nor seccomp"
    ]
    onnx_model._warn_of_kernel.cache_clear()


@pytest.mark.process
def test_a_graph_is_run_in_batches_of_one_size_whatever_the_caller_has():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Cast", ["shape"], ["batch"], to=FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "batch"], ["logits"]),
    ]
    data = graph(nodes, constants=[WEIGHT, constant("zero", 0.0)])
    model = OnnxModel(data, input_shape=SHAPE, classes=CLASSES)
    for samples in (1, 31, 32, 100, 1100):
        assert torch.equal(model(torch.ones(samples, 4)), torch.full((samples, 3), float(onnx_model.BATCH)))
    model.close()


def slow_for_ones(seconds_of_work):
    """A graph that multiplies large matrices for samples of ones, and none for samples of zeros."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["greatest"], keepdims=0),
        helper.make_node("Mul", ["greatest", "rows"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "first"], ["counts"]),
        helper.make_node("Concat", ["counts", "width"], ["size"], axis=0),
        helper.make_node("ConstantOfShape", ["size"], ["r0"]),
        *(helper.make_node("MatMul", [f"r{i}", "k"], [f"r{i + 1}"]) for i in range(seconds_of_work)),
        helper.make_node("ReduceSum", [f"r{seconds_of_work}"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "sum"], ["logits"]),
    ]
    constants = [WEIGHT, constant("k", np.eye(512)), constant("rows", 4096.0)]
    constants += [constant("first", [0], np.int64), constant("width", [512], np.int64)]
    return graph(nodes, constants=constants)


@pytest.mark.process
def test_a_graph_that_is_slow_for_other_samples_than_those_evaluated_is_stopped(monkeypatch):
    monkeypatch.setattr(time_budget, "GRACE_SECONDS", 0.05)
    model = OnnxModel(slow_for_ones(400), input_shape=SHAPE, classes=CLASSES)
    model.begin_evaluation()
    with evaluation_mode(model):
        model(torch.zeros(300, 4))
    model.begin_phase()
    model(torch.zeros(300, 4))
    with pytest.raises(TimeLimitError, match=r"exceeded its time limit, [\d.]+ s for 352 samples"):
        model(torch.ones(32, 4))
    assert model._process.poll() is not None


@pytest.mark.process
def test_a_graph_that_is_slow_in_its_evaluation_is_stopped():
    model = OnnxModel(
        slow_for_ones(400), input_shape=SHAPE, classes=CLASSES, limits=GraphLimits(evaluation_seconds=2.0)
    )
    model._limits = GraphLimits(evaluation_seconds=0.05)
    model.begin_evaluation()
    with pytest.raises(TimeLimitError):
        model(torch.ones(32, 4))


@pytest.mark.process
def test_where_the_system_does_not_say_the_processor_time_the_time_waited_counts(monkeypatch):
    monkeypatch.setattr(OnnxModel, "_cpu_seconds", lambda self: None)
    monkeypatch.setattr(time_budget, "GRACE_SECONDS", 0.05)
    model = OnnxModel(slow_for_ones(400), input_shape=SHAPE, classes=CLASSES)
    model.begin_evaluation()
    model(torch.zeros(32, 4))
    model.begin_phase()
    with pytest.raises(TimeLimitError):
        model(torch.ones(32, 4))


@pytest.mark.process
def test_a_process_that_does_not_read_holds_nobody():
    model = OnnxModel(
        graph([LINEAR], constants=[WEIGHT]), input_shape=SHAPE, classes=CLASSES, limits=GraphLimits(seconds=0.2)
    )
    os.kill(model._process.pid, signal.SIGSTOP)
    with pytest.raises(TimeLimitError, match="exceeded its time limit"):
        model._run(np.zeros((100_000, 4), "<f4"))  # more than a pipe holds
    assert model._process.poll() is not None


@pytest.mark.parametrize("reply", [{}, {"dtype": "O"}, {"error": "it is not an ONNX file"}])
@pytest.mark.process
def test_a_process_that_replies_nonsense_is_refused(monkeypatch, reply):
    monkeypatch.setattr(OnnxModel, "_read_line", lambda self, deadline: reply)
    with pytest.raises(CorruptKnowledgeError, match=r"is refused: it"):
        OnnxModel(graph([LINEAR], constants=[WEIGHT]), input_shape=SHAPE, classes=CLASSES)


def test_lines_of_a_process_are_read_as_an_object_or_as_nothing(monkeypatch):
    model = OnnxModel.__new__(OnnxModel)
    for line, expected in ((b"[1]\n", {}), (b"\x80\xff\n", {}), (b'{"dtype": "<f4"}\n', {"dtype": "<f4"})):
        source = iter(line)
        monkeypatch.setattr(OnnxModel, "_receive", lambda self, count, deadline, source=source: bytes([next(source)]))
        assert model._read_line(0.0) == expected

"""Identity of an architecture: same code gives the same one anywhere, other code another."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import kuber
from kuber.domain.knowledge import Architecture
from kuber.entity.architecture_identity import describe_model, is_same_network
from kuber.entity.state.event_log import FILE_NAME, read_events

TASK = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))
LABELS = torch.arange(8) % 2
VALIDATION = (2.0 * LABELS - 1)[:, None] * torch.arange(1, 5), LABELS


class Net(nn.Module):
    def __init__(self, act=torch.relu, **attributes):
        super().__init__()
        self.a, self.act, self.b = nn.Linear(4, 8), act, nn.Linear(8, 2)
        vars(self).update(attributes)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


def describe(model, name=None, arguments=None):
    return describe_model(model, name, arguments, task=TASK)


def right(model):
    """Return the model with weights that are right about all samples, with ReLU."""
    nn.init.zeros_(model.a.bias), nn.init.zeros_(model.b.bias)
    model.a.weight.data.copy_(torch.tensor([1.0, -1.0]).repeat(4)[:, None].expand(8, 4))
    model.b.weight.data.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).repeat(1, 4))
    return model


def wrong(model):
    """Return the model with weights that are wrong about all samples, with ReLU and with tanh."""
    right(model).b.weight.data.neg_()
    return model


def test_same_code_is_one_architecture_whatever_was_learned():
    assert describe(Net()) == describe(right(Net()).eval())
    assert set(describe(Net()).arguments) == {"tensors", "modules", "answers"}


@pytest.mark.parametrize(
    "other",
    [
        lambda: Net(torch.tanh),
        lambda: Net(lambda x: x),
        lambda: Net(nn.SiLU()),
        lambda: type("Net", (Net,), {"forward": lambda self, x: -Net.forward(self, x)})(),
    ],
    ids=["activation", "function", "module", "forward"],
)
def test_other_code_is_another_architecture(other):
    assert describe(other()) != describe(Net())
    assert not is_same_network(describe(Net()), describe(other()))


def test_notes_of_an_owner_are_no_part_of_it():
    assert describe(Net(site="ward 7", calls=12, seed=1)) == describe(Net(site="ward 8", calls=0, path="/data"))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: torch.compile(net, backend="eager"),
        nn.DataParallel,
        AveragedModel,
        lambda net: torch.compile(nn.DataParallel(AveragedModel(net)), backend="eager"),
    ],
    ids=["compile", "DataParallel", "AveragedModel", "nested"],
)
def test_wrappers_are_no_part_of_it(wrap):
    assert describe(wrap(Net())) == describe(Net())


def test_a_given_name_is_taken_as_it_is():
    assert describe(Net(), "mine", {"width": 8}).name == "mine"
    assert dict(describe(Net(), "mine", {"width": 8}).arguments) == {"width": 8}
    assert describe(Net(), "mine") == describe(Net(torch.tanh), "mine")


def test_records_of_earlier_versions_are_known_by_their_tensors():
    own = describe(Net())
    earlier = replace(own, arguments={"tensors": own.arguments["tensors"]})
    assert is_same_network(own, earlier)
    assert not is_same_network(own, replace(earlier, name="other"))
    assert not is_same_network(own, replace(earlier, arguments={"tensors": "0" * 16}))
    assert not is_same_network(own, replace(earlier, manifest={}))
    named = Architecture(name=own.name, arguments={}, manifest=own.manifest)
    assert not is_same_network(named, earlier)


def test_the_digest_of_tensors_is_that_of_earlier_versions():
    assert describe(nn.Linear(4, 2)).arguments["tensors"] == "3d94e048004d7d12"


SCRIPT = """
import json, sys
import torch
from torch import nn
import kuber
from kuber.entity.architecture_identity import describe_model

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(int(sys.argv[1]))
layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
net = nn.Sequential(
    nn.Conv1d(3, 64, 3, padding=1), nn.BatchNorm1d(64), nn.Flatten(2), nn.Linear(50, 64),
    nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(64 * 64, 300), nn.GELU(),
    nn.LayerNorm(300), nn.Linear(300, 20),
)
task = kuber.Task(name="t", labels=tuple("abcdefghijklmnopqrst"), input_shape=(3, 50))
print(json.dumps(dict(describe_model(net, None, None, task=task).arguments)))
"""


@pytest.mark.process
def test_two_processes_with_other_numbers_of_threads_agree():
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, threads], capture_output=True, check=True, text=True
        )
        for threads in ("1", "3")
    ]
    first, second = (json.loads(run.stdout) for run in runs)
    assert first == second
    assert "answers" in first


@pytest.fixture
def enter(tmp_path):
    made = []

    def enter(name, model, **more):
        fields = {"task": TASK, "validation": VALIDATION, "folder": tmp_path / name, "formats": ("weights",)}
        made.append(kuber.Entity(name, model=model, **(fields | more)))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


@pytest.mark.parametrize(
    "wrap",
    [lambda net: net, lambda net: torch.compile(net, backend="eager"), nn.DataParallel],
    ids=["plain", "compile", "DataParallel"],
)
def test_a_wrapped_teacher_and_a_wrapped_student_know_plain_ones(enter, wrap):
    hub = kuber.memory_hub()
    enter("teacher", wrap(right(Net())), hub=hub).publish()
    (teacher,) = enter("student", wrong(Net()), hub=hub).discover()
    assert torch.allclose(teacher.network(VALIDATION[0]), right(Net())(VALIDATION[0]))
    assert len(enter("other", wrap(wrong(Net())), hub=hub).discover()) == 1


@pytest.mark.process
def test_a_teacher_with_another_activation_teaches_as_a_graph(enter, tmp_path):
    hub = kuber.memory_hub()
    enter("teacher", right(Net()), hub=hub, formats=None).publish()
    (teacher,) = enter("student", wrong(Net(torch.tanh)), hub=hub).discover()
    assert torch.allclose(teacher.network(VALIDATION[0]), right(Net())(VALIDATION[0]), atol=1e-4)
    assert [event for event in read_events(tmp_path / "student" / FILE_NAME) if event.kind == "rejected"] == []


def test_two_sites_of_one_network_merge(enter):
    hub = kuber.memory_hub()
    sites = [enter(name, Net(site=name), hub=hub, strategy="merge", class_counts=(4, 4)) for name in ("one", "two")]
    for _ in range(3):
        for site in sites:
            site.step()
            right(site.model)
    assert {delivery.method for delivery in hub[0].deliveries().items} == {"merge"}

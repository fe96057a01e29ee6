"""Formats of an owner's model: a graph that fails is left out with one warning, or refused if it was asked for."""

import functools
import logging
import subprocess
import sys

import pytest
import torch
from torch import nn

from kuber.domain.knowledge import ONNX, WEIGHTS
from kuber.domain.task import Task
from kuber.entity import export_formats
from kuber.entity.export_formats import CHECKED_SAMPLES, ExportFormats
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.model_call import LogitsModel
from kuber.learning.onnx_export import export
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.weights import weights_of

TASK = Task(name="t", labels=("a", "b"), input_shape=(4,))
FAILURES = [IncompatibleKnowledgeError("No graph."), RuntimeError("no graph"), OSError("no process")]


@pytest.fixture
def graphs(monkeypatch):
    """What exporting returns or raises, in place of the exporter; and the samples it was given."""
    made = {"next": b"graph", "samples": []}

    def faithful_graph(network, x, *, classes):
        made["samples"].append(x)
        if isinstance(made["next"], Exception):
            raise made["next"]
        return made["next"]

    monkeypatch.setattr(export_formats, "faithful_graph", faithful_graph)
    return made


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_in_the_constructor_means_weights_only_and_one_warning(graphs, caplog, failure):
    graphs["next"], model = failure, nn.Linear(4, 2)
    formats = ExportFormats(model, TASK, torch.zeros(9, 4), None)
    assert formats.kinds == ("weights",)
    for _ in range(2):
        assert set(formats.artifacts(weights_of(model))) == {"weights"}
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("kuber", logging.WARNING)
    assert "weights only" in record.getMessage()
    assert "o graph." in record.getMessage() or "no process." in record.getMessage()


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_of_later_publications_mean_weights_only_and_one_warning(graphs, caplog, failure):
    model = nn.Linear(4, 2)
    formats = ExportFormats(model, TASK, torch.zeros(9, 4), None)
    assert set(formats.artifacts(weights_of(model))) == {"weights", "onnx"}
    graphs["next"] = failure
    for _ in range(3):
        assert set(formats.artifacts(weights_of(model))) == {"weights"}
    assert len(caplog.records) == 1
    graphs["next"] = b"again"
    assert formats.artifacts(weights_of(model))["onnx"] == b"again"


@pytest.mark.parametrize("failure", FAILURES)
def test_what_was_asked_for_is_an_error_at_first_and_later_a_warning_without_a_publication(graphs, caplog, failure):
    model = nn.Linear(4, 2)
    formats = ExportFormats(model, TASK, None, ("onnx",))
    graphs["next"] = failure
    assert formats.artifacts(weights_of(model)) == {}
    assert formats.artifacts(weights_of(model)) == {}
    (record,) = caplog.records
    assert "not published" in record.getMessage()
    for asked in (("onnx",), ("weights", "onnx")):
        with pytest.raises(SettingsError, match="`formats`"):
            ExportFormats(model, TASK, None, asked)
    with pytest.raises(SettingsError, match="no weights"):
        ExportFormats(nn.ReLU(), TASK, None, None)


def test_graphs_are_compared_on_samples_spread_over_those_given(graphs):
    model, x = nn.Linear(4, 2), torch.arange(40.0).reshape(10, 4)
    ExportFormats(model, TASK, x, None)
    ExportFormats(model, TASK, x[:1], None)
    ExportFormats(model, TASK, None, None)
    many, one, none = graphs["samples"]
    assert many[0].equal(x[0])
    assert many[-1].equal(x[-1])
    assert {len(many), len(one), len(none)} == {CHECKED_SAMPLES}
    with pytest.raises(SettingsError, match="several inputs"):
        ExportFormats(model, TASK, (x, x), ("onnx",))


@pytest.mark.process
def test_a_branch_that_weights_decide_is_found_at_a_later_publication(caplog):
    class Branching(nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return logits if (logits < 1e3).all() else logits * 0

    model = Branching(4, 2)
    formats = ExportFormats(model, TASK, torch.ones(9, 4), None)
    assert set(formats.artifacts(weights_of(model))) == {"weights", "onnx"}
    with torch.no_grad():
        model.weight.fill_(1e6)
    assert set(formats.artifacts(weights_of(model))) == {"weights"}
    assert "different logits" in caplog.text


@pytest.mark.process
def test_a_process_that_dies_and_missing_packages_raise_nothing(caplog, monkeypatch):
    ended = [sys.executable, "-c", ""]
    start = functools.partial(subprocess.Popen, ended, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    monkeypatch.setattr("kuber.learning.onnx_model._start", start)
    assert ExportFormats(nn.Linear(4, 2), TASK, None, None).kinds == ("weights",)
    monkeypatch.setattr("kuber.learning.onnx_model.find_spec", lambda name: None)
    assert ExportFormats(nn.Linear(4, 2), TASK, None, None).kinds == ("weights",)
    exited, missing = [record.getMessage() for record in caplog.records]
    assert "exited" in exited
    assert "pip install" in missing


@pytest.mark.process
def test_a_graph_as_model_is_published_as_it_is():
    graph = export(nn.Linear(4, 2), input_shape=(4,))
    model = OnnxModel(graph, input_shape=(4,), classes=2)
    formats = ExportFormats(model, TASK, torch.zeros(3, 4), None)
    assert formats.artifacts({}) == {"onnx": graph}
    model.close()


class Output(nn.Module):
    """Return an object with logits, as Hugging Face models do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)

    def forward(self, x):
        return {"logits": self.net(x)}


def test_a_model_with_another_form_of_output_is_published_under_the_names_of_its_own_tensors(graphs):
    model = Output()
    formats = ExportFormats(LogitsModel(model, 2), TASK, torch.randn(9, 4), None)
    assert set(formats.artifacts(weights_of(model))) == {WEIGHTS, ONNX}

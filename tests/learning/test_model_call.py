from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from kuber.errors import SettingsError
from kuber.learning.model_call import LogitsModel, as_floating, batch_size, call_model, logits_from, split_batch

ROWS = torch.tensor([[1.0, -1.0], [0.5, 2.0], [3.0, 0.0]], requires_grad=True)
SINGLE = torch.tensor([2.0, -1.0, 0.5])


@pytest.mark.parametrize(
    "output",
    [
        ROWS,
        SimpleNamespace(logits=ROWS, loss=None),
        {"logits": ROWS, "loss": 0},
        (ROWS, "attention"),
        [ROWS],
        ((ROWS,),),
    ],
)
def test_logits_are_taken_from_what_models_return(output):
    assert logits_from(output, classes=2) is ROWS


@pytest.mark.parametrize("single", [SINGLE, SINGLE.unsqueeze(1)])
def test_a_single_number_is_the_logit_of_the_second_label(single):
    expected = torch.stack([torch.zeros(3), SINGLE], 1)
    assert torch.equal(logits_from(single, classes=2), expected)
    assert torch.equal(logits_from(single, classes=2, samples=3), expected)
    torch.testing.assert_close(logits_from(single, classes=2).softmax(1)[:, 1], SINGLE.sigmoid())


def test_a_squeezed_batch_of_one_sample_is_known_by_the_batch_size():
    assert logits_from(torch.tensor(2.0), classes=2).tolist() == [[0.0, 2.0]]
    assert logits_from(torch.tensor([1.0, 2.0]), classes=2, samples=1).tolist() == [[1.0, 2.0]]
    assert logits_from(torch.tensor([1.0, 2.0]), classes=2, samples=2).tolist() == [[0.0, 1.0], [0.0, 2.0]]
    assert logits_from(torch.tensor([1.0, 2.0, 3.0]), classes=3, samples=1).tolist() == [[1.0, 2.0, 3.0]]


def test_gradients_flow_through():
    single = SINGLE.clone().requires_grad_()
    logits_from(single, classes=2)[:, 1].sum().backward()
    assert single.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_becomes_float32(dtype):
    assert logits_from(ROWS.to(dtype), classes=2).dtype == torch.float32
    assert logits_from(ROWS.double(), classes=2).dtype == torch.float64


@pytest.mark.parametrize(
    ("output", "classes", "sentence"),
    [
        (torch.zeros(3, 4), 5, r"returns shape \(3, 4\) for 3 samples, but the task has 5 labels.*\(3, 5\)\.$"),
        (torch.zeros(3, 1), 5, r"shape \(3, 1\) for 3 samples.*A single logit needs a task of two labels\.$"),
        (torch.zeros(3), 3, r"shape \(3,\) for 3 samples, but the task has 3 labels"),
        (torch.zeros(3, 2, 4, 4), 2, r"shape \(3, 2, 4, 4\)"),
        (torch.zeros(()), 3, r"shape \(\) for 1 samples"),
        (torch.zeros(3, 2, dtype=torch.int64), 2, "type int64"),
        ({"out": ROWS}, 2, r"a mapping with the keys 'out'; it must return logits"),
        (SimpleNamespace(logits=None), 2, "returns a SimpleNamespace"),
        (None, 2, "returns a NoneType"),
        ((), 2, "returns a tuple of 0"),
    ],
)
def test_other_outputs_are_refused_in_one_sentence(output, classes, sentence):
    with pytest.raises(SettingsError, match=sentence):
        logits_from(output, classes=classes)


X, Y = torch.zeros(3, 2), torch.tensor([0, 1, 0])


@pytest.mark.parametrize(
    ("batch", "inputs"),
    [
        ((X, Y), X),
        ([X, Y], X),
        ((X.numpy(), Y.numpy()), X),
        ((X, X, Y), (X, X)),
        (((X, X), Y), (X, X)),
        (({"ids": X}, Y), {"ids": X}),
        ({"ids": X, "mask": X, "labels": Y}, {"ids": X, "mask": X}),
        ({"ids": X, "label": Y}, {"ids": X}),
        ({"ids": X, "label": np.array([0, 1, 0])}, {"ids": X}),
        ({"ids": X, "label": [0, 1, 0]}, {"ids": X}),
        ({"ids": X.tolist(), "label": (0, 1, 0)}, {"ids": X}),
        ((X.tolist(), [0, 1, 0]), X),
    ],
)
def test_batches_of_usual_forms_are_split(batch, inputs):
    found, labels = split_batch(batch)
    assert type(found) is type(inputs)
    assert len(found) == len(inputs)
    assert batch_size(found) == 3
    assert torch.equal(labels, Y)


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (X, r"one tensor of shape \(3, 2\)"),
        ((X,), "a tuple of 1"),
        ({"ids": X, "target": Y}, "has the keys 'ids', 'target'"),
        ({"labels": Y}, "has the keys 'labels'"),
        ({"text": ["a", "b"], "labels": Y}, "has a list of 2 texts where a tensor is expected"),
        (7, "A batch is a int"),
    ],
)
def test_other_batches_are_refused_and_collate_is_named(batch, sentence):
    with pytest.raises(SettingsError, match=sentence + r".*collate="):
        split_batch(batch)


def test_collate_maps_a_batch_of_the_owner():
    inputs, labels = split_batch({"image": X, "target": Y}, lambda batch: (batch["image"], batch["target"]))
    assert inputs is X
    assert labels is Y
    with pytest.raises(SettingsError, match="collate must return a pair"):
        split_batch((X, Y), lambda batch: batch[0])


class Sum(nn.Module):
    def forward(self, a, b):
        return (a + b).sum(1)


def test_a_model_is_called_as_its_inputs_say():
    for inputs in ((X + 1, X), {"a": X + 1, "b": X}):
        assert call_model(Sum(), inputs).tolist() == [2.0, 2.0, 2.0]
        assert LogitsModel(Sum(), 2)(inputs).tolist() == [[0.0, 2.0]] * 3
        assert call_model(LogitsModel(Sum(), 2), inputs).tolist() == [[0.0, 2.0]] * 3
    assert torch.equal(call_model(nn.Identity(), X), X)


def test_only_floating_inputs_change_their_dtype():
    inputs = as_floating({"x": X.double(), "ids": Y, "mask": Y.bool()}, torch.bfloat16)
    assert [part.dtype for part in inputs.values()] == [torch.bfloat16, torch.int64, torch.bool]

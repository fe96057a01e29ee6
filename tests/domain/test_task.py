"""Tasks: what their fields may be, and which are refused."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

from kuber.domain import task as limits
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.task import Task
from kuber.errors import SettingsError
from kuber.wire.registry import MAX_CLASSES, TaskBody

DIGEST = Digest.of(b"set")


def task(**change):
    return Task(**{"name": "t", "labels": ("a", "b"), "input_shape": (2,)} | change)


@pytest.mark.parametrize(
    ("labels", "made"),
    [
        (range(3), ("0", "1", "2")),
        ([1, 2], ("1", "2")),
        (np.arange(2), ("0", "1")),
        (torch.arange(2), ("0", "1")),
        (np.array(["x", "y"]), ("x", "y")),
        ([np.str_("x"), np.int64(3)], ("x", "3")),
        ((label for label in "ab"), ("a", "b")),
        (OrderedDict(b=1, a=0), ("a", "b")),
        ({0: "x", 1: "y"}, ("x", "y")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_become_texts(labels, made):
    found = task(labels=labels).labels
    assert found == made
    assert all(type(label) is str for label in found)


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        (torch.Size([3, 8, 8]), (3, 8, 8)),
        (30, (30,)),
        ([np.int64(4), np.int32(2)], (4, 2)),
        (np.array([4, 2]), (4, 2)),
        (torch.zeros(5, 7).shape, (5, 7)),
    ],
    ids=str,
)
def test_shapes_become_whole_numbers(shape, made):
    found = task(input_shape=shape).input_shape
    assert found == made
    assert all(type(length) is int for length in found)


def test_a_digest_may_be_a_text():
    assert task(test_set=str(DIGEST)).test_set == DIGEST


def test_a_task_of_converted_values_travels():
    made = task(labels=np.arange(3), input_shape=torch.Size([2]))
    assert TaskBody.of(made).value() == made
    assert hash(made) == hash(task(labels=("0", "1", "2"), input_shape=(2,)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": "abc"}, "labels of a task are a list .* not a str"),
        ({"labels": b"abc"}, "labels of a task are a list"),
        ({"labels": 10}, "not a int"),
        ({"labels": {"a", "b"}}, "not a set"),
        ({"labels": {"a": 3, "b": 5}}, "places 0, 1, 2"),
        ({"labels": {}}, "places 0, 1, 2"),
        ({"labels": (0.5, 1.5)}, "texts or whole numbers, not a float"),
        ({"labels": (True, False)}, "not a bool"),
        ({"labels": np.array([True, False])}, "not a bool"),
        ({"labels": (None, "a")}, "not a NoneType"),
        ({"labels": ("a",)}, "at least two labels"),
        ({"labels": (1, "1")}, "all different"),
        ({"labels": ("a", "")}, "1 to 200 characters"),
        ({"labels": ("a", "b" * 201)}, "1 to 200 characters"),
        ({"labels": ("a", "b\n")}, "printable"),
        ({"labels": range(100_001)}, "at most 100000 labels"),
        ({"input_shape": (0,)}, "positive lengths"),
        ({"input_shape": (3, -1)}, "positive lengths"),
        ({"input_shape": ()}, "positive lengths"),
        ({"input_shape": (2.5,)}, "positive lengths"),
        ({"input_shape": (True,)}, "positive lengths"),
        ({"input_shape": (1,) * 17}, "at most 16"),
        ({"input_shape": "28"}, "list of lengths"),
        ({"input_shape": None}, "list of lengths"),
        ({"name": ""}, "needs a name"),
        ({"name": 3}, "not a int"),
        ({"name": "x" * 201}, "at most 200"),
        ({"name": "a\nb"}, "printable"),
        ({"test_set": "abc"}, "test_set of a task is a digest"),
        ({"test_set": 3}, "not a int"),
    ],
)
def test_what_no_message_could_hold_is_refused_at_once(change, words):
    with pytest.raises(SettingsError, match=words) as caught:
        task(**change)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in caught.value.message


def test_limits_are_those_of_messages():
    assert limits.MAX_LABELS == MAX_CLASSES
    for name in ("name", "labels"):
        assert f"'maxLength': {limits.MAX_TEXT}" in str(TaskBody.model_json_schema()["properties"][name])
    assert TaskBody.model_json_schema()["properties"]["input_shape"]["maxItems"] == limits.MAX_DIMENSIONS


@pytest.mark.parametrize("counts", [np.array([1, 2]), torch.tensor([1, 2]), [1, np.int64(2)], [1.0, 2.0]], ids=repr)
def test_counts_of_an_evaluation_become_whole_numbers(counts):
    found = Evaluation(test_set=DIGEST, correct=counts, total=counts)
    assert found.correct == found.total == (1, 2)
    assert {type(count) for count in found.total} == {int}
    assert hash(found)


@pytest.mark.parametrize("counts", [[1.5, 2], [True, False], ["1", "2"], [-1, 2], torch.eye(2)], ids=repr)
def test_other_counts_are_refused(counts):
    with pytest.raises(ValueError):
        Evaluation(test_set=DIGEST, correct=counts, total=counts)

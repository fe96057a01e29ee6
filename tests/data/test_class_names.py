import logging

import numpy as np
import pytest

from kuber.data.class_names import match_classes
from kuber.data.npz import read, read_whole
from kuber.errors import DatasetError

DIGITS = ("1", "2", "3", "4")
NAMES = ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("names", "labels", "places"),
    [
        (("1", "2", "3", "4"), DIGITS, [0, 1, 2, 3]),
        (("1", "2", "3"), DIGITS, [0, 1, 2]),
        (("3",), DIGITS, [2]),
        (("1", "10", "2"), ("1", "2", "10"), [0, 2, 1]),
        (("0", "1"), ("1", "0"), [1, 0]),
        (("1", "2"), ("01", "02", "10"), [0, 1]),
        (("01", "2.0"), ("1", "2"), [0, 1]),
        (("-1", "1"), ("1", "-1"), [1, 0]),
        (("False", "True"), ("True", "False"), [1, 0]),
        (("False", "True"), ("1", "0"), [1, 0]),
        (("dog", "cat"), NAMES, [1, 0]),
        (("2", "7"), ("7", "2", "02"), [1, 0]),
    ],
)
def test_a_name_that_is_a_label_is_that_label(names, labels, places, caplog):
    assert match_classes(names, labels, source="my.npz") == places
    assert not caplog.records


@pytest.mark.parametrize(
    ("names", "labels", "places", "sentence"),
    [
        (("0", "2"), NAMES, [0, 2], "The classes 0, 2 of my.npz are taken for places: 0 is cat, 2 is bird."),
        (("00", "01"), NAMES, [0, 1], "The classes 00, 01 of my.npz are taken for places: 00 is cat, 01 is dog."),
        (
            ("False", "True"),
            ("no", "yes"),
            [0, 1],
            "The classes False, True of my.npz are taken for places: False is no, True is yes.",
        ),
        (("0",), ("10", "20"), [0], "The classes 0 of my.npz are taken for places: 0 is 10."),
    ],
)
def test_numbers_are_places_only_where_no_name_is_a_label_and_it_is_said(names, labels, places, sentence, caplog):
    assert match_classes(names, labels, source="my.npz") == places
    assert [(record.levelno, record.name, record.message) for record in caplog.records] == [
        (logging.WARNING, "kuber", sentence)
    ]


@pytest.mark.parametrize(
    ("names", "labels", "missing"),
    [
        (("0", "1", "2"), DIGITS, "'0'"),
        (("cat", "cow"), NAMES, "'cow'"),
        (("cat", "1"), NAMES, "'1'"),
        (("0", "1", "3"), NAMES, "'3'"),
        (("-1", "0"), NAMES, "'-1'"),
        (("1.5",), NAMES, "'1.5'"),
    ],
)
def test_the_first_class_that_is_no_label_is_named(names, labels, missing):
    with pytest.raises(
        DatasetError, match=rf"In my.npz: the task has no class {missing}, but: {', '.join(labels)}\."
    ):
        match_classes(names, labels, source="my.npz")


def test_two_names_of_one_label_are_refused():
    with pytest.raises(DatasetError, match="two classes are the same label"):
        match_classes(("1", "01"), DIGITS, source="my.npz")


def whole(tmp_path, **arrays):
    np.savez(tmp_path / "own.npz", x=np.zeros((len(arrays["y"]), 2)), **arrays)
    _, numbers, names = read_whole(tmp_path / "own.npz")
    return [names[number] for number in numbers]


@pytest.mark.parametrize(
    ("y", "classes", "found"),
    [
        (np.array([1.0, 10.0, 2.0]), None, ["1", "10", "2"]),
        (np.array([-1, 1]), None, ["-1", "1"]),
        (np.array([True, False]), None, ["True", "False"]),
        (np.array([b"cat", "dög".encode()]), None, ["cat", "dög"]),
        (np.array([3, 3]), None, ["3", "3"]),
        (np.array([1, 2]), ["1", "2", "3"], ["1", "2"]),  # said
        (np.array([0, 1]), [10, 20], ["10", "20"]),
        (np.array([10, 20]), [10, 20], ["10", "20"]),
        (np.array([10.0, 20.0]), ["10", "20"], ["10", "20"]),
        (np.array([0, 2]), ["1", "2", "3"], ["1", "3"]),  # said
        (np.array([True, False]), ["no", "yes"], ["yes", "no"]),
    ],
)
def test_labels_of_every_dtype_keep_their_names(tmp_path, y, classes, found, caplog):
    more = {} if classes is None else {"classes": classes}
    assert whole(tmp_path, y=y, **more) == found
    assert len(caplog.records) == (classes == ["1", "2", "3"])


@pytest.mark.parametrize(
    ("y", "more", "sentence"),
    [
        (np.array([0.5, 1.0]), {}, "class numbers or names, not fractions"),
        (np.array([np.nan, 1.0]), {}, "not fractions or values that are not finite"),
        (np.array(["cat", "dog"], object), {}, "it holds Python objects; save names as text"),
        (np.array([b"\xff", b"a"]), {}, "not UTF-8"),
        (np.array([1j, 2j]), {}, "not complex128"),
        (np.array([-1, 0]), {"classes": ["a", "b"]}, "count from 0"),
        (np.array([1, 4]), {"classes": ["1", "2"]}, "'4', a label that classes does not name"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path, y, more, sentence):
    with pytest.raises(DatasetError, match=sentence):
        whole(tmp_path, y=y, **more)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array([1, 2, 10] * 10), ("1", "2", "10")),
        (np.array(["1", "2", "10"] * 10), ("1", "10", "2")),
        (np.array([True, False] * 15), ("False", "True")),
    ],
)
def test_a_data_set_that_defines_its_task_sorts_numbers_by_value_and_names_as_text(tmp_path, y, names):
    np.savez(tmp_path / "own.npz", x=np.zeros((30, 2)), y=y)
    assert read(tmp_path / "own.npz")[1] == names

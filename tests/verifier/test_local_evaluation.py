"""Evaluation of published models on own data, whose classes are matched by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import kuber
from kuber.data.datasets import load_dataset
from kuber.errors import DatasetError, IncompatibleKnowledgeError
from kuber.settings import Settings
from kuber.verifier.local_evaluation import evaluate_locally, load_samples
from kuber.verifier.service import load_verification_set

LABELS = ("1", "2", "10")
SHAPE = (1, 4, 4)
Y = np.arange(60) % 3
SHADES = np.array([10, 130, 250])  # of the pictures of each class


class Shade(nn.Module):
    """Tells three shades of grey apart, without a mistake."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(SHADES / 255, dtype=torch.float32))

    def forward(self, x):
        return -((x.flatten(1).mean(1, keepdim=True) - self.centres) ** 2)


def images(places):
    return np.broadcast_to(SHADES[places][:, None, None, None], (len(places), *SHAPE)).astype(np.uint8)


def save(folder, places, **arrays):
    np.savez(folder / "my.npz", x=images(places), **arrays)
    return folder / "my.npz"


def check_places(data, labels, *, count):
    """Check that each picture has the place of its shade."""
    samples, places = load_samples(data, SHAPE, labels)
    assert len(samples) == len(places) == count
    assert samples[:, 0, 0, 0].tolist() == SHADES[places].tolist()


@pytest.mark.process
def test_a_perfect_model_is_right_about_labels_that_are_numbers(tmp_path):
    hub = registry, vault = kuber.memory_hub()
    task = kuber.Task(name="shades", labels=LABELS, input_shape=SHAPE)
    validation = torch.from_numpy(images(Y)) / 255, torch.from_numpy(Y)
    arguments = {"task": task, "validation": validation, "hub": hub, "class_counts": (1000, 0, 0)}
    with kuber.Entity("a", model=Shade(), folder=tmp_path / "a", **arguments) as entity:
        entity.publish()
    (record,) = registry.discover(kuber.Query()).items
    y = Y[Y != 2]
    found = evaluate_locally(record, vault, save(tmp_path, y, y=y + 1))
    assert found.correct == found.total == (20, 20, 0)
    # The logits of a are said to have a prior that no other class survives, once it is taken out.
    data = save(tmp_path, y, y=y + 1)
    assert evaluate_locally(record, vault, data, prior="own").correct == (0, 20, 0)
    assert sum(evaluate_locally(record, vault, data, prior="uniform").correct) <= 20
    with pytest.raises(IncompatibleKnowledgeError, match="does not state which class frequencies"):
        evaluate_locally(replace(record, class_counts=None), vault, data, prior="own")


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 1), (2,)])
@pytest.mark.parametrize("kind", [int, float, str, bytes])
def test_labels_that_are_numbers_are_labels_not_places(tmp_path, classes, kind, caplog):
    y = Y[np.isin(Y, classes)]
    names = np.array([1, 2, 10])[y]
    names = names.astype(str).astype("S") if kind is bytes else names.astype(kind)
    check_places(save(tmp_path, y, y=names), LABELS, count=20 * len(classes))
    assert not caplog.records


def test_a_folder_named_by_a_label_holds_that_label(tmp_path, caplog):
    for name, shade in zip(LABELS, SHADES, strict=True):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.full(SHAPE[1:], shade, np.uint8)).save(tmp_path / name / "a.png")
    (tmp_path / "notes").mkdir()  # without pictures
    check_places(tmp_path, LABELS, count=3)
    assert not caplog.records


def test_numbers_are_places_where_no_label_is_a_number_and_it_is_said(tmp_path, caplog):
    y = Y[Y != 1]
    check_places(save(tmp_path, y, y=y), ("dark", "grey", "light"), count=40)
    (record,) = caplog.records
    assert record.message.endswith("my.npz are taken for places: 0 is dark, 2 is light.")


def test_a_class_beside_the_labels_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="the task has no class '0', but: 1, 2, 10"):
        load_samples(save(tmp_path, Y, y=Y), SHAPE, LABELS)


def test_the_classes_of_a_secret_test_set_are_matched_by_name(tmp_path):
    settings = Settings(dataset="digits", cache_dir=tmp_path)
    digits = load_dataset("digits", cache_dir=tmp_path)
    chosen = digits.test.take(np.flatnonzero(digits.test.labels >= 7))  # 7, 8 and 9 would be the places 0, 1 and 2
    np.savez(tmp_path / "secret.npz", x=chosen.images(), y=chosen.labels)
    found = load_verification_set(settings, tmp_path / "secret.npz", lambda _: None)
    assert sorted(set(found.samples.labels.tolist())) == [7, 8, 9]

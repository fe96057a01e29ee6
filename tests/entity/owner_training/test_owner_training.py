"""The promise to owners, as a matrix of loops and traits: KUber never ends, slows or changes their training.

Each cell trains twice from the same seed, once with an entity whose hub dies in the middle, and once without KUber,
and compares all that the owner has bit for bit. No teacher speaks: the entity is alone.
"""

import random

import numpy as np
import pytest
import torch

import kuber
from kuber.errors import ServiceUnavailableError
from tests.entity.owner_training.loops import LOOPS, TokenClassifier, tokens
from tests.entity.owner_training.owners import TASK, TRAITS, Data, Generous, Owner, samples
from tests.entity.owner_training.state_of_training import differences, state_of

pytestmark = pytest.mark.filterwarnings("ignore")

# Combinations that do not exist.
ABSENT = {
    ("fit", "AMP scaler"): "`fit` runs the backward pass itself; an owner with a scaler writes a loop",
    ("fit", "gradient accumulation"): "`fit` steps the optimizer after each batch",
    ("Lightning", "AMP scaler"): "Lightning makes a scaler for 16-mixed only, which needs CUDA",
    ("HF Trainer", "AMP scaler"): "the trainer makes a scaler for fp16 only, which needs CUDA",
    ("HF Trainer", "DataParallel"): "the trainer wraps the model itself, on several GPUs, which KUber refuses",
}
CELLS = [(loop, trait) for loop in LOOPS for trait in TRAITS if (loop, trait) not in ABSENT]


class Mortal:
    """A port whose calls fail when its hub is dead."""

    def __init__(self, port, hub) -> None:
        self._port, self._hub = port, hub

    def __getattr__(self, name):
        method = getattr(self._port, name)
        if not callable(method):
            return method

        def call(*args, **kwargs):
            if self._hub.dead:
                raise ServiceUnavailableError("The hub died.")
            return method(*args, **kwargs)

        return call


class Hub:
    """A hub in memory that can die."""

    def __init__(self) -> None:
        self.dead = False
        self.registry, self.vault = kuber.memory_hub()

    def die(self) -> None:
        self.dead = True

    @property
    def ports(self):
        return Mortal(self.registry, self), Mortal(self.vault, self)


@pytest.fixture
def enter(tmp_path):
    made = []

    def enter(name, loop, owner, hub, **more):
        x, y = samples(12, 9)
        model, task = owner.model, TASK
        if loop == "HF Trainer":
            from kuber.integrations.transformers import Logits

            model, x = Logits(TokenClassifier(owner)), tokens(x)
            task = kuber.Task(name="words", labels=TASK.labels, input_shape=(5,))
        if loop in ("fit", "Lightning"):  # graphs are made in the same places as in the other loops
            more["formats"] = ("weights",)
        if owner.ema is not None:
            judged = owner.ema.module
            if loop == "HF Trainer":
                judged = Logits(TokenClassifier(owner))
                judged.model.net = owner.ema.module
            more["judged"] = judged
        entity = kuber.Entity(
            name,
            model=model,
            task=task,
            validation=(x, y),
            hub=hub.ports,
            folder=tmp_path / name,
            strategy=Generous(),
            restores=owner.restores,
            **more,
        )
        made.append(entity)
        return entity

    yield enter
    for entity in made:
        entity.close()


def train(loop, trait, hub=None, enter=None):
    """Train an owner from a fixed seed; return what it has at the end, and its entity."""
    owner = Owner(TRAITS[trait], whole=loop == "HF Trainer")
    data = Data(lambda: hub and hub.die())
    entity = None if hub is None else enter("first", loop, owner, hub)
    seed_all()
    LOOPS[loop](owner, data, entity)
    return state_of(owner), entity


def seed_all():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


@pytest.mark.parametrize(
    ("loop", "trait"),
    CELLS,
    ids=[f"{loop}, {trait}" for loop, trait in CELLS],
)
def test_training_is_the_same_with_a_hub_that_dies_as_without_kuber(loop, trait, enter, monkeypatch):
    if loop == "Lightning":
        pytest.importorskip("lightning.pytorch")
    if loop == "HF Trainer":
        pytest.importorskip("transformers")
    # Graphs are exported, but not run, which takes a process: test_graphs.py runs them.
    monkeypatch.setattr("kuber.learning.onnx_export.check_equivalent", lambda *args, **kwargs: None)
    alone, _ = train(loop, trait)
    hub = Hub()
    shared, entity = train(loop, trait, hub, enter)
    assert hub.dead
    assert differences(alone, shared) == []
    assert entity.evaluation is not None

    hub.dead = False
    records = hub.registry.discover(kuber.Query()).items
    assert records
    assert all("weights" in record.artifacts for record in records)
    second = enter("second", loop, Owner(TRAITS[trait], seed=1), hub)
    teachers = second.discover()
    assert [teacher.name for teacher in teachers] == ["first"]
    x = samples(7, 5)[0]
    assert teachers(tokens(x) if loop == "HF Trainer" else x).shape == (7, len(TASK.labels))

"""Checkpoints: a saved state is loaded unchanged, whenever the process is killed."""

import json
from dataclasses import replace
from datetime import date

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from kuber.domain.attester_record import AttesterRecord
from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.publisher_record import PublisherRecord
from kuber.entity.state.checkpoint import FILE_NAME, Absorption, Checkpoints, State, round_path
from kuber.errors import CorruptKnowledgeError

EVALUATION = Evaluation(test_set=Digest.of(b"set"), correct=(1, 2), total=(3, 4))


def state(**changes) -> State:
    fields = {
        "session_id": "x",
        "round": 3,
        "stage": "absorbed",
        "next_event": 17,
        "weights": {"w": torch.randn(2, 3), "n": torch.tensor(7)},
        "generator": torch.Generator().get_state(),
        "evaluation": EVALUATION,
        "previous": None,
        "parents": ("k1", "k2"),
        "refused": ("k3",),
        "publishers": {"p": PublisherRecord(sound=1, useless=2, refused=3, until=4)},
        "attesters": {"a": AttesterRecord(agreed=2, differed=1)},
        "absorption": Absorption(
            delivery=Delivery(
                student="s",
                teachers=("k1",),
                method="distil",
                round=3,
                accuracy_before=0.1,
                accuracy_after=0.2,
                kept=True,
                reason="The best of 5 that claim more, with 51.3 %.",
            ),
            publishers=("p",),
            samples=10,
            forward=5,
            seconds=0.5,
        ),
    }
    return State(**fields | changes)


def same(a: State, b: State) -> bool:
    tensors = a.weights.keys() == b.weights.keys() and all(torch.equal(a.weights[n], b.weights[n]) for n in a.weights)
    starts = (a.round_start or {}).keys() == (b.round_start or {}).keys() and all(
        torch.equal(a.round_start[n], b.round_start[n]) for n in a.round_start or {}
    )
    rest = [n for n in State.__slots__ if n not in ("weights", "round_start", "generator")]
    return (
        tensors
        and starts
        and torch.equal(a.generator, b.generator)
        and all(getattr(a, n) == getattr(b, n) for n in rest)
    )


SHARED = torch.randn(4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"absorption": None, "evaluation": None, "previous": EVALUATION, "stage": "ended"},
        {
            "round_start": {"w": torch.randn(2, 3)},
            "published_evaluation": EVALUATION,
            "origin": Digest.of(b"o"),
            "first_seen": {"k1": 2},
            "evaluated_since": (Digest.of(b"set"), date(2026, 1, 31)),
        },
        {"weights": {"w": SHARED}, "round_start": {"w": SHARED}, "guidance": 0.25},  # a phase that was reverted
    ],
)
def test_a_saved_state_is_loaded_unchanged(tmp_path, changes):
    checkpoints = Checkpoints(tmp_path / "0")
    assert checkpoints.latest() is None
    saved = state(**changes)
    checkpoints.save(saved)
    found = checkpoints.latest()
    assert found is not None
    assert same(found, saved)


def test_accuracies_that_were_sent_are_loaded(tmp_path):
    checkpoints, saved = Checkpoints(tmp_path / "0"), state()
    saved = replace(saved, absorption=replace(saved.absorption, sent=(0.25, 0.5)))
    checkpoints.save(saved)
    loaded = checkpoints.latest().absorption
    assert loaded == saved.absorption
    assert (loaded.report.accuracy_before, loaded.report.accuracy_after) == (0.25, 0.5)
    assert loaded.detail["before"] == saved.absorption.delivery.accuracy_before


def test_a_kill_while_saving_leaves_the_old_state(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    old = state()
    checkpoints.save(old)

    def killed(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(state(round=4))
    found = checkpoints.latest()
    assert found is not None
    assert same(found, old)


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, damage):
    (tmp_path / FILE_NAME).write_bytes(damage)
    with pytest.raises(CorruptKnowledgeError, match="cannot be read"):
        Checkpoints(tmp_path).latest()


def test_a_checkpoint_of_another_version_is_one_sentence(tmp_path):
    tensors = {"model.w": torch.zeros(2), "generator": torch.Generator().get_state()}
    (tmp_path / FILE_NAME).write_bytes(
        save(tensors, metadata={"state": json.dumps({"round": 3, "absorption": None})})
    )
    with pytest.raises(CorruptKnowledgeError, match="a different version of KUber wrote it"):
        Checkpoints(tmp_path).latest()


def test_an_absorption_saved_before_there_were_reasons_has_none(tmp_path):
    saved = state()
    Checkpoints(tmp_path).save(saved)
    path = tmp_path / FILE_NAME
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["state"])
    assert fields["absorption"]["delivery"].pop("reason")
    path.write_bytes(save(load_file(path), metadata={"state": json.dumps(fields)}))
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert found.absorption is not None
    assert found.absorption.delivery == replace(saved.absorption.delivery, reason=None)
    assert found.absorption.detail["reason"] is None


def test_a_checkpoint_without_track_records_of_publishers_is_loaded(tmp_path):
    Checkpoints(tmp_path).save(state())
    path = tmp_path / FILE_NAME
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["state"])
    assert fields.pop("publishers") == {"p": [1, 2, 3, 4]}
    assert fields.pop("attesters") == {"a": [2, 1]}
    path.write_bytes(save(load_file(path), metadata={"state": json.dumps(fields)}))
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert (found.publishers, found.attesters) == ({}, {})


def test_answers_and_falls_of_classes_are_loaded(tmp_path):
    known = replace(EVALUATION, right=(0b100, 0b1001))
    saved = state(previous=known, published_evaluation=replace(known, right=(0b1, 0b11)))
    saved = replace(saved, absorption=replace(saved.absorption, fallen=((1, 0.75, 0.25),)))
    Checkpoints(tmp_path).save(saved)
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert (found.evaluation.right, found.previous.right) == (None, (0b100, 0b1001))
    assert found.published_evaluation.right == (0b1, 0b11)
    assert found.absorption == saved.absorption
    assert found.absorption.detail["fallen"] == ((1, 0.75, 0.25),)


def test_a_checkpoint_from_before_answers_were_kept_is_loaded(tmp_path):
    Checkpoints(tmp_path).save(state(guidance=0.5))
    path = tmp_path / FILE_NAME
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["state"])
    assert (fields.pop("guidance"), bool(fields.pop("right"))) == (0.5, True)
    path.write_bytes(save(load_file(path), metadata={"state": json.dumps(fields)}))
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert (found.guidance, found.evaluation.right) == (1.0, None)


def test_a_private_network_is_loaded_with_its_generator(tmp_path):
    generator = torch.Generator().manual_seed(5).get_state()
    saved = state(private={"w": torch.randn(4)}, private_generator=generator)
    Checkpoints(tmp_path).save(saved)
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert torch.equal(found.private["w"], saved.private["w"])
    assert torch.equal(found.private_generator, generator)
    Checkpoints(tmp_path).save(state())
    with safe_open(tmp_path / FILE_NAME, framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("private")]  # noqa: SIM118 - not a dict
    found = Checkpoints(tmp_path).latest()
    assert (found.private, found.private_generator) == (None, None)


def test_the_weights_of_a_round_have_their_own_file(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    name = checkpoints.save_round(7, state().weights)
    assert (tmp_path / name) == round_path(tmp_path, 7)
    assert round_path(tmp_path, 7).stat().st_size > 0

"""Arguments of an entity with a custom loop: checked where they are passed in."""

import pytest
import torch
from torch import nn

import kuber
from kuber.errors import SettingsError

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
TASK = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))


@pytest.fixture
def hub():
    return kuber.memory_hub()


@pytest.fixture
def enter(hub, tmp_path):
    made = []

    def enter(name="one", **more):
        fields = {"model": nn.Linear(4, 2), "task": TASK, "validation": (X, Y), "hub": hub, "formats": ("weights",)}
        entity = kuber.Entity(name, **(fields | {"folder": tmp_path / name} | more))
        made.append(entity)
        return entity

    yield enter
    for entity in made:
        entity.close()


def published(hub):
    return hub[0].discover(kuber.Query()).items


def test_an_entity_that_never_publishes_learns(enter, hub):
    enter("other").publish()
    entity = enter("one", publishing="never")
    assert len(entity.step()) == 1
    entity.step()
    entity.publish()
    assert len(published(hub)) == 1


def test_a_function_decides_what_is_published(enter, hub):
    asked = []

    def approve(evaluation, round):
        asked.append((sum(evaluation.total), round))
        return round == 2

    entity = enter(publishing=approve)
    entity.publish()
    assert not published(hub)
    entity.publish()
    assert [record.round for record in published(hub)] == [2]
    assert asked == [(64, 1), (64, 2)]


def test_a_function_that_fails_publishes_nothing(enter, hub, caplog):
    entity = enter(publishing=lambda evaluation, round: 1 / 0)
    entity.publish()
    assert not published(hub)
    assert "ZeroDivisionError: division by zero; round 1 is not published" in caplog.text


def test_asking_needs_a_terminal(enter, monkeypatch, hub):
    with pytest.raises(SettingsError, match="this process has none"):
        enter(publishing="ask")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter(["", "y"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    entity = enter(publishing="ask")
    entity.publish()
    assert not published(hub)
    entity.publish()
    assert len(published(hub)) == 1


@pytest.mark.parametrize(
    ("counts", "shown"), [("exact", (31, 33)), ("rounded", (30, 30)), (None, None)], ids=["exact", "rounded", "none"]
)
def test_class_counts_are_published_as_the_owner_says(enter, hub, counts, shown):
    enter(class_counts=(31, 33), counts=counts).publish()
    (record,) = published(hub)
    assert record.class_counts == shown
    assert record.sample_count == (None if shown is None else sum(shown))


def test_without_reports_the_registry_gets_none(enter, hub, monkeypatch):
    reported = []
    monkeypatch.setattr(hub[0], "report", lambda id, **fields: reported.append(fields))
    for reports in (False, True):
        entity = enter(str(reports), reports=reports)
        entity.step()
        entity.step()
        assert bool(reported) == reports


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"publishing": "maybe"}, "publishing is 'maybe'"),
        ({"counts": "roughly"}, "counts is 'roughly'"),
        ({"restores": [object()]}, "restores has a object"),
        ({"restores": 3}, "restores is a int"),
    ],
)
def test_an_argument_is_refused_by_its_name(enter, change, words):
    with pytest.raises(SettingsError, match=words) as caught:
        enter(**change)
    assert "\n" not in caught.value.message

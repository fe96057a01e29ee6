"""Arguments of an entity with a custom loop: checked where they are passed in."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import kuber
from kuber.errors import SettingsError
from kuber.strategies import Exchange

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
TASK = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))


@pytest.fixture
def enter(make_entity):
    def enter(name="one", **more):
        return make_entity(name, **({"model": nn.Linear(4, 2), "task": TASK, "validation": (X, Y)} | more))

    return enter


def published(hub):
    return hub[0].discover(kuber.Query()).items


def test_an_entity_that_never_publishes_learns(enter, hub):
    other = enter("other")
    with torch.no_grad():
        other.model.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0]]))
        other.model.bias.copy_(torch.tensor([0.0, 1.0]))
    other.publish()
    entity = enter("one", publishing="never")
    with torch.no_grad():
        entity.model.weight.zero_()
        entity.model.bias.copy_(torch.tensor([1.0, 0.0]))
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
    assert "The function publishing raised ZeroDivisionError: division by zero." in caplog.text


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


@pytest.mark.parametrize("counts", ["exact", "rounded", None])
def test_strategies_decide_on_exact_counts(enter, counts):
    seen = []

    class Noting(Exchange):
        def publishes(self, situation):
            seen.append(situation.samples)
            return False

    entity = enter(class_counts=(31, 33), counts=counts, strategy=Noting())
    entity.step()
    entity.step()
    assert seen == [64]


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
        ({"reports": "no"}, "reports is 'no'"),
        ({"class_counts": [64]}, "class_counts has 1 numbers, but the task has 2 labels"),
        ({"class_counts": [3, -1]}, "class_counts must be whole numbers"),
        ({"class_counts": [3, 2.5]}, "class_counts must be whole numbers"),
        ({"class_counts": [True, False]}, "class_counts must be whole numbers"),
        ({"class_counts": np.array([True, False])}, "class_counts must be whole numbers"),
        ({"class_counts": np.eye(2)}, "class_counts must be whole numbers"),
        ({"class_counts": {31, 33}}, "class_counts is a set"),  # it has no order
        ({"class_counts": ["3", "4"]}, "class_counts must be whole numbers"),
        ({"class_counts": "32"}, "class_counts is a str"),
        ({"class_counts": 64}, "class_counts is a int"),
        ({"class_counts": torch.tensor(64)}, "class_counts is a single number"),
        ({"class_counts": {"no": 3, "maybe": 4}}, "'maybe', which is not a label"),
        ({"class_counts": {0: 3, 2: 4}}, "'0', which is not a label"),
        ({"name": 3}, "name is a int"),
        ({"name": ""}, "name is ''"),
        ({"name": "x" * 201}, "1 to 200 printable"),
        ({"name": "a\nb"}, "1 to 200 printable"),
        ({"model": nn.Linear}, "model is a class Linear, .* not its class"),
        ({"model": lambda x: x}, "model is a function"),
        ({"model": nn.ReLU()}, "model has no parameters"),
        ({"judged": 3}, "judged is a int"),
        ({"task": "t"}, "task is a str"),
        ({"max_candidates": -1}, "max_candidates is -1"),
        ({"max_candidates": "6"}, "max_candidates is '6'"),
        ({"patience": -1}, "patience is -1"),
        ({"patience": float("nan")}, "patience is nan"),
        ({"patience": "10"}, "patience is '10'"),
        ({"formats": "weights"}, "formats is 'weights'; give a list"),
        ({"strategy": "magic"}, "no strategy 'magic'"),
        ({"strategy": Exchange}, "strategy is a class Exchange: give an object"),
        ({"strategy": 3}, "strategy is a int"),
        ({"evaluate": 3, "validation": None}, "evaluate is a int"),
        ({"collate": 3}, "collate is a int"),
        ({"hub": "127.0.0.1:5001"}, "hub is '127.0.0.1:5001'"),
        ({"hub": 5001}, "hub is a int"),
        ({"hub": (1, 2)}, "hub has a int in the place of its registry"),
        ({"hub": (kuber.memory_hub()[0],)}, "hub is a tuple"),
        ({"hub": "http://127.0.0.1:5001", "vault": "5002"}, "vault is '5002'"),
        ({"hub": "http://127.0.0.1:99999"}, "hub is 'http://127.0.0.1:99999'"),
        ({"hub": "http://127.0.0.1:65535"}, "hub is 'http://127.0.0.1:65535', an address that has no next port"),
        ({"hub": "http://hub..example:5001"}, "hub is 'http://hub..example:5001'"),
        ({"invitation": 3}, "invitation is 3"),
        ({"invitation": "code\n"}, "give the code, a text without spaces"),
        ({"publishing": lambda: True}, "publishing is a function that takes something else"),
        ({"arguments": {"width": 3}}, "arguments are those of a named architecture"),
        ({"folder": ""}, "folder is empty"),
        ({"folder": "a\0b"}, "folder is 'a.x00b', which is no path"),
        ({"ca": "/nowhere/ca.pem"}, "no such file of certificates"),
        ({"arguments": [1], "architecture": "net"}, "arguments is"),
        ({"arguments": {"width": object()}, "architecture": "net"}, "architecture cannot be published"),
        ({"architecture": "x" * 201}, "architecture cannot be published"),
    ],
)
def test_an_argument_is_refused_by_its_name(enter, change, words):
    with pytest.raises(SettingsError, match=words) as caught:
        enter(**change)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "counts",
    [
        [31, 33],
        (31, 33),
        np.array([31, 33]),
        np.array([31, 33], dtype=np.uint8),
        torch.tensor([31, 33]),
        [np.int64(31), torch.tensor(33)],
        np.array([31.0, 33.0]),
        range(31, 34, 2),
        {"yes": 33, "no": 31},
        {1: 33, 0: 31},
        Counter({np.int64(1): 33, np.int64(0): 31}),
    ],
    ids=repr,
)
def test_class_counts_of_any_kind_are_published_as_whole_numbers(enter, hub, counts):
    enter(class_counts=counts).publish()
    (record,) = published(hub)
    assert record.class_counts == (31, 33)
    assert {type(count) for count in record.class_counts} == {int}


def test_a_series_of_counts_is_read_by_its_index(enter, hub):
    class Series:  # of pandas: value_counts sorts by frequency
        index = ("yes", "no")

        def to_dict(self):
            return {"yes": 33, "no": 31}

        def __iter__(self):
            return iter((33, 31))

    enter(class_counts=Series()).publish()
    assert published(hub)[0].class_counts == (31, 33)


def test_arguments_of_an_architecture_may_be_of_numpy(enter, hub):
    enter(architecture="net", arguments={"width": np.int64(4), "sizes": [np.int64(1), 2]}).publish()
    assert published(hub)[0].architecture.arguments == {"width": 4, "sizes": (1, 2)}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda evaluation, round: None, "returned a NoneType; return True or False"),
        (lambda evaluation, round: "no", "returned a str; return True or False"),
        (lambda evaluation, round: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
    ids=["None", "text", "raises"],
)
def test_without_a_clear_yes_nothing_is_published_and_it_is_said_once(enter, hub, caplog, answer, said):
    entity = enter(publishing=answer)
    for _ in range(4):
        entity.step()
        assert not entity.publish()
    assert hub[0].discover(kuber.Query()).items == ()
    assert len([line for line in caplog.messages if f"The function publishing {said}" in line]) == 1


def test_the_owners_function_may_answer_as_numpy_and_torch_do(enter, hub):
    entity = enter(
        publishing=lambda evaluation, round: np.bool_(evaluation.accuracy >= 0) if round < 2 else torch.tensor(True)
    )
    assert entity.publish()
    assert entity.publish()

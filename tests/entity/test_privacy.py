"""What leaves an entity whose validation data are private: docs/privacy.md."""

import json

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.evaluation import Evaluation
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.signing import check_record
from kuber.wire.base import canonical
from kuber.wire.registry import DeliveryBody, DraftBody, EvaluationBody, ReportBody
from kuber.wire.signing_payloads import body_bytes

LABELS = ("many", "some", "rare", "single", "absent")
CENTRES = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0], [3.0, 3.0]])
TASK = kuber.Task(name="clouds", labels=LABELS, input_shape=(2,))
PARTIAL, POOLED, WITHHELD = (40, 25, 7, 1, 0), (9, 6, 4, 0, 0), (3, 4, 1, 0, 0)


def data(counts, seed):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return CENTRES[y] + torch.randn(len(y), 2, generator=torch.Generator().manual_seed(seed)), y


class Recorded:
    """A registry that keeps the JSON of every message to it."""

    def __init__(self, registry):
        self._registry = registry
        self.messages = []

    def __getattr__(self, name):
        return getattr(self._registry, name)

    def _keep(self, kind, body):
        self.messages.append((kind, canonical(body).decode()))

    def publish(self, draft, *, key):
        self._keep("publish", DraftBody.of(draft))
        return self._registry.publish(draft, key=key)

    def report(self, id, *, round, evaluation=None):
        self._keep("report", ReportBody(round=round, evaluation=evaluation and EvaluationBody.of(evaluation)))
        self._registry.report(id, round=round, evaluation=evaluation)

    def record(self, delivery, *, key):
        self._keep("record", DeliveryBody.of(delivery))
        self._registry.record(delivery, key=key)

    def attest(self, id, *, entity, evaluation):
        self._keep("attest", EvaluationBody.of(evaluation))
        self._registry.attest(id, entity=entity, evaluation=evaluation)


@pytest.fixture
def exchange(tmp_path):
    """Let two entities with these validation counts exchange for some phases; return the messages and the records."""

    def run(counts):
        torch.manual_seed(0)
        registry, vault = kuber.memory_hub()
        recorded = Recorded(registry)
        torch.manual_seed(1)
        entities = [
            kuber.Entity(
                name,
                model=nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 5)),
                task=TASK,
                validation=data(counts, seed),
                hub=(recorded, vault),
                folder=tmp_path / name,
                formats=("weights",),
            )
            for seed, name in enumerate(("left", "right"))
        ]
        for phase in range(3):
            for seed, entity in enumerate(entities):
                teachers = entity.step()
                x, y = data((20, 20, 5, 5, 5), 10 + seed)
                optimizer = torch.optim.SGD(entity.model.parameters(), 0.3)
                for _ in range(3 + phase):
                    logits = entity.model(x)
                    loss = nn.functional.cross_entropy(logits, y) + teachers.loss(logits, x, y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        for entity in entities:
            entity.step()
            entity.close()
        return recorded.messages, registry

    return run


def evaluations(messages):
    """Return all counts per class that were sent."""
    parts = [json.loads(text).get("evaluation") for kind, text in messages if kind in ("report", "publish")]
    return [part for part in parts if part is not None]


@pytest.mark.parametrize(
    ("counts", "totals", "cells"),
    [
        (PARTIAL, [40, 25, 0, 0, 0], "partial"),
        (POOLED, [19, 0, 0, 0, 0], "pooled"),
        (WITHHELD, [1, 0, 0, 0, 0], "withheld"),
    ],
)
def test_no_message_holds_a_small_cell(exchange, tmp_path, counts, totals, cells):
    messages, _ = exchange(counts)
    kinds = {kind for kind, _ in messages}
    assert {"publish", "report", "record"} <= kinds
    assert "attest" not in kinds  # only on a common test set
    sent = evaluations(messages)
    assert [found["total"] for found in sent] == [totals] * len(sent)
    reports = [json.loads(text) for kind, text in messages if kind == "report"]
    assert all(("evaluation" in report) == (cells == "partial") for report in reports)  # for each class, or not
    sets = [json.loads(text)["evaluation_set"] for kind, text in messages if kind == "publish"]
    days = {event.time.date().isoformat() for event in read_events(tmp_path / "left" / FILE_NAME)}
    assert {found["cells"] for found in sets} == {cells}
    assert {found["since"] for found in sets} <= days
    everything = "\n".join(text.replace(json.dumps(LABELS, separators=(",", ":")), "") for _, text in messages)
    for label in LABELS[2:] if cells == "partial" else LABELS:  # in a reason
        assert label not in everything
    known = {sum(found["correct"]) / sum(found["total"]) for found in sent}
    for kind, text in messages:
        if kind == "record":
            delivery = json.loads(text)
            assert {delivery["accuracy_before"], delivery["accuracy_after"]} <= known | {0.0}


def test_the_entity_decides_and_logs_on_all_samples(exchange, tmp_path):
    exchange(PARTIAL)
    logged = [event.detail for event in read_events(tmp_path / "left" / FILE_NAME) if event.kind == "evaluated"]
    assert {tuple(detail["total"]) for detail in logged} == {PARTIAL}


def test_records_say_what_they_were_evaluated_on_and_are_signed(exchange):
    _, registry = exchange(PARTIAL)
    members = {member.id: member for member in registry.members().items}
    for record in registry.discover(kuber.Query()).items:
        assert record.evaluation_set.cells == "partial"
        check_record(members[record.entity], record.draft, body_bytes(DraftBody.of(record.draft)))


def test_on_a_common_test_set_all_counts_are_sent(tmp_path):
    registry, vault = kuber.memory_hub()
    validation = data(PARTIAL, 0)
    task = kuber.Task(name="clouds", labels=LABELS, input_shape=(2,), test_set=kuber.test_set_digest(validation))
    with kuber.Entity(
        "a",
        model=nn.Linear(2, 5),
        task=task,
        validation=validation,
        hub=(registry, vault),
        folder=tmp_path / "a",
        formats=("weights",),
    ) as entity:
        entity.publish()
    (record,) = registry.discover(kuber.Query()).items
    assert (record.evaluation.total, record.evaluation_set) == (PARTIAL, None)


def test_the_owner_is_asked_about_what_is_to_be_claimed(tmp_path):
    asked = []

    def publishing(evaluation: Evaluation, round: int) -> bool:
        asked.append(evaluation.total)
        return False

    with kuber.Entity(
        "a",
        model=nn.Linear(2, 5),
        task=TASK,
        validation=data(PARTIAL, 0),
        hub=kuber.memory_hub(),
        folder=tmp_path / "a",
        formats=("weights",),
        publishing=publishing,
    ) as entity:
        entity.publish()
    assert asked == [(40, 25, 0, 0, 0)]

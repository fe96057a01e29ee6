import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import CELLS, EvaluationSet
from kuber.domain.knowledge import Architecture, Artifact, Draft, Knowledge, TensorSpec
from kuber.domain.member import Key, Member
from kuber.domain.query import Page
from kuber.domain.task import Task
from kuber.errors import RequestRejectedError
from kuber.wire.base import canonical, sentence
from kuber.wire.registry import (
    ArchitectureBody,
    ArtifactBody,
    DeliveryBody,
    DraftBody,
    EvaluationBody,
    HealthBody,
    KeyBody,
    KnowledgeBody,
    MemberBody,
    PageBody,
)
from kuber.wire.vault import KindBody, PinsBody

texts = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
ids = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda data: Digest(data.hex()))
counts = st.integers(0, 2**63 - 1)
shares = st.floats(0, 1)
times = st.datetimes(timezones=st.just(UTC))
shapes = st.lists(counts, max_size=4).map(tuple)
numbers = st.integers(-(2**63), 2**63 - 1)
arguments = (
    st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | texts | st.lists(numbers).map(tuple)
)
artifacts = st.builds(Artifact, digest=digests, size=st.integers(1, 2**63 - 1))
architectures = st.builds(
    Architecture,
    name=texts,
    arguments=st.dictionaries(texts, arguments, max_size=4),
    manifest=st.dictionaries(
        texts,
        st.builds(TensorSpec, dtype=st.sampled_from(["F32", "BF16", "I64"]), shape=shapes),
        min_size=1,
        max_size=4,
    ),
)


@st.composite
def evaluations(draw, classes, test_set):
    total = draw(st.lists(st.integers(1, 10**12), min_size=classes, max_size=classes))
    correct = [draw(st.integers(0, most)) for most in total]
    return Evaluation(test_set=test_set, correct=tuple(correct), total=tuple(total))


evaluation_sets = st.builds(EvaluationSet, since=st.dates(), cells=st.sampled_from(CELLS))


@st.composite
def drafts(draw):
    test_set, common = draw(digests), draw(st.booleans())
    labels = tuple(draw(st.lists(texts, min_size=2, max_size=5, unique=True)))
    size = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=3).map(tuple))
    return Draft(
        entity=draw(texts),
        task=Task(name=draw(texts), labels=labels, input_shape=size, test_set=test_set if common else None),
        architecture=draw(architectures),
        artifacts=draw(st.dictionaries(st.sampled_from(["weights", "onnx", "x-1"]), artifacts, min_size=1)),
        evaluation=draw(evaluations(len(labels), test_set)),
        round=draw(st.integers(1, 2**31 - 1)),
        parents=tuple(draw(st.lists(texts, max_size=3))),
        sample_count=draw(st.none() | counts),
        class_counts=draw(st.none() | st.lists(counts, min_size=len(labels), max_size=len(labels)).map(tuple)),
        evaluation_set=None if common else draw(st.none() | evaluation_sets),
        prior=draw(st.sampled_from([None, "own", "uniform"])),
    )


public_keys = st.text("0123456789abcdef", min_size=64, max_size=64)
signatures = st.text("0123456789abcdef", min_size=128, max_size=128)
signed_drafts = st.builds(
    lambda draft, sequence, signature: replace(draft, sequence=sequence, signature=signature),
    drafts(),
    counts,
    signatures,
)
records = st.builds(
    lambda draft, id, time: Knowledge.from_draft(draft, id=id, published_at=time), drafts(), ids, times
)
keys = st.builds(Key, public_key=public_keys, since=st.integers(0, 2**62), signature=st.none() | signatures)
members = st.builds(
    Member, id=ids, name=texts, registered_at=times, sequence=st.integers(0, 2**62), keys=st.tuples(keys, keys)
)
deliveries = st.builds(
    Delivery,
    student=texts,
    teachers=st.lists(texts, min_size=1, max_size=3).map(tuple),
    method=texts,
    round=st.integers(0, 2**31 - 1),
    accuracy_before=shares,
    accuracy_after=shares,
    kept=st.booleans(),
    reason=st.none() | texts,
)
VALUES = [
    (DraftBody, drafts()),
    (DraftBody, signed_drafts),
    (KnowledgeBody, records),
    (MemberBody, members),
    (DeliveryBody, deliveries),
    (ArtifactBody, artifacts),
    (ArchitectureBody, architectures),
    (KeyBody, keys),
    (PageBody[MemberBody], st.builds(Page, items=st.lists(members, max_size=3).map(tuple), cursor=st.none() | texts)),
]


@pytest.mark.parametrize(("body", "values"), VALUES, ids=[body.__name__ for body, _ in VALUES])
@settings(max_examples=30)
@given(data=st.data())
def test_round_trip(body, values, data):
    value = data.draw(values)
    sent = body.of(value)
    assert sent.value() == value
    assert body.read(sent.model_dump_json()).value() == value
    assert body.read(canonical(sent)).value() == value
    assert canonical(body.read(sent.model_dump_json())) == canonical(sent)
    # a web framework parses the JSON itself
    assert body.model_validate(json.loads(sent.model_dump_json())).value() == value


@given(arguments=st.dictionaries(texts, arguments, max_size=4))
@settings(max_examples=50)
def test_arguments_keep_their_types(arguments):
    value = Architecture(name="n", arguments=arguments, manifest={"w": TensorSpec(dtype="F32", shape=())})
    back = ArchitectureBody.read(ArchitectureBody.of(value).model_dump_json()).value().arguments
    assert {name: (type(item), item) for name, item in back.items()} == {
        name: (type(item), item) for name, item in arguments.items()
    }


@pytest.fixture
def draft(samples):
    return samples.draft("id-0", Artifact(digest=samples.test_set, size=9))


@pytest.fixture
def fields(draft):
    return json.loads(DraftBody.of(draft).model_dump_json())


def change(fields, path, value):
    """Return the fields with another value at this dotted path."""
    *way, last = path.split(".")
    inner = fields
    for name in way:
        inner = inner[name]
    inner[last] = value
    return fields


@pytest.mark.parametrize("place", ["", "task", "architecture", "architecture.manifest.weight", "evaluation"])
def test_only_a_reader_tolerates_unknown_fields(draft, fields, place):
    changed = change(fields, f"{place}.new".lstrip("."), 1)
    with pytest.raises(ValidationError) as caught:
        DraftBody.model_validate(changed)
    assert f"The field {place}.new".replace(" .", " ") in sentence(caught.value)
    assert DraftBody.read(json.dumps(changed)).value() == draft


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("round", "1"),
        ("round", True),
        ("round", 1.0),
        ("round", -1),
        ("round", 2**31),
        ("entity", ""),
        ("entity", 7),
        ("entity", "x" * 201),
        ("entity", "a\nb"),
        ("entity", "\ud800"),
        ("sample_count", -1),
        ("sample_count", 2**63),
        ("class_counts", [1]),
        ("artifacts", {}),
        ("artifacts", {"../weights": {"digest": "sha256:" + "0" * 64, "size": 1}}),
        ("artifacts.weights.size", 0),
        ("artifacts.weights.size", "9"),
        ("artifacts.weights.digest", "sha256:" + "A" * 64),
        ("artifacts.weights.digest", "sha256:" + "0" * 64 + "\n"),
        ("artifacts.weights.digest", "0" * 64),
        ("architecture.manifest", {}),
        ("architecture.manifest.weight.dtype", "F31"),
        ("architecture.manifest.weight.shape", [-1]),
        ("architecture.arguments", {"x": None}),
        ("architecture.arguments", {"x": [1.5]}),
        ("architecture.arguments", {"x": 2**64}),
        ("task.labels", ["a"]),
        ("task.labels", ["a", "a"]),
        ("task.input_shape", []),
        ("task.test_set", "sha256:" + "0" * 64),
        ("evaluation.correct", [101, 0]),
        ("evaluation.correct", [1, True]),
        ("evaluation.total", [0, 0]),
    ],
)
def test_refuses_impossible_values(fields, path, value):
    changed = change(fields, path, value)
    with pytest.raises(ValidationError) as caught:
        DraftBody.model_validate(changed)
    message = sentence(caught.value)
    assert message.startswith("The ")
    assert message.endswith(".")
    assert "\n" not in message
    with pytest.raises(ValidationError):
        DraftBody.read(json.dumps(changed))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(fields, text):
    fields["architecture"]["arguments"] = {"x": "HERE"}
    with pytest.raises(ValidationError):
        DraftBody.read(json.dumps(fields).replace('"HERE"', text))


@pytest.mark.parametrize("kept", [1, "true", None])
def test_a_boolean_is_true_or_false(kept):
    fields = {"student": "s", "teachers": ["t"], "method": "m", "round": 1, "accuracy_before": 0.5}
    with pytest.raises(ValidationError):
        DeliveryBody.model_validate(fields | {"accuracy_after": 1, "kept": kept})
    assert DeliveryBody.model_validate(fields | {"accuracy_after": 1, "kept": True}).value().accuracy_after == 1


DELIVERY = {"student": "s", "teachers": ["t"], "method": "m", "round": 1, "kept": True}
DELIVERY |= {"accuracy_before": 0.5, "accuracy_after": 0.6}


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\nb", "\ud800", 7, ["why"]])
def test_a_reason_is_a_printable_sentence(reason):
    with pytest.raises(ValidationError) as caught:
        DeliveryBody.model_validate(DELIVERY | {"reason": reason})
    assert sentence(caught.value).startswith("The field reason is refused: ")


def test_a_delivery_of_an_older_sender_has_no_reason():
    assert DeliveryBody.model_validate(DELIVERY).value().reason is None
    assert b"reason" not in canonical(DeliveryBody.model_validate(DELIVERY))
    body = DeliveryBody.model_validate(DELIVERY | {"reason": "The best of 5."})
    assert DeliveryBody.read(body.model_dump_json()).value().reason == "The best of 5."


@pytest.mark.parametrize(
    "time", [0, "0", "1767322800", "2026-01-02", "2026-01-02T03:04:05", "9999-12-31T23:59:59-23:00", "now", None]
)
def test_a_time_is_rfc_3339(time):
    with pytest.raises(ValidationError):
        MemberBody.model_validate({"id": "i", "name": "n", "registered_at": time})


def test_times_travel_in_utc():
    local = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    body = MemberBody.of(Member(id="i", name="n", registered_at=local))
    assert json.loads(body.model_dump_json())["registered_at"] == "2026-01-02T03:04:05Z"
    assert body.value().registered_at == local


def test_a_value_beyond_the_limits_is_rejected(draft):
    architecture = replace(draft.architecture, name="x" * 201)
    with pytest.raises(RequestRejectedError, match="The field name is refused"):
        ArchitectureBody.of(architecture)
    with pytest.raises(RequestRejectedError, match="The field name is refused"):
        MemberBody.of(Member(id="i", name="", registered_at=datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("since", "2026-1-31"),
        ("since", "2026-02-30"),
        ("since", 0),
        ("since", "2026-01-31T00:00:00Z"),
        ("cells", "x"),
    ],
)
def test_the_evaluation_set_is_a_day_and_a_known_word(fields, name, value):
    fields["task"]["test_set"] = None
    fields["evaluation_set"] = {"since": "2026-01-31", "cells": "partial"}
    assert DraftBody.model_validate(fields).value().evaluation_set == EvaluationSet(
        since=date(2026, 1, 31), cells="partial"
    )
    fields["evaluation_set"][name] = value
    with pytest.raises(ValidationError):
        DraftBody.model_validate(fields)


def test_a_record_without_evaluation_set_has_the_bytes_of_older_versions(draft):
    body = DraftBody.of(draft)
    assert b"evaluation_set" not in canonical(body)
    older = {name: value for name, value in body.model_dump(mode="json").items() if name != "evaluation_set"}
    assert DraftBody.read(json.dumps(older)) == body


def test_bodies_are_frozen(draft):
    with pytest.raises(ValidationError):
        EvaluationBody.of(draft.evaluation).correct = (1, 2)


def test_canonical_does_not_depend_on_order_or_defaults(draft, fields):
    shuffled = dict(reversed(fields.items()))
    shuffled["architecture"] = dict(reversed(fields["architecture"].items()))
    written = canonical(DraftBody.model_validate(shuffled))
    assert written == canonical(DraftBody.of(draft))
    assert (
        written
        == json.dumps(
            {name: value for name, value in fields.items() if value is not None},
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
    )


def test_canonical_is_utf_8():
    body = KindBody(digest="sha256:" + "0" * 64, size=1, kind="weights")
    assert canonical(PinsBody(holder="Größe", artifacts=(body,))).startswith(b'{"artifacts":[{"digest":"sha256:0')
    assert '"holder":"Größe"'.encode() in canonical(PinsBody(holder="Größe", artifacts=(body,)))


def test_a_health_message_may_have_more_fields():
    text = '{"status":"ok","service":"vault","protocol":1,"version":"9","since":"Monday"}'
    assert HealthBody.read(text) == HealthBody(status="ok", service="vault", protocol=1, version="9")

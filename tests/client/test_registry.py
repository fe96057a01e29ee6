import json
from datetime import UTC, datetime

import pytest

from kuber.client.registry import HttpRegistry
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Knowledge
from kuber.domain.query import Query
from kuber.errors import CorruptKnowledgeError, RequestRejectedError, ServiceError
from kuber.wire.registry import ChallengeBody, KnowledgeBody
from kuber.wire.sent_blobs import MAX_SENT_BYTES


@pytest.fixture
def record(samples):
    draft = samples.draft("id-0", Artifact(digest=Digest.of(b"weights"), size=7))
    return Knowledge.from_draft(draft, id="id-1", published_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))


@pytest.fixture
def fields(record):
    return KnowledgeBody.of(record).model_dump(mode="json")


@pytest.fixture
def registry(script, reply):
    clients = []

    def make(body):
        service = script(reply(body=json.dumps(body).encode()))
        clients.append(HttpRegistry(service.url, patience=0))
        return clients[-1], service

    yield make
    for each in clients:
        each.close()


def test_understands_a_newer_registry(registry, record, fields):
    fields["task"]["domain"] = "numbers"
    client, _ = registry(fields | {"stars": 5})
    assert client.knowledge("id-1") == record


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("round", -1),
        ("round", "1"),
        ("published_at", "yesterday"),
        ("published_at", 1767322800),
        ("published_at", "2026-01-02T03:04:05"),
        ("id", ""),
        ("artifacts", {}),
        ("sample_count", True),
    ],
)
def test_a_malformed_record_is_corrupt(registry, fields, name, value):
    client, _ = registry(fields | {name: value})
    with pytest.raises(CorruptKnowledgeError):
        client.knowledge("id-1")
    client, _ = registry({"items": [fields | {name: value}], "cursor": None})
    with pytest.raises(CorruptKnowledgeError):
        client.discover(Query())


def test_an_impossible_evaluation_is_corrupt(registry, fields):
    fields["evaluation"]["correct"] = [101, 0]
    client, _ = registry(fields)
    with pytest.raises(CorruptKnowledgeError, match="correct counts must be between 0 and the number of samples"):
        client.knowledge("id-1")


def test_a_malformed_member_is_a_failure_of_the_service(registry):
    client, _ = registry({"member": {"id": "id-0"}, "token": "x"})
    client._challenge = lambda: ChallengeBody(hub="a" * 64, nonce="b" * 64, signature="c" * 128)
    with pytest.raises(ServiceError, match="name"):
        client.register("entity")


def test_sends_the_fields_of_the_query(registry, samples):
    client, service = registry({"items": [], "cursor": None})
    client.discover(Query(task="a&b=c", test_set=samples.test_set, min_accuracy=0.1 + 0.2, cursor="x y"))
    _, path, _ = service.requests[0]
    assert path == (
        f"/v1/knowledge?task=a%26b%3Dc&test_set=sha256%3A{samples.test_set.hex}"
        "&min_accuracy=0.30000000000000004&cursor=x+y"
    )


def test_sends_no_request_with_an_impossible_name(registry):
    client, service = registry({})
    with pytest.raises(RequestRejectedError, match="name"):
        client.register("")
    assert not service.requests


def test_a_hub_that_takes_no_blobs_is_asked_once(script, reply, record, fields):
    accepted = reply(body=json.dumps(fields).encode())
    problem = {"code": "request-rejected", "status": 422, "title": "Refused", "detail": "Refused."}
    refused = reply(status=422, body=json.dumps(problem).encode())
    service = script(refused, refused, refused, accepted, refused)
    with HttpRegistry(service.url, patience=0) as client:
        assert client.publish_with(record.draft, [b"weights"], key="wrong") is None
        with pytest.raises(RequestRejectedError):  # it is not for its blobs that the record is refused
            client.publish(record.draft, key="wrong")
        assert client.publish_with(record.draft, [b"weights"], key="right") is None
        assert client.publish(record.draft, key="right") == record
        assert client.publish_with(record.draft, [b"weights"], key="next") is None
        assert client.publish_with(record.draft, [bytes(MAX_SENT_BYTES + 1)], key="large") is None
    assert len(service.requests) == 4

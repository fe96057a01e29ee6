"""The registry over HTTP, with a real vault."""

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, TensorSpec

MANIFEST = {"w": TensorSpec(dtype="F32", shape=(2, 4))}


@pytest.fixture(scope="module")
def client(registry_service):
    return registry_service.client


@pytest.fixture(scope="module")
def person(enrolled):
    return enrolled("entity-0")


@pytest.fixture
def body(person, published_body):
    """Return a draft whose weights are in the vault, as JSON."""
    return published_body(person)


@pytest.fixture
def publish(client, person):
    """Sign and send a draft."""

    def act(body, key):
        headers = person.headers | {"Idempotency-Key": key}
        return client.post("/v1/knowledge", json=person.signed(body, key), headers=headers)

    return act


def test_publish_distinguishes_new_from_known(client, publish, person, body):
    answers = [publish(body, "a") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    record = answers[0].json()
    assert record == answers[1].json() == client.get(f"/v1/knowledge/{record['id']}").json()
    assert {name: record[name] for name in body} == body | {"sequence": 1, "signature": record["signature"]}
    assert record["published_at"].endswith("Z")


def test_enrolling_distinguishes_new_from_known(client, enrolled):
    person = enrolled("newcomer")
    assert person.answer.status_code == 201
    again = client.post("/v1/entities", json=person.enrolment("newcomer"))
    assert again.status_code == 200
    assert again.json()["member"] == person.answer.json()["member"]
    assert again.json()["member"] in client.get("/v1/entities").json()["items"]
    assert again.json()["member"] == client.get(f"/v1/entities/{person.id}").json()


def test_discover_pages(client, publish, person, body):
    for n in range(5):
        evaluation = body["evaluation"] | {"correct": [n, n]}
        publish(body | {"evaluation": evaluation}, f"page-{n}").raise_for_status()
    params = {"task": "parity", "test_set": body["task"]["test_set"], "min_accuracy": 0.1, "limit": 2}
    found, cursor = [], None
    while True:
        page = client.get("/v1/knowledge", params=params | ({"cursor": cursor} if cursor else {})).json()
        found += [sum(item["evaluation"]["correct"]) / 20 for item in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert found == sorted(found, reverse=True)
    assert {0.1, 0.2, 0.3, 0.4} <= set(found)
    own = client.get("/v1/knowledge", params=params | {"exclude_entity": body["entity"]}).json()
    assert body["entity"] not in {item["entity"] for item in own["items"]}


def test_deliveries(client, publish, person, body):
    teacher = publish(body, "teacher").json()["id"]
    delivery = {"student": body["entity"], "teachers": [teacher], "method": "distil", "round": 2}
    delivery |= {"accuracy_before": 0.5, "accuracy_after": 0.75, "kept": True}
    for _ in range(2):
        answer = client.post("/v1/deliveries", json=delivery, headers=person.headers | {"Idempotency-Key": "d"})
        assert (answer.status_code, answer.content) == (204, b"")
    listed = client.get("/v1/deliveries").json()["items"]
    assert [item for item in listed if item["student"] == person.id] == [delivery | {"reason": None}]


@pytest.mark.parametrize("reason", ["", "x" * 501, "two\nlines", 7])
def test_a_reason_that_is_not_a_sentence_is_refused(client, publish, person, body, reason):
    delivery = {"student": body["entity"], "teachers": [publish(body, "teacher").json()["id"]], "method": "distil"}
    delivery |= {"round": 2, "accuracy_before": 0.5, "accuracy_after": 0.75, "kept": True, "reason": reason}
    answer = client.post("/v1/deliveries", json=delivery, headers=person.headers | {"Idempotency-Key": "why"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request-rejected")
    assert "body.reason" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "code", "sentence"),
    [
        ({"round": "1"}, 422, "request-rejected", "body.round"),
        ({"surprise": 1}, 422, "request-rejected", "body.surprise"),
        ({"round": -1}, 422, "request-rejected", "round"),
        ({"entity": "nobody"}, 403, "not-authorized", "acts only for itself"),
        (
            {"artifacts": {WEIGHTS: {"digest": str(Digest.of(b"no")), "size": 2}}},
            400,
            "request-rejected",
            "not in the",
        ),
    ],
)
def test_publish_refuses(client, publish, person, body, changes, status, code, sentence):
    answer = publish(body | changes, "refused")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert sentence in answer.json()["detail"]


def test_conflicts(client, publish, person, body):
    publish(body, "once").raise_for_status()
    answer = publish(body | {"round": 2}, "once")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_key_is_needed(client, publish, person, body):
    answer = client.post("/v1/knowledge", json=person.signed(body, "keyless"), headers=person.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "request-rejected")
    assert "Idempotency-Key" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"limit": 0}, 422),
        ({"limit": 1001}, 422),
        ({"min_accuracy": "nan"}, 422),
        ({"test_set": "md5:1"}, 422),
        ({"order": "worst"}, 422),
        ({"order": "classes"}, 400),
        ({"classes": 1}, 400),
        ({"order": "classes", "classes": -1}, 422),
        ({"initial": "perhaps"}, 422),
        ({"cursor": "x"}, 400),
    ],
)
def test_discover_refuses(client, params, status):
    answer = client.get("/v1/knowledge", params=params)
    assert (answer.status_code, answer.json()["code"]) == (status, "request-rejected")


def test_unknown_knowledge_is_not_found(client):
    answer = client.get("/v1/knowledge/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "knowledge-not-found")


def test_without_its_vault_publishing_is_unavailable(start, tmp_path, body, person):
    registry = start(
        "registry", "--data", str(tmp_path / "data"), "--vault", "http://127.0.0.1:9", "--open-enrolment"
    )
    there = type(person)(registry, "entity-0")
    delivery = there.signed(body | {"entity": there.id}, "a")
    answer = registry.client.post("/v1/knowledge", json=delivery, headers=there.headers | {"Idempotency-Key": "a"})
    assert (answer.status_code, answer.json()["code"]) == (503, "service-unavailable")
    assert answer.json()["detail"] == (
        "No answer from the registry's vault at http://127.0.0.1:9: is it running? Start it with `kuber vault`."
    )
    registry.client.headers.update(there.headers)
    assert registry.client.get("/v1/knowledge").json()["items"] == []

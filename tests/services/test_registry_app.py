"""The registry over HTTP, with a real vault behind it."""

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft, TensorSpec
from kuber.domain.task import Task
from kuber.wire import DraftBody

MANIFEST = {"w": TensorSpec(dtype="F32", shape=(2, 4))}


@pytest.fixture(scope="module")
def client(registry_service):
    return registry_service.client


@pytest.fixture
def body(client, vault_service, safetensors):
    """A draft whose weights are in the vault, as JSON."""
    entity = client.post("/v1/entities", json={"name": "entity-0"}).json()["id"]
    blob = safetensors(MANIFEST)
    digest = Digest.of(blob)
    vault_service.client.put(f"/v1/blobs/{digest}", content=blob).raise_for_status()
    test_set = Digest.of(b"common test set")
    draft = Draft(
        entity=entity,
        task=Task(name="parity", labels=("even", "odd"), input_shape=(1, 2, 2), test_set=test_set),
        architecture=Architecture(name="line", arguments={}, manifest=MANIFEST),
        artifacts={WEIGHTS: Artifact(digest=digest, size=len(blob))},
        evaluation=Evaluation(test_set=test_set, correct=(3, 4), total=(10, 10)),
        round=1,
    )
    return DraftBody.of(draft).model_dump(mode="json")


def publish(client, body, key):
    return client.post("/v1/knowledge", json=body, headers={"Idempotency-Key": key})


def test_publish_tells_new_from_known(client, body):
    answers = [publish(client, body, "a") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    record = answers[0].json()
    assert record == answers[1].json() == client.get(f"/v1/knowledge/{record['id']}").json()
    assert body.items() <= record.items()
    assert record["published_at"].endswith("Z")


def test_register_tells_new_from_known(client):
    answers = [client.post("/v1/entities", json={"name": "newcomer"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json() in client.get("/v1/entities").json()["items"]


def test_discover_pages(client, body):
    for n in range(5):
        evaluation = body["evaluation"] | {"correct": [n, n]}
        publish(client, body | {"evaluation": evaluation}, f"page-{n}").raise_for_status()
    asked = {"task": "parity", "test_set": body["task"]["test_set"], "min_accuracy": 0.1, "limit": 2}
    found, cursor = [], None
    while True:
        page = client.get("/v1/knowledge", params=asked | ({"cursor": cursor} if cursor else {})).json()
        found += [sum(item["evaluation"]["correct"]) / 20 for item in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert found == sorted(found, reverse=True)
    assert {0.1, 0.2, 0.3, 0.4} <= set(found)
    own = client.get("/v1/knowledge", params=asked | {"exclude_entity": body["entity"]}).json()
    assert own == {"items": [], "cursor": None}


def test_deliveries(client, body):
    teacher = publish(client, body, "teacher").json()["id"]
    told = {"student": body["entity"], "teachers": [teacher], "method": "distil", "round": 2}
    told |= {"accuracy_before": 0.5, "accuracy_after": 0.75, "kept": True}
    for _ in range(2):
        answer = client.post("/v1/deliveries", json=told, headers={"Idempotency-Key": "d"})
        assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/v1/deliveries").json() == {"items": [told], "cursor": None}


@pytest.mark.parametrize(
    ("changes", "status", "code", "sentence"),
    [
        ({"round": "1"}, 422, "request-rejected", "body.round"),
        ({"surprise": 1}, 422, "request-rejected", "body.surprise"),
        ({"round": -1}, 422, "request-rejected", "round"),
        ({"entity": "nobody"}, 400, "request-rejected", "No entity 'nobody'"),
        (
            {"artifacts": {WEIGHTS: {"digest": str(Digest.of(b"no")), "size": 2}}},
            400,
            "request-rejected",
            "not in the",
        ),
    ],
)
def test_publish_refuses(client, body, changes, status, code, sentence):
    answer = publish(client, body | changes, "refused")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert sentence in answer.json()["detail"]


def test_conflicts(client, body):
    publish(client, body, "once").raise_for_status()
    answer = publish(client, body | {"round": 2}, "once")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_key_is_needed(client, body):
    answer = client.post("/v1/knowledge", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request-rejected")
    assert "Idempotency-Key" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "status"),
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
def test_discover_refuses(client, asked, status):
    answer = client.get("/v1/knowledge", params=asked)
    assert (answer.status_code, answer.json()["code"]) == (status, "request-rejected")


def test_unknown_knowledge_is_not_found(client):
    answer = client.get("/v1/knowledge/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "knowledge-not-found")


def test_without_its_vault_it_says_so(start, tmp_path, body):
    registry = start("registry", "--data", str(tmp_path / "data"), "--vault", "http://127.0.0.1:9")
    body["entity"] = registry.client.post("/v1/entities", json={"name": "entity-0"}).json()["id"]
    answer = publish(registry.client, body, "a")
    assert (answer.status_code, answer.json()["code"]) == (503, "service-unavailable")
    assert answer.json()["detail"] == (
        "The registry gets no answer from its vault at http://127.0.0.1:9; start that vault and try again."
    )
    assert registry.client.get("/v1/knowledge").json()["items"] == []

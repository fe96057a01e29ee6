"""Changes of a hub as server-sent events."""

import json
import threading
from contextlib import ExitStack

import httpx
import pytest

from tests.fixtures.hub import running_hub
from tests.fixtures.waiting import LIMIT


def read(lines, most=None):
    """Return ids, kinds and data of the events of a stream."""
    events, fields = [], {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "id" in fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
            if len(events) == most:
                break
    return events


@pytest.fixture
def events(registry_service, enrolled):
    def get(after=None, **params):
        headers = enrolled("reader").headers | ({} if after is None else {"Last-Event-ID": str(after)})
        answer = registry_service.client.get("/v1/events", headers=headers, params={"follow": False} | params)
        assert answer.headers["content-type"].startswith("text/event-stream")
        return read(answer.text.splitlines())

    return get


def test_streams_changes_in_order(events, registry_service, enrolled, published_body):
    before = events()[-1][0]
    person = enrolled("active")
    client = registry_service.client
    evaluation = published_body(person)["evaluation"]
    report = {"round": 3, "evaluation": evaluation}
    client.post(f"/v1/entities/{person.id}/reports", json=report, headers=person.headers).raise_for_status()
    headers = person.headers | {"Idempotency-Key": "a"}
    record = client.post("/v1/knowledge", json=person.signed(published_body(person), "a"), headers=headers).json()[
        "id"
    ]
    client.delete(f"/v1/knowledge/{record}", headers=person.headers).raise_for_status()
    changes = [event for event in events(before) if event[2]["actor"] == person.id]
    assert [kind for _, kind, _ in changes] == ["enrol", "report", "publish", "withdraw"]
    assert [number for number, _, _ in changes] == sorted(number for number, _, _ in changes)
    assert changes[1][2]["detail"] == {"round": 3, "correct": evaluation["correct"], "total": evaluation["total"]}
    assert [data["subject"] for _, _, data in changes[2:]] == [record, record]


def test_publications_and_deliveries_carry_details(events, registry_service, enrolled, published_body):
    before = events()[-1][0]
    person = enrolled("teller")
    client = registry_service.client
    draft = published_body(person)
    headers = person.headers | {"Idempotency-Key": "a"}
    record = client.post("/v1/knowledge", json=person.signed(draft, "a"), headers=headers).json()
    delivery = {"student": person.id, "teachers": [record["id"]], "method": "merge", "round": 4}
    delivery |= {"accuracy_before": 0.25, "accuracy_after": 0.5, "kept": True}
    client.post("/v1/deliveries", json=delivery, headers=headers).raise_for_status()
    details = {kind: data["detail"] for _, kind, data in events(before) if data["actor"] == person.id}
    evaluation = draft["evaluation"]
    assert details["publish"] == {
        "round": draft["round"],
        "accuracy": sum(evaluation["correct"]) / sum(evaluation["total"]),
        "task": draft["task"]["name"],
        "architecture": draft["architecture"]["name"],
        "bytes": sum(artifact["size"] for artifact in draft["artifacts"].values()),
    }
    assert details["deliver"] == {name: value for name, value in delivery.items() if name != "student"}
    before, explained = events()[-1][0], delivery | {"reason": "The newest of 3 relatives."}
    client.post("/v1/deliveries", json=explained, headers=headers | {"Idempotency-Key": "b"}).raise_for_status()
    ((_, _, data),) = events(before)
    assert data["detail"] == details["deliver"] | {"reason": "The newest of 3 relatives."}


def test_a_reader_that_resumes_misses_none(events):
    everything = events()
    assert len(everything) >= 3
    for place in (0, len(everything) // 2):
        assert events(everything[place][0]) == everything[place + 1 :]
    assert events("garbage") == everything


def test_private_events_are_not_sent_to_entities(events, registry_service):
    token = (registry_service.log.parent / "registry" / "admin-token").read_text()
    operator = {"headers": {"Authorization": f"Bearer {token}"}}
    registry_service.client.post("/v1/invitations", json={"name": "secret guest"}, **operator).raise_for_status()
    assert "secret guest" in registry_service.client.get("/v1/audit", params={"limit": 1000}, **operator).text
    assert "secret guest" not in {data["subject"] for _, _, data in events()}


def test_follows_new_events(events, registry_service, enrolled):
    person = enrolled("follower")
    last = events()[-1][0]
    headers = person.headers | {"Last-Event-ID": str(last)}
    path = f"/v1/entities/{person.id}/reports"
    with registry_service.client.stream("GET", "/v1/events", headers=headers, timeout=LIMIT) as stream:
        registry_service.client.post(path, json={"round": 1}, headers=person.headers).raise_for_status()
        ((_, kind, data),) = read(stream.iter_lines(), most=1)
    assert (kind, data["actor"], data["detail"]) == ("report", person.id, {"round": 1})


@pytest.mark.process
def test_a_stopping_registry_ends_streams_and_answers_waiters(tmp_path):
    answers = {}

    def wait(hub, bearer):
        answers["news"] = httpx.get(f"{hub.registry}/v1/news?seconds=20", headers=bearer, timeout=LIMIT)

    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(tmp_path))
        bearer = {"Authorization": f"Bearer {hub.operator}"}
        httpx.post(f"{hub.registry}/v1/invitations", json={"name": "ward"}, headers=bearer).raise_for_status()
        waiting = threading.Thread(target=wait, args=(hub, bearer))
        waiting.start()
        with httpx.stream("GET", f"{hub.registry}/v1/events", params={"follow": True}, headers=bearer) as stream:
            lines = stream.iter_lines()
            assert stream.status_code == 200
            while httpx.get(f"{hub.registry}/metrics").text.count("kuber_http_requests_under_way 3.0") == 0:
                pass  # this one, the follower and the one who waits
            stack.close()
            assert read(lines) == []  # to its end, which is no cut
    waiting.join(LIMIT)
    assert answers["news"].status_code == 200
    assert answers["news"].json()["items"] == []
    assert "Cancel" not in (tmp_path / "registry.log").read_text(encoding="utf-8")


def test_a_reader_that_is_ahead_of_a_restored_hub_gets_its_last_id(events, registry_service, enrolled):
    last = events()[-1][0]
    headers = enrolled("ahead").headers | {"Last-Event-ID": "9" * 12}
    answer = registry_service.client.get("/v1/events", headers=headers, params={"follow": False})
    assert answer.text.strip() == f"id: {last + 1}"


def test_an_answer_with_news_does_not_search_all_of_a_long_history(registry_service, enrolled, monkeypatch):
    monkeypatch.setattr("kuber.services.registry.access_routes.MAX_SCANNED", 0)
    monkeypatch.setattr("kuber.services.registry.audit.BATCH", 2)
    person = enrolled("reporter")
    client = registry_service.client
    for round in range(5):
        client.post(f"/v1/entities/{person.id}/reports", json={"round": round}, headers=person.headers)
    cursors = ["0"]
    for _ in range(2):
        params = {"after": cursors[-1], "task": "none", "seconds": 20}
        page = client.get("/v1/news", params=params, headers=person.headers).json()
        assert page["items"] == []
        cursors.append(page["cursor"])
        if int(page["cursor"]) >= 5:
            break
    assert int(cursors[1]) > 0

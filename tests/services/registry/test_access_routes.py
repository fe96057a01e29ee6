"""Access control: every route of a hub, requested by every kind of caller."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from kuber.domain.digest import Digest

from ..processes import Applicant

BLOB = b"a blob"
# Status for: no token, another entity, the owner, the operator, the other service, the verifier. None: not requested.
ROUTES = {
    ("registry", "GET", "/healthz"): (200, 200, 200, 200, 200, 200),
    ("registry", "POST", "/v1/challenges"): (422, 422, 422, 422, 422, 422),  # open to all
    ("registry", "POST", "/v1/entities"): (422, 422, 422, 422, 422, 422),  # open to all: the body itself is signed
    ("registry", "GET", "/v1/entities"): (401, 200, 200, 200, 200, 200),
    ("registry", "GET", "/v1/entities/{id}"): (401, 200, 200, 200, 200, 200),
    ("registry", "POST", "/v1/entities/{id}/keys"): (401, 403, 400, 403, 403, 403),
    ("registry", "DELETE", "/v1/entities/{id}/tokens"): (401, 403, None, None, 403, 403),
    ("registry", "POST", "/v1/entities/{id}/reports"): (401, 403, 204, 403, 403, 403),
    ("registry", "GET", "/v1/events"): (401, 200, 200, 200, 200, 200),
    ("registry", "GET", "/v1/news"): (401, 200, 200, 200, 200, 200),
    ("registry", "GET", "/metrics"): (200, 200, 200, 200, 200, 200),
    ("registry", "POST", "/v1/tokens/check"): (401, 403, 403, 403, 403, 403),
    ("registry", "POST", "/v1/invitations"): (401, 403, 403, 422, 403, 403),
    ("registry", "POST", "/v1/entities/{id}/rekey"): (401, 403, 403, 201, 403, 403),
    ("registry", "GET", "/v1/invitations"): (401, 403, 403, 200, 403, 403),
    ("registry", "DELETE", "/v1/invitations"): (401, 403, 403, 204, 403, 403),
    ("registry", "GET", "/v1/audit"): (401, 403, 403, 200, 403, 403),
    ("registry", "GET", "/v1/suspicions"): (401, 200, 200, 200, 200, 200),
    ("registry", "GET", "/v1/status"): (401, 403, 403, 200, 403, 403),
    ("registry", "GET", "/v1/architectures"): (401, 403, 403, 200, 403, 403),
    ("registry", "DELETE", "/v1/architectures/{pin}"): (401, 403, 403, 404, 403, 403),
    ("registry", "GET", "/v1/ids"): (401, 422, 422, 422, 422, 422),  # without a part
    ("registry", "POST", "/v1/knowledge"): (401, 403, 200, 403, 403, 403),
    ("registry", "GET", "/v1/knowledge"): (401, 200, 200, 200, 200, 200),
    ("registry", "GET", "/v1/knowledge/{id}"): (401, 200, 200, 200, 200, 200),
    ("registry", "DELETE", "/v1/knowledge/{id}"): (401, 403, 204, 204, 403, 403),
    ("registry", "GET", "/v1/knowledge/{id}/attestations"): (401, 200, 200, 200, 200, 200),
    ("registry", "POST", "/v1/knowledge/{id}/attestations"): (401, 204, 400, 403, 403, 403),
    ("registry", "PUT", "/v1/knowledge/{id}/verification"): (401, 403, 403, 403, 403, 204),
    ("registry", "POST", "/v1/knowledge/{id}/quarantine"): (401, 403, 403, 204, 403, 403),
    ("registry", "DELETE", "/v1/knowledge/{id}/quarantine"): (401, 403, 403, 204, 403, 403),
    ("registry", "POST", "/v1/deliveries"): (401, 403, 204, 403, 403, 403),
    ("registry", "GET", "/v1/deliveries"): (401, 200, 200, 200, 200, 200),
    ("vault", "GET", "/healthz"): (200, 200, 200, 200, 200, 200),
    ("vault", "GET", "/metrics"): (200, 200, 200, 200, 200, 200),
    ("vault", "PUT", "/v1/blobs/{digest}"): (401, 200, 200, 403, 200, 403),
    ("vault", "GET", "/v1/blobs/{digest}"): (401, 200, 200, 200, 200, 200),
    ("vault", "HEAD", "/v1/blobs/{digest}"): (401, 200, 200, 200, 200, 200),
    ("vault", "GET", "/v1/blobs"): (401, 403, 403, 200, 200, 403),
    ("vault", "GET", "/v1/blobs/{digest}/owner"): (401, 403, 403, 200, 200, 403),
    ("vault", "POST", "/v1/uploads"): (401, 200, 200, 403, 200, 403),
    ("vault", "HEAD", "/v1/uploads/{id}"): (401, 404, 404, 403, 404, 403),
    ("vault", "POST", "/v1/uploads/{id}"): (401, 400, 400, 403, 400, 403),  # not without --direct
    ("vault", "PATCH", "/v1/uploads/{id}"): (401, 404, 404, 403, 404, 403),
    ("vault", "POST", "/v1/pins"): (401, 403, 403, 200, 200, 403),
    ("vault", "POST", "/v1/pins/batch"): (401, 403, 403, 200, 200, 403),
    ("vault", "DELETE", "/v1/pins"): (401, 403, 403, 204, 204, 403),
    ("vault", "GET", "/v1/pins"): (401, 403, 403, 200, 200, 403),
    ("vault", "POST", "/v1/collections"): (401, 403, 403, 200, 200, 403),
    ("vault", "GET", "/v1/status"): (401, 403, 403, 200, 200, 403),
    ("vault", "POST", "/v1/scrubs"): (401, 403, 403, 200, 200, 403),
}


@pytest.fixture(scope="module")
def owner(enrolled):
    return enrolled("owner")


@pytest.fixture(scope="module")
def operator(registry_service):
    return token_in(registry_service.log.parent / "registry" / "admin-token")


@pytest.fixture(scope="module")
def verifier(registry_service):
    return token_in(registry_service.log.parent / "registry" / "verifier-token")


@pytest.fixture(scope="module")
def record(registry_service, vault_service, owner, published_body):
    """Return the signed draft that the owner published, and the id of the record."""
    body = published_body(owner)
    headers = owner.headers | {"Idempotency-Key": "mine", "Upload-Offset": "0"}
    signed = owner.signed(body, "mine")
    answer = registry_service.client.post("/v1/knowledge", json=signed, headers=headers)
    assert answer.status_code == 201, answer.text
    return signed, answer.json()["id"]


def test_the_table_names_every_route(registry_service, vault_service):
    for name, service in (("registry", registry_service), ("vault", vault_service)):
        paths = service.client.get("/openapi.json").json()["paths"]
        there = {(name, method.upper(), path) for path, methods in paths.items() for method in methods}
        assert there == {route for route in ROUTES if route[0] == name}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: " ".join(route))
def test_each_route_admits_its_callers(
    route, registry_service, vault_service, owner, enrolled, operator, verifier, record
):
    name, method, path = route
    service = registry_service if name == "registry" else vault_service
    signed, id = record
    path = path.replace("{digest}", str(Digest.of(BLOB)))
    path = path.replace("{id}", {"v1/kno": id, "v1/upl": "0" * 32}.get(path[1:7], owner.id))
    vault_service.client.put(f"/v1/blobs/{Digest.of(BLOB)}", content=BLOB).raise_for_status()
    delivery = {"student": owner.id, "teachers": [id], "method": "merge", "round": 1}
    bodies = {
        "/v1/knowledge": signed,
        "/v1/deliveries": delivery | {"accuracy_before": 0.5, "accuracy_after": 0.5, "kept": True},
        "/v1/pins": {"holder": "somebody", "artifacts": []},
        "/v1/pins/batch": {"holders": [{"holder": "somebody", "artifacts": []}]},
        "/v1/uploads": {"digest": str(Digest.of(BLOB)), "size": len(BLOB)},
        f"/v1/knowledge/{id}/attestations": signed["evaluation"],
        f"/v1/knowledge/{id}/verification": {"standing": "unverifiable", "reason": "No such network here."},
        f"/v1/knowledge/{id}/quarantine": {"reason": "It may carry a backdoor."},
        f"/v1/entities/{owner.id}/keys": {"public_key": "0" * 64, "since": 99},
        "/v1/tokens/check": {"token": "unknown"},
        f"/v1/entities/{owner.id}/reports": {"round": 1},
    }
    others = enrolled("other").headers
    nobody = {"Authorization": ""}
    tokens = (nobody, others, owner.headers, operator, token_in(service.secret), verifier)
    params = {"/v1/events": {"follow": False}, "/v1/pins": {"holder": "nobody"}}.get(path, {})
    content = (
        {"content": BLOB}
        if "blobs" in path and method == "PUT"
        else {"json": bodies.get(path, {})}
        if method in ("POST", "PUT")
        else {}
    )
    for headers, status in zip(tokens, ROUTES[route], strict=True):
        if status is None:
            continue
        answer = service.client.request(
            method,
            path,
            headers=headers | {"Idempotency-Key": "mine", "Upload-Offset": "0"},
            params=params,
            **content,
        )
        assert answer.status_code == status, (headers, answer.text)
        if status in (401, 403) and method != "HEAD":
            assert answer.json()["code"] == "not-authorized"
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_revoked_token_is_refused_and_the_key_gets_another(registry_service, enrolled):
    person = enrolled("revoked")
    client = registry_service.client
    assert client.delete(f"/v1/entities/{person.id}/tokens", headers=person.headers).status_code == 204
    assert client.get("/v1/entities", headers=person.headers).status_code == 401
    renewed = client.post("/v1/entities", json=person.enrolment("revoked"))
    token = {"Authorization": f"Bearer {renewed.json()['token']}"}
    assert client.get("/v1/entities", headers=token).status_code == 200


def test_a_blocked_entity_gets_no_token(registry_service, enrolled, operator):
    person = enrolled("shut-out")
    client = registry_service.client
    path = f"/v1/entities/{person.id}/tokens"
    assert client.delete(path, params={"block": True}, headers=person.headers).status_code == 403
    assert client.delete(path, params={"block": True}, headers=operator).status_code == 204
    refused = client.post("/v1/entities", json=person.enrolment("shut-out"))
    assert (refused.status_code, refused.json()["code"]) == (403, "not-authorized")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "another-name"}, 422),
        ({"public_key": "0" * 64}, 422),
        ({"signature": None}, 422),
        ({"at": "2026-01-01T00:00:00Z"}, 422),
    ],
)
def test_a_changed_enrolment_is_refused(registry_service, enrolled, change, status):
    person = enrolled("applicant")
    answer = registry_service.client.post("/v1/entities", json=person.enrolment("applicant") | change)
    assert (answer.status_code, answer.json()["code"]) == (status, "knowledge-corrupt")


def test_an_old_enrolment_is_refused(registry_service, enrolled):
    person = enrolled("late")
    wish = person.enrolment("late", at=datetime.now(UTC) - timedelta(hours=1))
    answer = registry_service.client.post("/v1/entities", json=wish)
    assert answer.status_code == 403
    assert "set the clock" in answer.json()["detail"]


def test_a_name_belongs_to_its_first_key(registry_service, enrolled):
    enrolled("taken")
    stranger = enrolled("stranger")
    answer = registry_service.client.post("/v1/entities", json=stranger.enrolment("taken"))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_an_invitation_is_for_one_name_and_one_use(start, tmp_path):
    registry = start("registry", "--data", str(tmp_path / "registry"), "--vault", "http://127.0.0.1:9")
    operator = token_in(tmp_path / "registry" / "admin-token")
    code = registry.client.post("/v1/invitations", json={"name": "guest"}, headers=operator).json()["code"]
    first, second = Applicant(), Applicant()
    uninvited = registry.client.post("/v1/entities", json=first.enrolment("guest"))
    assert (uninvited.status_code, uninvited.json()["code"]) == (403, "not-authorized")
    assert "kuber hub invite guest" in uninvited.json()["detail"]
    assert registry.client.post("/v1/entities", json=first.enrolment("other", invitation=code)).status_code == 403
    assert registry.client.post("/v1/entities", json=first.enrolment("guest", invitation=code)).status_code == 201
    assert registry.client.post("/v1/entities", json=first.enrolment("guest", invitation=code)).status_code == 200
    assert registry.client.post("/v1/entities", json=second.enrolment("guest", invitation=code)).status_code == 403
    listed = registry.client.get("/v1/invitations", headers=operator).json()["items"]
    assert [(invitation["name"], invitation["used_at"] is None) for invitation in listed] == [("guest", False)]
    acts = [(entry["act"], entry["subject"]) for entry in audit(registry, operator)]
    assert acts == [("invite", "guest"), ("enrol", "guest")]


def test_a_stranger_does_not_learn_which_names_are_taken(start, tmp_path):
    registry = start("registry", "--data", str(tmp_path / "registry"), "--vault", "http://127.0.0.1:9")
    operator = token_in(tmp_path / "registry" / "admin-token")

    def invited(name):
        return registry.client.post("/v1/invitations", json={"name": name}, headers=operator).json()["code"]

    def answer(name, **more):
        found = registry.client.post("/v1/entities", json=Applicant().enrolment(name, **more))
        return found.status_code, found.json().get("detail", "").replace(name, "NAME")

    used = invited("guest")
    assert answer("guest", invitation=used)[0] == 201
    for more in ({}, {"invitation": "wrong"}, {"invitation": used}, {"invitation": invited("third")}):
        taken, free = answer("guest", **more), answer("nobody", **more)
        assert taken[0] == free[0] == 403
        if more.get("invitation") != used:  # of the only name that it was for
            assert taken == free
    assert answer("guest", invitation=invited("guest")) == (
        409,
        "The name 'NAME' belongs to another key; choose another name, or use the key of that entity. If it is lost, "
        "the hub's operator can allow a new one (`kuber hub rekey NAME`).",
    )
    status, detail = answer("Guest", invitation=invited("Guest"))
    assert (status, "can be mistaken for 'guest'" in detail) == (409, True)
    assert answer("\uff47uest", invitation=invited("\uff47uest"))[0] == 409


def test_an_invitation_expires(start, tmp_path):
    registry = start("registry", "--data", str(tmp_path / "registry"), "--vault", "http://127.0.0.1:9")
    operator = token_in(tmp_path / "registry" / "admin-token")
    wanted = {"name": "guest", "days": 1e-7}
    code = registry.client.post("/v1/invitations", json=wanted, headers=operator).json()["code"]
    time.sleep(0.02)
    answer = registry.client.post("/v1/entities", json=Applicant().enrolment("guest", invitation=code))
    assert answer.status_code == 403
    assert "expired" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["evaluation.correct", "round", "sequence", "parents", "artifacts", "signature"])
def test_a_changed_field_is_refused(registry_service, enrolled, published_body, path):
    person = enrolled(f"changed-{path}")
    signed = person.signed(published_body(person), "a")
    changed = {
        "evaluation.correct": {"evaluation": signed["evaluation"] | {"correct": [9, 9]}},
        "round": {"round": 7},
        "sequence": {"sequence": 5},
        "parents": {"origin": str(Digest.of(b"elsewhere"))},
        "artifacts": {"class_counts": [1, 2]},
        "signature": {"signature": "0" * 128},
    }[path]
    headers = person.headers | {"Idempotency-Key": "a"}
    answer = registry_service.client.post("/v1/knowledge", json=signed | changed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "knowledge-corrupt")
    unsigned = registry_service.client.post("/v1/knowledge", json=signed | {"signature": None}, headers=headers)
    assert (unsigned.status_code, unsigned.json()["code"]) == (400, "request-rejected")


def test_a_record_signed_with_another_key_is_refused(registry_service, enrolled, published_body):
    person, thief = enrolled("person"), enrolled("thief")
    signed = thief.signed(published_body(person), "a")
    headers = person.headers | {"Idempotency-Key": "a"}
    answer = registry_service.client.post("/v1/knowledge", json=signed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "knowledge-corrupt")


def test_a_sequence_is_used_once(registry_service, enrolled, published_body):
    person = enrolled("counter")
    body = published_body(person)

    def send(key, signed):
        headers = person.headers | {"Idempotency-Key": key}
        return registry_service.client.post("/v1/knowledge", json=signed, headers=headers).status_code

    first, second = person.signed(body, "a"), person.signed(body, "b")
    assert [send("b", second), send("b", second)] == [201, 200]
    assert send("c", second) == 409  # sent again as another
    assert send("a", first) == 409  # and an older one comes too late
    member = registry_service.client.get(f"/v1/entities/{person.id}").json()
    assert member["sequence"] == 2


def audit(registry, operator):
    return registry.client.get("/v1/audit", headers=operator).json()["items"]


def token_in(path):
    return {"Authorization": f"Bearer {path.read_text()}"}


@pytest.mark.parametrize("token", ["two words", "x" * 201, "\u00e9"])
def test_malformed_tokens_are_refused(hub_services, token):
    for service, path in zip(hub_services, ("/v1/blobs", "/v1/knowledge"), strict=True):
        answer = service.client.get(path, headers={"Authorization": f"Bearer {token}".encode()})
        assert answer.status_code == 401

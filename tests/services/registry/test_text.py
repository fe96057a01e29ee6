"""Text of callers: none ends a service, however it is written, and none is stored that no database takes."""

import json

import pytest

from kuber.domain.printable_text import printable

EVIL = "Fine\x1b[2J\r\nverified: all is well \u202e\0 \ud800"
TEXTS = ["nul\0", "half \ud800", "\udfff"]


@pytest.fixture(scope="module")
def owner(enrolled):
    return enrolled("owner of texts")


@pytest.fixture(scope="module")
def verifier(registry_service):
    token = (registry_service.log.parent / "registry" / "verifier-token").read_text().strip()
    return {"Authorization": f"Bearer {token}"}


def post(service, path, body, headers):
    """Send JSON that may hold lone surrogates."""
    return service.client.request(
        path[0], path[1], content=json.dumps(body), headers={"Content-Type": "application/json"} | headers
    )


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize(
    "place", ["argument", "argument's name", "architecture", "tensor", "task", "label", "parent", "entity"]
)
def test_a_record_with_text_that_cannot_be_stored_is_refused(registry_service, owner, published_body, text, place):
    body = published_body(owner)
    architecture = body["architecture"]
    match place:
        case "argument":
            architecture["arguments"]["kind"] = text
        case "argument's name":
            architecture["arguments"][text] = 1
        case "architecture":
            architecture["name"] = text
        case "tensor":
            architecture["manifest"] = {text: {"dtype": "F32", "shape": [1]}}
        case "task":
            body["task"]["name"] = text
        case "label":
            body["task"]["labels"][0] = text
        case "parent":
            body["parents"] = [text]
        case "entity":
            body["entity"] = text
    body |= {"sequence": 1, "signature": "0" * 128}
    answer = post(registry_service, ("POST", "/v1/knowledge"), body, owner.headers | {"Idempotency-Key": "texts"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"].isprintable()


@pytest.mark.parametrize("text", [*TEXTS, EVIL], ids=ascii)
def test_a_verdict_is_stored_with_escapes(registry_service, vault_service, owner, published_body, verifier, text):
    body = owner.signed(published_body(owner), f"of {text!a}")
    headers = owner.headers | {"Idempotency-Key": f"of {text!a}"}
    record = registry_service.client.post("/v1/knowledge", json=body, headers=headers).json()["id"]
    verdict = {"standing": "unverifiable", "reason": f"No operator {text}."}
    path = f"/v1/knowledge/{record}"
    answer = post(registry_service, ("PUT", f"{path}/verification"), verdict, verifier)
    assert answer.status_code == 204, answer.text
    found = registry_service.client.get(path, headers=owner.headers).json()["verification"]["reason"]
    assert found == f"No operator {printable(text)}."


@pytest.mark.parametrize(
    "path",
    [
        "/v1/knowledge/%00",
        "/v1/knowledge/a%1bb",
        "/v1/knowledge/%00/attestations",
        "/v1/entities/%00",
        "/v1/knowledge?task=%00",
        "/v1/knowledge?exclude_entity=%00",
        "/v1/knowledge?task=%E2%80%AE",
        "/v1/knowledge?cursor=WyJuZXdlc3QiLCJcdTAwMDAiXQ",
        "/v1/knowledge?limit=" + "9" * 10_000,
        "/v1/news?after=" + "9" * 10_000,
        "/v1/news?task=%00",
        "/v1/deliveries?cursor=%00",
    ],
    ids=lambda path: path[:40],
)
def test_a_path_or_parameter_that_no_database_takes_is_refused(registry_service, owner, path):
    answer = registry_service.client.get(path, headers=owner.headers)
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.json()["detail"].isprintable()


@pytest.mark.parametrize("version", ["9" * 10_000, "²", "٣".encode(), "-1", "1" * 5000])
def test_a_protocol_that_is_no_number_of_ours_is_refused(registry_service, vault_service, version):
    for service in (registry_service, vault_service):
        answer = service.client.get(
            "/healthz",
            headers={"KUber-Protocol": version if isinstance(version, bytes) else version.encode("latin-1")},
        )
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("number", ["9" * 10_000, "-1", "1e9999"])
def test_a_number_in_json_that_is_too_long_is_refused(registry_service, owner, number):
    headers = owner.headers | {"Content-Type": "application/json"}
    content = f'{{"round": {number}}}'
    answer = registry_service.client.post(f"/v1/entities/{owner.id}/reports", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize("length", ["9" * 10_000, "²".encode("latin-1")])
def test_a_content_length_that_is_no_number_ends_no_service(vault_service, owner, length):
    blob = "/v1/blobs/sha256:" + "0" * 64
    answer = vault_service.client.head(blob, headers=owner.headers | {"Range": b"bytes=" + b"9" * 5000 + b"-"})
    assert answer.status_code in (400, 404)
    headers = owner.headers | {"Upload-Offset": length}
    assert vault_service.client.patch(f"/v1/uploads/{'0' * 32}", content=b"", headers=headers).status_code == 422
    assert vault_service.client.get("/healthz").status_code == 200

"""Routes of the vault: streaming, ranges, refused requests."""

import socket

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import TensorSpec

DATA = bytes(range(256)) * 8000  # more than one piece


@pytest.fixture(scope="module")
def client(vault_service):
    return vault_service.client


@pytest.fixture
def path(client):
    path = f"/v1/blobs/{Digest.of(DATA)}"
    client.put(path, content=DATA).raise_for_status()
    return path


def blob_path(data):
    return f"/v1/blobs/{Digest.of(data)}"


def test_put_answers_201_for_new_blobs_and_200_for_known_ones(client):
    first, second = (client.put(blob_path(b"new"), content=b"new") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json() == {"digest": str(Digest.of(b"new")), "size": 3}


def test_put_accepts_a_body_without_a_length(client):
    data = DATA + b"chunked"
    pieces = (data[start : start + 100_000] for start in range(0, len(data), 100_000))
    assert client.put(blob_path(data), content=pieces).status_code == 201
    assert client.get(blob_path(data)).content == data


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        (blob_path(b"named"), b"other", 422, "knowledge-corrupt"),
        (blob_path(b""), b"", 400, "request-rejected"),
        ("/v1/blobs/sha256:short", b"x", 422, "request-rejected"),
        ("/v1/blobs/..%2f..%2fetc", b"x", 404, "request-rejected"),
    ],
)
def test_put_refuses_wrong_empty_or_badly_named_blobs(client, path, content, status, code):
    answer = client.put(path, content=content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get(path).status_code in (404, 422)


def test_put_refuses_blobs_that_are_too_large(client):
    large = bytes(3_000_001)
    for content in (large, iter([large])):
        answer = client.put(blob_path(large), content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "request-rejected")
        assert "3000000 bytes" in answer.json()["detail"]
    assert client.head(blob_path(large)).status_code == 404


def test_a_client_that_disconnects_leaves_nothing(client, vault_service, tmp_path):
    incoming = vault_service.log.parent / "vault" / "incoming"
    before = set(incoming.iterdir())  # of other tests
    disconnects = vault_service.log.read_text().count("the client disconnected")
    host, port = vault_service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sender:
        path = blob_path(b"never complete")
        token = client.headers["authorization"]
        sender.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 99\r\n\r\nhalf".encode()
        )
    assert client.head(path).status_code == 404
    while vault_service.log.read_text().count("the client disconnected") == disconnects:
        client.get("/healthz")
    assert set(incoming.iterdir()) <= before


def test_head_returns_the_size(client, path):
    answer = client.head(path)
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(DATA)), b"")
    assert answer.headers["etag"] == f'"{Digest.of(DATA)}"'
    assert client.head(blob_path(b"absent")).status_code == 404


def test_get_returns_the_bytes(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    absent = client.get(blob_path(b"absent"))
    assert (absent.status_code, absent.json()["code"]) == (404, "knowledge-not-found")


@pytest.mark.parametrize(
    ("range_", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000000-1100000", 1_000_000, 1_100_000),
        ("bytes=2047999-", 2_047_999, 2_047_999),
        ("bytes=-5", 2_047_995, 2_047_999),
        ("bytes=-9999999", 0, 2_047_999),
        ("bytes=5-9999999", 5, 2_047_999),
    ],
)
def test_a_range_returns_that_part(client, path, range_, first, last):
    answer = client.get(path, headers={"Range": range_})
    assert (answer.status_code, answer.content) == (206, DATA[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"


@pytest.mark.parametrize("range_", ["bytes=2048000-", "bytes=-0"])
def test_a_range_outside_the_blob_is_refused(client, path, range_):
    answer = client.get(path, headers={"Range": range_})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")
    assert answer.json()["code"] == "request-rejected"


@pytest.mark.parametrize("range_", ["bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=a-b"])
def test_an_unusual_range_returns_the_whole_blob(client, path, range_):
    answer = client.get(path, headers={"Range": range_})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


def test_if_range_returns_the_part_only_for_the_same_etag(client, path):
    tag = f'"{Digest.of(DATA)}"'
    for etag, status in [(tag, 206), (f"W/{tag}", 200), ('"other"', 200), ("Mon, 01 Jan 2026 00:00:00 GMT", 200)]:
        answer = client.get(path, headers={"Range": "bytes=5-9", "If-Range": etag})
        assert (answer.status_code, answer.content) == (status, DATA[5:10] if status == 206 else DATA)


def test_head_ignores_a_range(client, path):
    answer = client.head(path, headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(DATA)))


def test_blobs_are_listed_in_order_and_by_page(client):
    for n in range(5):
        client.put(blob_path(b"%d" % n), content=b"%d" % n)
    found, cursor = [], None
    while True:
        page = client.get("/v1/blobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [item["digest"] for item in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert found == sorted(set(found))
    assert {str(Digest.of(b"%d" % n)) for n in range(5)} <= set(found)


def test_pins_require_stored_artifacts(client, safetensors):
    data = safetensors({"w": TensorSpec(dtype="F32", shape=(3,))})
    client.put(blob_path(data), content=data).raise_for_status()
    sound = {"digest": str(Digest.of(data)), "size": len(data), "kind": "weights"}
    answer = client.post("/v1/pins", json={"holder": "record", "artifacts": [sound]})
    assert answer.status_code == 200
    assert list(answer.json()["manifests"]) == [sound["digest"]]
    answer = client.post("/v1/pins", json={"holder": "record", "artifacts": [sound | {"size": 1}]})
    assert (answer.status_code, answer.json()["code"]) == (400, "request-rejected")

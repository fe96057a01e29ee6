"""Uploads in pieces: in order, verified, and resumed after a lost connection or a restart."""

import os
import socket
from contextlib import closing
from datetime import timedelta

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import ConflictError, KnowledgeNotFoundError
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads

DATA = bytes(range(256)) * 4000 + b"end"


@pytest.fixture
def client(vault_service):
    return vault_service.client


def begin(client, data, **changes):
    answer = client.post("/v1/uploads", json={"digest": str(Digest.of(data)), "size": len(data)} | changes)
    answer.raise_for_status()
    return f"/v1/uploads/{answer.json()['id']}"


def send(client, path, offset, piece):
    return client.patch(path, content=piece, headers={"Upload-Offset": str(offset)})


def offset(client, path):
    return int(client.head(path).headers["upload-offset"])


def test_pieces_become_the_blob(client):
    data = DATA + b"pieces"
    path = begin(client, data)
    for start in range(0, len(data), 300_000):
        assert offset(client, path) == start
        answer = send(client, path, start, data[start : start + 300_000])
        assert answer.json()["offset"] == min(start + 300_000, len(data))
    assert (answer.status_code, answer.json()["id"]) == (201, None)
    assert client.get(f"/v1/blobs/{Digest.of(data)}").content == data
    assert client.head(path).status_code == 404
    again = client.post("/v1/uploads", json={"digest": str(Digest.of(data)), "size": len(data)})
    assert (again.status_code, again.json()["id"], again.json()["offset"]) == (200, None, len(data))


@pytest.mark.parametrize("wrong", [0, 99, 101, 10**12])
def test_a_gap_or_an_overlap_is_refused(client, wrong):
    path = begin(client, DATA + str(wrong).encode())
    send(client, path, 0, DATA[:100]).raise_for_status()
    answer = send(client, path, wrong, DATA[wrong : wrong + 10])
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "100 bytes" in answer.json()["detail"]
    assert offset(client, path) == 100


def test_bytes_of_another_digest_are_refused_and_end_the_upload(client):
    data = DATA + b"named"
    path = begin(client, data)
    answer = send(client, path, 0, data[:-1] + b"X")
    assert (answer.status_code, answer.json()["code"]) == (422, "knowledge-corrupt")
    assert client.head(path).status_code == 404
    assert client.head(f"/v1/blobs/{Digest.of(data)}").status_code == 404


def test_more_bytes_than_announced_are_refused(client):
    path = begin(client, b"short one")
    assert send(client, path, 0, b"short one and more").status_code == 400
    assert offset(client, path) == 0


def test_a_blob_that_is_too_large_is_refused_before_it_is_sent(client):
    answer = client.post("/v1/uploads", json={"digest": str(Digest.of(b"")), "size": 3_000_001})
    assert answer.status_code == 413


@pytest.mark.parametrize("id", ["0" * 32, "..%2f..%2fvault.sqlite", "x", "a" * 33])
def test_an_unknown_upload_is_not_found(client, id):
    assert client.head(f"/v1/uploads/{id}").status_code in (404, 422)
    assert send(client, f"/v1/uploads/{id}", 0, b"x").status_code in (404, 422)


def test_a_patch_requires_an_offset(client):
    path = begin(client, DATA + b"no offset")
    for headers in ({}, {"Upload-Offset": "-1"}, {"Upload-Offset": "one"}):
        assert client.patch(path, content=b"x", headers=headers).status_code == 422


def test_bytes_received_before_a_lost_connection_are_kept(client, vault_service):
    data = DATA * 2 + b"cut"
    path = begin(client, data)
    host, port = vault_service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sender:
        head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        head += f"Upload-Offset: 0\r\nContent-Length: {len(data)}\r\n\r\n"
        sender.sendall(head.encode() + data[:-5])
        while not offset(client, path):
            pass
    answer = None
    while answer is None or answer.status_code == 409:  # the vault is still writing what it received
        received = offset(client, path)
        answer = send(client, path, received, data[received:])
    assert received >= 1 << 20
    assert answer.status_code == 201
    assert client.get(f"/v1/blobs/{Digest.of(data)}").content == data


def artifact(data):
    return Artifact(digest=Digest.of(data), size=len(data))


def test_resumes_after_a_restart(tmp_path):
    with closing(VaultStore(tmp_path)) as store:
        uploads = Uploads(store)
        id = uploads.begin(artifact(DATA)).id
        uploads.begin_append(id, 0).write(DATA[:1000])
    (tmp_path / "uploads" / ("0123" * 8)).write_bytes(b"without a row")
    with closing(VaultStore(tmp_path)) as store:
        uploads = Uploads(store)
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == [id]
        assert uploads.status(id).offset == 1000
        lease = uploads.begin_append(id, 1000)
        lease.write(DATA[1000:])
        assert uploads.complete(lease) == (artifact(DATA), True)
        assert store.get(Digest.of(DATA)) == DATA
    with closing(VaultStore(tmp_path)) as store, pytest.raises(KnowledgeNotFoundError):
        Uploads(store).status(id)


def test_a_later_request_takes_the_lease_of_an_earlier_one(vault_store):
    uploads = Uploads(vault_store)
    id = uploads.begin(artifact(DATA)).id
    stalled = uploads.begin_append(id, 0)
    stalled.write(DATA[:10])
    later = uploads.begin_append(id, 10)
    with pytest.raises(ConflictError, match="later request"):
        stalled.write(DATA[10:20])
    later.write(DATA[10:])
    assert uploads.complete(later) is not None


def test_an_idle_upload_is_dropped(vault_store, tmp_path):
    uploads = Uploads(vault_store, expiry=timedelta(hours=1))
    old, young = (uploads.begin(artifact(data)).id for data in (b"old", b"young"))
    os.utime(tmp_path / "vault" / "uploads" / old, (0, 0))
    assert uploads.purge_expired() == 1
    assert uploads.status(young).offset == 0
    with pytest.raises(KnowledgeNotFoundError, match="begin it again"):
        uploads.status(old)
    assert Uploads(vault_store).status(young).size == 5

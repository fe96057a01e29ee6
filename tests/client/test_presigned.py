"""Direct transfers: a hub on a bucket, its clients, and failures between them and the bucket."""

import random
from dataclasses import replace

import httpx
import pytest

from kuber.client import vault as client
from kuber.client.credentials import Credentials
from kuber.client.download import Download
from kuber.client.presigned import BACKOFF_SECONDS, PresignedTransfer
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.blob import DirectUrl
from kuber.domain.digest import Digest
from kuber.domain.knowledge import TensorSpec
from kuber.domain.query import Query
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError
from kuber.services.vault.s3_client import Bucket
from tests.fixtures.hub import SigningRegistry, running_hub
from tests.fixtures.proxy import proxy

SIZE = 3_000_000


@pytest.fixture(scope="module")
def place(s3):
    return f"s3://{s3.bucket()}/hub"


@pytest.fixture(scope="module")
def bucket(place):
    return Bucket(place)


@pytest.fixture(scope="module")
def direct_hub(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("direct")
    keeping = ("--store", place, "--direct", "--max-blob-bytes", "5000000")
    with running_hub(folder, "--open-enrolment", keeping=keeping) as hub:
        yield hub


@pytest.fixture(autouse=True)
def _small_uploads(monkeypatch):
    """Send small blobs as uploads too."""
    monkeypatch.setattr(client, "SINGLE_REQUEST_BYTES", 1 << 18)


class RecordingVault(HttpVault):
    """Client that records its requests to the vault and to the bucket."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.vault_requests, self.bucket_requests = [], []
        self._client.event_hooks = {"request": [self.vault_requests.append]}
        original = self._presigned._client_for

        def recorded(url):
            client = original(url)
            if client is not None:
                client.event_hooks = {"request": [self.bucket_requests.append]}
            return client

        self._presigned._client_for = recorded


@pytest.fixture
def vault(direct_hub):
    with RecordingVault(direct_hub.vault, credentials=Credentials(token=direct_hub.secret)) as vault:
        yield vault


def blob_key(data):
    hex = Digest.of(data).hex
    return f"blobs/{hex[:2]}/{hex[2:4]}/{hex}"


def test_large_blobs_are_sent_and_read_directly_without_a_token(vault, bucket):
    data = random.Random(1).randbytes(SIZE)
    artifact = vault.put(data)
    assert vault.get(artifact.digest) == data
    assert [(request.method, request.url.path) for request in vault.vault_requests] == [
        ("POST", "/v1/uploads"),
        ("POST", vault.vault_requests[1].url.path),
        ("GET", f"/v1/blobs/{artifact.digest}"),
    ]
    assert [request.method for request in vault.bucket_requests] == ["PUT", "GET"]
    for request in vault.bucket_requests:
        assert not {"authorization", "kuber-protocol", "if-range"} & set(request.headers)
    assert b"".join(bucket.get(blob_key(data))[1]) == data
    assert list(bucket.objects("staging")) == []


def test_a_client_that_accepts_no_redirect_gets_the_bytes_from_the_vault(direct_hub, vault):
    data = random.Random(2).randbytes(SIZE)
    headers = {"Authorization": f"Bearer {direct_hub.secret}"}
    with httpx.Client(base_url=direct_hub.vault, headers=headers, trust_env=False, verify=False) as plain:
        path = f"/v1/blobs/{Digest.of(data)}"
        assert plain.put(path, content=data).status_code == 201
        assert plain.get(path).content == data
        part = plain.get(path, headers={"Range": "bytes=1000000-1999999"})
        assert (part.status_code, part.content) == (206, data[1_000_000:2_000_000])
        redirected = plain.get(path, headers={"KUber-Direct": "yes"})
        assert (redirected.status_code, redirected.headers["cache-control"]) == (307, "no-store")
        assert plain.head(path, headers={"KUber-Direct": "yes"}).status_code == 200
        absent = f"/v1/blobs/{Digest.of(b'absent')}"
        assert plain.get(absent, headers={"KUber-Direct": "yes"}).status_code == 404
        begun = plain.post("/v1/uploads", json={"digest": str(Digest.of(b"other")), "size": 5, "direct": True}).json()
        assert plain.post(f"/v1/uploads/{begun['id']}").status_code == 409
        assert httpx.put(begun["direct"]["url"], content=b"OTHER", trust_env=False).status_code == 200
        refused = plain.post(f"/v1/uploads/{begun['id']}")
        assert (refused.status_code, refused.json()["code"]) == (422, "knowledge-corrupt")
        assert plain.post(f"/v1/uploads/{begun['id']}").status_code == 404
        large = {"digest": str(Digest.of(b"")), "size": 5_000_001, "direct": True}
        assert plain.post("/v1/uploads", json=large).status_code == 413


def test_knowledge_is_published_and_pulled_through_the_bucket(direct_hub, samples):
    credentials = Credentials()
    wide = replace(samples.architecture, manifest={"w": TensorSpec(dtype="F32", shape=(300, 1000))})
    with (
        SigningRegistry(direct_hub.registry, credentials=credentials) as registry,
        RecordingVault(direct_hub.vault, credentials=credentials) as vault,
    ):
        me = registry.register(samples.name()).id
        blob = samples.weights(wide.manifest)
        record = registry.publish(samples.draft(me, vault.put(blob), architecture=wide), key="one")
        assert vault.get(record.artifacts["weights"].digest) == blob
        assert [request.method for request in vault.bucket_requests] == ["PUT", "GET"]
        broken = vault.put(blob[:-4] + b"\0\0\xc0\x7f")  # not a number
        with pytest.raises(RequestRejectedError, match="not a valid weights artifact"):
            registry.publish(samples.draft(me, broken, architecture=wide), key="two")
    with HttpRegistry(direct_hub.registry, credentials=Credentials(token=direct_hub.operator)) as registry:
        assert registry.discover(Query(task=samples.task.name)).items == (record,)


def test_flipped_bytes_in_the_bucket_are_detected(vault, bucket):
    data = random.Random(3).randbytes(SIZE)
    digest = vault.put(data).digest
    bucket.put(blob_key(data), data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptKnowledgeError, match=digest.hex):
        vault.get(digest)
    cursor, rotten = None, []
    while True:
        found = vault.scrub(limit=1000, cursor=cursor)
        rotten += [rot.digest for rot in found.rotten]
        if (cursor := found.cursor) is None:
            break
    assert rotten == [digest]
    with pytest.raises(KnowledgeNotFoundError):
        vault.get(digest)
    vault.put(data)
    assert vault.get(digest) == data


def test_a_bucket_that_clients_cannot_reach_is_replaced_by_the_vault(vault, monkeypatch):
    data = random.Random(4).randbytes(SIZE)
    monkeypatch.setattr("kuber.client.presigned.PresignedTransfer.put", to_closed_port(PresignedTransfer.put))
    monkeypatch.setattr("kuber.client.presigned.PresignedTransfer.get", to_closed_port(PresignedTransfer.get))
    digest = vault.put(data).digest
    assert [request.method for request in vault.vault_requests] == ["POST", "PATCH"]
    vault._presigned._retry_at = 0.0
    assert vault.get(digest) == data
    assert [request.headers.get("kuber-direct") for request in vault.vault_requests[2:]] == ["yes", None]
    assert vault.get(digest) == data  # and the bucket is not tried for a while
    assert [request.headers.get("kuber-direct") for request in vault.vault_requests[4:]] == [None]


def to_closed_port(transfer):
    """Redirect a transfer to a port without a server."""

    def changed(self, target, content):
        url = httpx.URL(target.url if isinstance(target, DirectUrl) else target).copy_with(port=9)
        return transfer(self, replace(target, url=str(url)) if isinstance(target, DirectUrl) else str(url), content)

    return changed


def test_a_lost_connection_to_the_bucket_is_resumed(vault, s3, monkeypatch):
    data = random.Random(5).randbytes(SIZE)
    digest = vault.put(data).digest
    with proxy(s3.url, seed=1, mishaps=["cut"], reach=SIZE // 2) as line:
        port = httpx.URL(line.url).port
        original = PresignedTransfer.get
        monkeypatch.setattr(
            PresignedTransfer,
            "get",
            lambda self, url, download: original(self, str(httpx.URL(url).copy_with(port=port)), download),
        )
        assert vault.get(digest) == data
    first, *resumed = vault.bucket_requests[1:]
    assert "range" not in first.headers
    assert all(request.headers["range"].startswith("bytes=") for request in resumed)
    assert line.struck


def test_a_url_that_the_bucket_refuses_is_replaced_by_the_vault(vault):
    data = random.Random(6).randbytes(SIZE)
    digest = vault.put(data).digest
    original = PresignedTransfer.get

    def refused(self, url, download):
        return original(self, url.replace("/blobs/", "/blobs/absent-"), download)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PresignedTransfer, "get", refused)
        assert vault.get(digest) == data  # through the vault
    vault.bucket_requests.clear()
    assert vault.get(digest) == data
    assert len(vault.bucket_requests) == 1  # one refusal is no outage


def test_a_response_that_is_not_the_blob_is_replaced_by_the_vault(vault, monkeypatch, script, reply):
    """For example the login page of a network portal."""
    data = random.Random(7).randbytes(400_000)
    digest = vault.put(data).digest
    portal = script(*[reply(body=b"<html>Log in first.</html>")] * 3)
    original = vault._presigned.get
    monkeypatch.setattr(vault._presigned, "get", lambda url, download: original(f"{portal.url}/login", download))
    assert vault.get(digest) == data
    assert len(portal.requests) == 1


def test_a_vault_over_tls_uses_only_https_urls(script, reply):
    service = script(reply(body=b"bytes"))
    target = DirectUrl(url=f"{service.url}/x", expires_at=None)
    for secure, requests in ((True, 0), (False, 2)):
        transfer = PresignedTransfer(secure=secure, ca=None)
        assert transfer.put(target, b"bytes") is not secure
        download = Download(Digest.of(b"bytes"), "vault")
        assert transfer.get(target.url, download) is not secure
        assert len(service.requests) == requests
        transfer.close()


@pytest.mark.parametrize("url", ["", "ftp://x/y", "file:///etc/passwd", "http://", "http://[", "/v1/blobs"])
def test_other_kinds_of_urls_are_not_used(url):
    transfer = PresignedTransfer(secure=False, ca=None)
    assert transfer.get(url, Download(Digest.of(b"x"), "vault")) is False
    assert transfer.put(DirectUrl(url=url, expires_at=None), b"x") is False
    transfer.close()


def test_an_unreachable_bucket_is_tried_again_later():
    now = [1000.0]
    transfer = PresignedTransfer(secure=False, ca=None, monotonic=lambda: now[0])
    assert transfer.available
    transfer.put(DirectUrl(url="http://127.0.0.1:9/x", expires_at=None), b"x")
    assert not transfer.available
    now[0] += BACKOFF_SECONDS
    assert transfer.available
    transfer.close()

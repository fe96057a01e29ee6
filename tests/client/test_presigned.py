"""Bytes beside the vault: a whole hub on a bucket, its clients, and what comes between them and the bucket."""

import random
from dataclasses import replace

import httpx
import pytest

from kuber.client import vault as client
from kuber.client.credentials import Credentials
from kuber.client.download import Download
from kuber.client.presigned import AWAY_SECONDS, PresignedTransfer
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
def _small(monkeypatch):
    """What is not tiny is announced."""
    monkeypatch.setattr(client, "WHOLE", 1 << 18)


class Watched(HttpVault):
    """Notes what it asks the vault for, and what it asks others for."""

    def __init__(self, *told, **options):
        super().__init__(*told, **options)
        self.asked, self.beside = [], []
        self._client.event_hooks = {"request": [self.asked.append]}
        original = self._direct._client

        def watched(url):
            found = original(url)
            if found is not None:
                found.event_hooks = {"request": [self.beside.append]}
            return found

        self._direct._client = watched


@pytest.fixture
def vault(direct_hub):
    with Watched(direct_hub.vault, credentials=Credentials(token=direct_hub.secret)) as vault:
        yield vault


def name(data):
    hex = Digest.of(data).hex
    return f"blobs/{hex[:2]}/{hex[2:4]}/{hex}"


def test_bytes_go_beside_the_vault_both_ways_and_no_token_with_them(vault, bucket):
    data = random.Random(1).randbytes(SIZE)
    artifact = vault.put(data)
    assert vault.get(artifact.digest) == data
    assert [(each.method, each.url.path) for each in vault.asked] == [
        ("POST", "/v1/uploads"),
        ("POST", vault.asked[1].url.path),
        ("GET", f"/v1/blobs/{artifact.digest}"),
    ]
    assert [each.method for each in vault.beside] == ["PUT", "GET"]
    for each in vault.beside:
        assert not {"authorization", "kuber-protocol", "if-range"} & set(each.headers)
    assert b"".join(bucket.get(name(data))[1]) == data
    assert list(bucket.objects("staging")) == []


def test_who_does_not_ask_for_it_gets_the_bytes_from_the_vault(direct_hub, vault):
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


def test_knowledge_is_published_and_found_by_way_of_the_bucket(direct_hub, samples):
    credentials = Credentials()
    wide = replace(samples.architecture, manifest={"w": TensorSpec(dtype="F32", shape=(300, 1000))})
    with (
        SigningRegistry(direct_hub.registry, credentials=credentials) as registry,
        Watched(direct_hub.vault, credentials=credentials) as vault,
    ):
        me = registry.register(samples.name()).id
        blob = samples.weights(wide.manifest)
        record = registry.publish(samples.draft(me, vault.put(blob), architecture=wide), key="one")
        assert vault.get(record.artifacts["weights"].digest) == blob
        assert [each.method for each in vault.beside] == ["PUT", "GET"]
        broken = vault.put(blob[:-4] + b"\0\0\xc0\x7f")  # not a number
        with pytest.raises(RequestRejectedError, match="no sound weights"):
            registry.publish(samples.draft(me, broken, architecture=wide), key="two")
    with HttpRegistry(direct_hub.registry, credentials=Credentials(token=direct_hub.operator)) as registry:
        assert registry.discover(Query(task=samples.task.name)).items == (record,)


def test_flipped_bytes_in_the_bucket_are_found(vault, bucket):
    data = random.Random(3).randbytes(SIZE)
    digest = vault.put(data).digest
    bucket.put(name(data), data[:-1] + bytes([data[-1] ^ 1]))
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


def test_a_bucket_that_clients_do_not_reach_leaves_the_way_through_the_vault(vault, monkeypatch):
    data = random.Random(4).randbytes(SIZE)
    monkeypatch.setattr("kuber.client.presigned.PresignedTransfer.put", nowhere(PresignedTransfer.put))
    monkeypatch.setattr("kuber.client.presigned.PresignedTransfer.get", nowhere(PresignedTransfer.get))
    digest = vault.put(data).digest
    assert [each.method for each in vault.asked] == ["POST", "PATCH"]
    vault._direct._away_until = 0.0
    assert vault.get(digest) == data
    assert [each.headers.get("kuber-direct") for each in vault.asked[2:]] == ["yes", None]
    assert vault.get(digest) == data  # and the bucket is left alone for a while
    assert [each.headers.get("kuber-direct") for each in vault.asked[4:]] == [None]


def nowhere(act):
    """The same, to a port where nobody listens."""

    def changed(self, to, given):
        url = httpx.URL(to.url if isinstance(to, DirectUrl) else to).copy_with(port=9)
        return act(self, replace(to, url=str(url)) if isinstance(to, DirectUrl) else str(url), given)

    return changed


def test_a_cut_on_the_way_from_the_bucket_goes_on_where_it_was(vault, s3, monkeypatch):
    data = random.Random(5).randbytes(SIZE)
    digest = vault.put(data).digest
    with proxy(s3.url, seed=1, mishaps=["cut"], reach=SIZE // 2) as line:
        port = httpx.URL(line.url).port
        real = PresignedTransfer.get
        monkeypatch.setattr(
            PresignedTransfer,
            "get",
            lambda self, url, given: real(self, str(httpx.URL(url).copy_with(port=port)), given),
        )
        assert vault.get(digest) == data
    beside = vault.beside[1:]
    assert "range" not in beside[0].headers
    assert all(each.headers["range"].startswith("bytes=") for each in beside[1:])
    assert line.struck


def test_a_url_that_is_over_is_asked_for_again_or_left(vault):
    data = random.Random(6).randbytes(SIZE)
    digest = vault.put(data).digest
    refused = PresignedTransfer.get

    def late(self, url, given):
        return refused(self, url.replace("/blobs/", "/blobs/absent-"), given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PresignedTransfer, "get", late)
        assert vault.get(digest) == data  # through the vault
    vault.beside.clear()
    assert vault.get(digest) == data
    assert len(vault.beside) == 1  # what is refused once is no outage


def test_who_answers_in_place_of_the_bucket_does_not_keep_the_blob_from_anybody(vault, monkeypatch, script, reply):
    """A portal that wants a login, for one: its page is no blob, and the vault has the right one."""
    data = random.Random(7).randbytes(400_000)
    digest = vault.put(data).digest
    portal = script(*[reply(body=b"<html>Log in first.</html>")] * 3)
    direct = vault._direct.get
    monkeypatch.setattr(vault._direct, "get", lambda url, download: direct(f"{portal.url}/login", download))
    assert vault.get(digest) == data
    assert len(portal.requests) == 1


def test_nothing_is_sent_in_the_clear_by_who_uses_tls(script, reply):
    service = script(reply(body=b"bytes"))
    there = DirectUrl(url=f"{service.url}/x", expires_at=None)
    for secure, asked in ((True, 0), (False, 2)):
        way = PresignedTransfer(secure=secure, ca=None)
        assert way.put(there, b"bytes") is not secure
        download = Download(Digest.of(b"bytes"), "vault")
        assert way.get(there.url, download) is not secure
        assert len(service.requests) == asked
        way.close()


@pytest.mark.parametrize("url", ["", "ftp://x/y", "file:///etc/passwd", "http://", "http://[", "/v1/blobs"])
def test_no_other_address_is_followed(url):
    way = PresignedTransfer(secure=False, ca=None)
    assert way.get(url, Download(Digest.of(b"x"), "vault")) is False
    assert way.put(DirectUrl(url=url, expires_at=None), b"x") is False
    way.close()


def test_a_bucket_that_is_away_is_tried_again_later():
    now = [1000.0]
    way = PresignedTransfer(secure=False, ca=None, monotonic=lambda: now[0])
    assert way.open
    way.put(DirectUrl(url="http://127.0.0.1:9/x", expires_at=None), b"x")
    assert not way.open
    now[0] += AWAY_SECONDS
    assert way.open
    way.close()

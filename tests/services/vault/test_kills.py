"""SIGKILL of a vault at each named point: acknowledged blobs are stored, and stored blobs are complete."""

import random
import signal
import threading
from pathlib import Path

import httpx
import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import TensorSpec
from kuber.wire.sent_blobs import MAX_SENT_BYTES, encode_blobs

from ..blob_places import S3Bucket

KILL_POINTS = str(Path(__file__).parents[1] / "kill_points.py")


def blob_path(data):
    return f"/v1/blobs/{Digest.of(data)}"


class Writer:
    """Puts, uploads and pins blobs until the vault is killed, and records what was acknowledged."""

    def __init__(self, client, weights, seed, *, direct=False):
        self.client = client
        self.weights = weights
        self.direct = direct
        self.numbers = random.Random(seed)
        self.put: list[bytes] = []
        self.pinned: list[bytes] = []

    def work(self, acts=60):
        try:
            for act in range(acts):
                data = self.weights(self.numbers.randbytes(8))
                artifact = {"kind": "weights", "digest": str(Digest.of(data)), "size": len(data)}
                pins = {"holder": Digest.of(data).hex, "artifacts": [artifact]}
                sent = act % 6 == 4 and len(data) <= MAX_SENT_BYTES
                if sent:
                    pins["blobs"] = encode_blobs([data])
                elif act % 2:
                    self._upload(data)
                else:
                    self.client.put(blob_path(data), content=data).raise_for_status()
                if not sent:
                    self.put.append(data)
                if act % 3:
                    self.client.post("/v1/pins", json=pins).raise_for_status()
                    if sent:
                        self.put.append(data)
                    self.pinned.append(data)
                else:
                    self.client.post("/v1/collections").raise_for_status()
        except httpx.TransportError:
            pass

    def _upload(self, data):
        body = {"digest": str(Digest.of(data)), "size": len(data), "direct": self.direct}
        begun = self.client.post("/v1/uploads", json=body).json()
        path = f"/v1/uploads/{begun['id']}"
        if self.direct and self.numbers.random() < 0.7:
            httpx.put(begun["direct"]["url"], content=data, trust_env=False, verify=False).raise_for_status()
            self.client.post(path).raise_for_status()
            return
        for start, end in ((0, 100), (100, len(data))):
            headers = {"Upload-Offset": str(start)}
            self.client.patch(path, content=data[start:end], headers=headers).raise_for_status()


@pytest.fixture
def weights(safetensors):
    def make(token, length=512):
        name = token.hex()
        return safetensors({name: TensorSpec(dtype="F32", shape=(length,))}, fill=token[0] % 64)

    return make


def check(client, folder, acknowledged):
    """Compare the vault after its restart with what was acknowledged."""
    for data in acknowledged:
        answer = client.get(blob_path(data))
        assert answer.status_code == 200
        assert answer.content == data
    page = client.get("/v1/blobs", params={"limit": 1000}).json()
    assert page["cursor"] is None
    for item in page["items"]:
        answer = client.get(f"/v1/blobs/{item['digest']}")
        assert (answer.status_code, str(Digest.of(answer.content))) == (200, item["digest"])
    assert list((folder / "incoming").iterdir()) == []
    stored = {file.name for file in (folder / "blobs").glob("*/*/*")}
    assert stored == {item["digest"].removeprefix("sha256:") for item in page["items"]}


def check_bucket(client, place, acknowledged):
    """Compare the vault on a bucket, after its restart and a collection, with what was acknowledged."""
    for data in acknowledged:
        answer = client.get(blob_path(data))
        assert (answer.status_code, answer.content) == (200, data)
    page = client.get("/v1/blobs", params={"limit": 1000}).json()
    assert page["cursor"] is None
    for item in page["items"]:
        answer = client.get(f"/v1/blobs/{item['digest']}")
        assert (answer.status_code, str(Digest.of(answer.content))) == (200, item["digest"])
    listed = {item["digest"].removeprefix("sha256:") for item in page["items"]}
    # A lifecycle rule of the bucket, not the vault, deletes unfinished multipart uploads.
    found = [name for name in place.names() if not name.startswith("unfinished ")]
    assert {name.rpartition("/")[2] for name in found if name.startswith("blobs/")} == listed
    assert [name for name in found if not name.startswith("blobs/")] == []


POINTS = [
    ">sync of the file",
    ">name",
    ">row",
    ">sent blobs stored",
    ">append",
    "<completion",
    "<rows removed",
    ">rows removed",
    ">file removed",
]
# These differ little from points above, and each costs two starts.
MORE = ["<write", ">write", "<sync of the file", "<name", "<sync of the folder", ">sync of the folder", "<row"]
MORE += ["<sent blobs stored", "<answer", ">answer", "<append", ">completion", "<file removed"]


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.soak) for point in MORE)])
def test_killed_at_a_point(start, tmp_path, weights, point):
    folder = tmp_path / "vault"
    lease = ["--lease", "0", "--grace", "0"] if "removed" in point else []
    options = ["--data", str(folder), "--collect-every", "0"]
    times = str(random.Random(point).randrange(3, 9))
    killed = start("vault", *options, *lease, program=(KILL_POINTS, point, times))
    writer = Writer(killed.client, weights, point)
    writer.work()
    assert killed.process.wait() == -signal.SIGKILL
    client = start("vault", *options).client
    check(client, folder, writer.pinned if lease else writer.put)
    client.post("/v1/collections").raise_for_status()
    check(client, folder, writer.pinned)


BUCKET_POINTS = [">copied to be hashed"]  # and ">copied" with two vaults: test_sharing.py
MORE_BUCKET_POINTS = [
    ">copied",
    "<staged",
    ">staged",
    "<copied",
    ">part sent",
    "<copied to be hashed",
    "<fetched",
    ">fetched",
]
MORE_BUCKET_POINTS += ["<row", ">row", "<staged object removed", ">staged object removed"]
MORE_BUCKET_POINTS += [">rows removed", "<object removed", ">object removed"]


@pytest.mark.parametrize(
    "point", [*BUCKET_POINTS, *(pytest.param(point, marks=pytest.mark.soak) for point in MORE_BUCKET_POINTS)]
)
def test_killed_at_a_point_with_a_bucket(start, tmp_path, weights, bucket_url, s3, point):
    place = S3Bucket(tmp_path / "seen", bucket_url, s3.url)
    options = ["--data", str(tmp_path / "vault"), "--collect-every", "0", "--store", bucket_url, "--direct"]
    lease = ["--lease", "0", "--grace", "0"] if "removed" in point else []
    times = str(random.Random(point).randrange(3, 6))
    killed = start("vault", *options, *lease, program=(KILL_POINTS, point, times))
    writer = Writer(killed.client, lambda token: weights(token, 300_000), point, direct=True)
    writer.work()
    assert killed.process.wait() == -signal.SIGKILL
    client = start("vault", *options, "--upload-expiry", "0").client
    client.post("/v1/collections").raise_for_status()
    check_bucket(client, place, writer.pinned if lease else writer.put)


@pytest.mark.parametrize("lives", [3, pytest.param(40, marks=pytest.mark.soak)])
def test_killed_at_random_times(start, tmp_path, weights, lives):
    folder = tmp_path / "vault"
    options = ["--data", str(folder), "--collect-every", "0.01", "--lease", "0.05", "--grace", "0"]
    numbers = random.Random(7)
    pinned: list[bytes] = []
    for life in range(lives):
        service = start("vault", *options)
        writers = [Writer(service.client, weights, f"{life} {n}") for n in range(3)]
        threads = [threading.Thread(target=write_until_killed, args=(writer,)) for writer in writers]
        for thread in threads:
            thread.start()
        wanted = numbers.randrange(3, 40)
        while sum(len(writer.pinned) for writer in writers) < wanted and any(map(threading.Thread.is_alive, threads)):
            threads[0].join(0.01)
        service.process.kill()
        for thread in threads:
            thread.join()
        pinned += [data for writer in writers for data in writer.pinned]
    client = start("vault", "--data", str(folder), "--collect-every", "0").client
    check(client, folder, pinned)


def write_until_killed(writer):
    """Write until the vault is killed. With a short lease a blob may be collected before its pin; that is no loss."""
    try:
        writer.work(acts=10_000)
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (400, 404):
            raise
        write_until_killed(writer)

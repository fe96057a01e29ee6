"""Hostile files, names and requests: each is answered with 4xx, runs no code and uses little memory."""

import gzip
import io
import json
import os
import pickle
import struct
import tempfile
import uuid
import zipfile
from pathlib import Path

import psutil
import pytest

from kuber.domain.digest import Digest
from tests.fixtures.waiting import LIMIT


class Bomb:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin, end, *, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def archive(name, content, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def numbers(code, *values):
    data = b"".join(struct.pack(f"<{code}", value) for value in values)
    dtype = {"e": "F16", "f": "F32", "d": "F64"}[code]
    return file({"w": tensor(0, len(data), dtype=dtype, shape=[len(values)])}, data)


def corpus(marker):
    pickled = pickle.dumps(Bomb(marker))
    zipped = archive("archive/data.pkl", pickled)
    valid = file({"w": tensor(0, 8)}, bytes(8))
    deep = b'{"w":' + b"[" * 400_000
    many = {f"t{n}": tensor(0, 4) for n in range(15_000)}
    twice = b'{"w":%s,"w":%s}' % ((json.dumps(tensor(0, 8)).encode(),) * 2)
    return {
        "pickle": pickled,
        "torch zip": zipped,
        "pt2": archive("archive/serialized_exported_program.json", pickled),
        "7z": b"7z\xbc\xaf\x27\x1c\x00\x04" + pickled,
        "zip bomb": archive("x", bytes(20_000_000), zipfile.ZIP_DEFLATED),
        "gzip bomb": gzip.compress(bytes(20_000_000)),
        "valid file, then a zip": valid + zipped,
        "zip in BOOL": file({"w": tensor(0, len(zipped), dtype="BOOL", shape=[len(zipped)])}, zipped),
        "header of 2 ** 63": struct.pack("<Q", 2**63) + valid[8:],
        "header over 1 MB": file(b"{" + b" " * 1_000_000 + b"}"),
        "header cut": valid[:20],
        "data cut": valid[:-1],
        "header of lists": file(deep),
        "header after blanks": file(b' {"w":' + json.dumps(tensor(0, 8)).encode() + b"}", bytes(8)),
        "name twice": file(twice, bytes(8)),
        "metadata of numbers": file({"__metadata__": {"a": 1}, "w": tensor(0, 8)}, bytes(8)),
        "overlap": file({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
        "many that overlap": file(many, bytes(4)),
        "gap": file({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
        "shape of 2 ** 62": file({"w": tensor(0, 8, shape=[2**62, 4])}, bytes(8)),
        "negative offsets": file({"w": tensor(-8, 0)}, bytes(8)),
        "dtype of code": file({"w": tensor(0, 8, dtype="O")}, bytes(8)),
        "boolean of 2": file({"w": tensor(0, 8, dtype="BOOL", shape=[8])}, bytes(7) + b"\2"),
        "floats of 8 bits": file({"w": tensor(0, 8, dtype="F8_E4M3", shape=[8])}, bytes(8)),
        "complex numbers": file({"w": tensor(0, 8, dtype="C64", shape=[1])}, bytes(8)),
        "nan": numbers("f", 1.0, float("nan")),
        "infinity": numbers("f", float("inf"), 1.0),
        "minus infinity": numbers("d", 0.5, float("-inf")),
        "nan of 16 bits": numbers("e", 1.0, float("nan")),
        "nan of bfloat16": file({"w": tensor(0, 4, dtype="BF16", shape=[2])}, b"\x80\x3f\xc0\x7f"),
    }


MARKER = Path(tempfile.gettempdir(), f"kuber-marker-{uuid.uuid4().hex}")
CORPUS = corpus(MARKER)


@pytest.fixture
def client(vault_service):
    return vault_service.client


def test_unpickling_the_corpus_would_run_code(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(corpus(marker)["pickle"])
    assert marker.exists()


@pytest.mark.parametrize("name", CORPUS)
def test_hostile_files_are_not_pinned_as_weights(client, vault_service, name):
    data = CORPUS[name]
    process = psutil.Process(vault_service.process.pid)
    digest = str(Digest.of(data))
    client.put(f"/v1/blobs/{digest}", content=data).raise_for_status()
    before = process.memory_info().rss
    body = {"holder": "hostile", "artifacts": [{"kind": "weights", "digest": digest, "size": len(data)}]}
    for _ in range(2):
        answer = client.post("/v1/pins", json=body)
        assert 400 <= answer.status_code < 500, answer.text
        assert "not a valid weights artifact" in answer.json()["detail"]
    assert process.memory_info().rss - before < 32 << 20  # the objects of a header of 1 MB at most
    assert not MARKER.exists()
    assert client.get(f"/v1/blobs/{digest}").content == data  # it is served as it was stored


@pytest.mark.parametrize("kind", ["pickle", "onnx", "../weights", "w" * 65, ""])
def test_other_kinds_are_refused(client, kind):
    data = numbers("f", 1.0, 2.0)
    client.put(f"/v1/blobs/{Digest.of(data)}", content=data).raise_for_status()
    body = {
        "holder": "hostile",
        "artifacts": [{"kind": kind, "digest": str(Digest.of(data)), "size": len(data)}],
    }
    assert client.post("/v1/pins", json=body).status_code in (400, 422)
    assert client.post(
        "/v1/pins", json=body | {"artifacts": [{**body["artifacts"][0], "kind": "weights"}]}
    ).is_success


@pytest.mark.parametrize(
    "name",
    [
        "sha256:..%2f..%2f" + "0" * 58,
        "..%2f..%2fvault.sqlite",
        "sha256:" + "A" * 64,
        "%00",
        "sha256:" + "0" * 63 + "%2f",
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_names_like_paths_are_refused(client, method, name):
    assert client.request(method, f"/v1/blobs/{name}").status_code in (404, 405, 422)


def test_memory_is_bounded_while_a_large_file_is_checked(start, tmp_path):
    service = start("vault", "--data", str(tmp_path / "vault"))
    process = psutil.Process(service.process.pid)
    header = json.dumps({"w": tensor(0, 64 << 20)}).encode()
    piece = struct.pack("<f", 3e38) * (1 << 18)  # so large that each number is examined
    pieces = [struct.pack("<Q", len(header)) + header, *[piece] * 64]
    digest = str(Digest.of(*pieces))
    before = process.memory_info().rss
    service.client.put(f"/v1/blobs/{digest}", content=iter(pieces)).raise_for_status()
    size = sum(map(len, pieces))
    body = {"holder": "large", "artifacts": [{"kind": "weights", "digest": digest, "size": size}]}
    assert service.client.post("/v1/pins", json=body, timeout=LIMIT).status_code == 200
    assert process.memory_info().rss - before < 24 << 20

"""The client of a vault, against scripted responses."""

from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from kuber.client import vault as vault_module
from kuber.client.vault import HttpVault
from kuber.domain.blob import Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import (
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
)
from kuber.wire.registry import ArtifactBody
from kuber.wire.vault import AnnouncementBody, UploadBody

DATA = bytes(range(256)) * 10
DIGEST = Digest.of(DATA)
FLIPPED = bytes([DATA[0] ^ 1]) + DATA[1:]


@pytest.fixture
def vault(script):
    vaults = []

    def make(*replies):
        service = script(*replies)
        vaults.append(HttpVault(service.url, patience=0))
        return vaults[-1], service

    yield make
    for client in vaults:
        client.close()


def test_returns_the_blob_of_a_digest(vault, reply):
    client, service = vault(reply(body=DATA))
    assert client.get(DIGEST) == DATA
    assert service.requests[0][1] == f"/v1/blobs/{DIGEST}"


@pytest.mark.parametrize("body", [FLIPPED, DATA[:-1], DATA + b"x", b""], ids=["flipped", "short", "long", "empty"])
def test_refuses_bytes_of_another_digest(vault, reply, body):
    client, service = vault(reply(body=body))
    with pytest.raises(CorruptKnowledgeError, match=DIGEST.hex):
        client.get(DIGEST)
    assert len(service.requests) == 1


def test_an_incomplete_response_is_an_error_without_patience(vault, reply):
    client, _ = vault(reply(body=DATA[:100], length=len(DATA)))
    with pytest.raises(ServiceUnavailableError):
        client.get(DIGEST)


def test_fetches_an_incomplete_blob_again(script, reply):
    service = script(reply(body=DATA[:100], length=len(DATA)), reply(body=DATA))
    with HttpVault(service.url) as client:
        assert client.get(DIGEST) == DATA


def test_refuses_a_blob_too_large_for_memory(vault, reply):
    client, _ = vault(reply(length=1 << 50))
    with pytest.raises(IncompatibleKnowledgeError, match=str(1 << 50)):
        client.get(DIGEST)


def test_does_not_decompress_blobs(vault, reply):
    client, service = vault(reply(body=DATA, headers={"KUber-Protocol": "1", "Content-Encoding": "gzip"}))
    assert client.get(DIGEST) == DATA
    assert service.requests[0][2]["accept-encoding"] == "identity"


@pytest.mark.parametrize("size", [-1, 1])
def test_refuses_a_receipt_for_other_bytes(vault, reply, size):
    receipt = f'{{"digest":"{DIGEST}","size":{len(DATA) + size}}}'
    client, _ = vault(reply(status=201, body=receipt.encode()))
    with pytest.raises(ServiceError, match="other bytes"):
        client.put(DATA)


def test_ignores_unknown_fields_of_a_newer_vault(vault, reply):
    receipt = f'{{"digest":"{DIGEST}","size":{len(DATA)},"stored_in":"cellar"}}'
    client, _ = vault(reply(status=201, body=receipt.encode()))
    assert client.put(DATA).digest == DIGEST


@pytest.mark.parametrize("size", [[-5], ["five"]])
def test_a_malformed_listing_is_an_error_in_one_sentence(vault, reply, size):
    body = f'{{"items":[{{"digest":"{DIGEST}","size":"{size}"}}],"cursor":null}}'
    client, _ = vault(reply(body=body.encode()))
    with pytest.raises(ServiceError, match=r"items\.0\.size"):
        client.blobs()


def test_refuses_too_many_pins_before_sending(vault, reply):
    client, service = vault(reply(status=204))
    with pytest.raises(RequestRejectedError, match="artifacts"):
        client.pin("holder", [("weights", Artifact(digest=DIGEST, size=1))] * 1001)
    assert not service.requests


class Limited(BaseHTTPRequestHandler):
    """A vault behind an intermediary that takes bodies of at most `server.limit` bytes."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.refuse_or(self.stored)

    do_POST = do_PATCH = do_PUT  # noqa: N815  names of http.server

    def refuse_or(self, accept):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sizes.append((self.command, len(body)))
        if len(body) > self.server.limit:
            self.reply(413, b"<html><head><title>413 Request Entity Too Large</title></head></html>", {})
        else:
            accept(body)

    def stored(self, body):
        if self.command == "PUT":
            self.server.received[:] = body
            self.reply(201, ArtifactBody.of(Artifact.of(body)).model_dump_json().encode())
            return
        if self.command == "POST":
            message = AnnouncementBody.read(body)
            self.server.blob = message.digest, message.size
        else:
            assert int(self.headers["Upload-Offset"]) == len(self.server.received)
            self.server.received += body
        digest, size = self.server.blob
        offset = len(self.server.received)
        upload = Upload(id="a" * 32 if offset < size else None, digest=digest, size=size, offset=offset)
        self.reply(201, UploadBody.of(upload).model_dump_json().encode())

    def reply(self, status, body, headers=None):
        self.send_response(status)
        for name, value in ({"KUber-Protocol": "1"} if headers is None else headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def limited():
    """Start a vault behind an intermediary that takes bodies of at most so many bytes."""
    with ExitStack() as stack:

        def start(limit):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Limited))
            server.limit, server.sizes, server.received, server.daemon_threads = limit, [], bytearray(), True
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            client = stack.enter_context(HttpVault(f"http://127.0.0.1:{server.server_port}", patience=0))
            return client, server

        yield start


@pytest.mark.parametrize("single", [1 << 30, 1 << 20], ids=["in one request", "as an upload"])
def test_a_blob_passes_a_limit_on_bodies_in_parts(limited, monkeypatch, single):
    monkeypatch.setattr(vault_module, "SINGLE_REQUEST_BYTES", single)
    client, server = limited(1 << 20)
    data = bytes(range(256)) * (10 << 10)
    assert client.put(data) == Artifact.of(data)
    assert bytes(server.received) == data
    assert [size for method, size in server.sizes if method == "PATCH"][-5:] == [1 << 19] * 5
    server.received.clear()
    server.sizes.clear()
    assert client.put(data) == Artifact.of(data)
    assert [method for method, _ in server.sizes] == ["POST", *["PATCH"] * 5]  # what is refused is known


def test_parts_become_smaller_until_they_pass(limited):
    client, server = limited(200_000)
    data = bytes(1 << 20)
    assert client.put(data) == Artifact.of(data)
    assert {size for method, size in server.sizes if method == "PATCH"} == {1 << 19, 1 << 18, 1 << 17}


@pytest.mark.parametrize("single", [1 << 30, 1 << 20], ids=["in one request", "as an upload"])
@pytest.mark.parametrize("limit", [0, 10_000], ids=["no body", "no part"])
def test_a_limit_below_the_smallest_part_is_one_sentence(limited, monkeypatch, limit, single):
    monkeypatch.setattr(vault_module, "SINGLE_REQUEST_BYTES", single)
    client, _ = limited(limit)
    with pytest.raises(RequestRejectedError) as caught:
        client.put(b"weights" * 300_000)
    size = "2.1 MB" if limit or single == 1 << 30 else "113 bytes"
    assert caught.value.message == (
        f"Something between us and the vault takes no body of {size} (status 413); raise its limit, such as "
        "client_max_body_size of nginx."
    )


def test_a_blob_that_is_too_large_for_a_server_without_uploads_is_the_same_sentence(vault, reply):
    client, service = vault(reply(status=413, headers={}), reply(status=501, headers={}))
    with pytest.raises(RequestRejectedError, match=r"takes no body of 2\.1 MB \(status 413\); raise its limit"):
        client.put(b"weights" * 300_000)
    assert [method for method, *_ in service.requests] == ["PUT", "POST"]

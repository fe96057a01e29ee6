"""The client of a vault, against scripted responses."""

import pytest

from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import (
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
)

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
